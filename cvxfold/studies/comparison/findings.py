"""What a comparison found: a row for each contestant, and what follows from them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.gradient.verdict import Verdict
from cvxfold.studies.comparison.differences import FiniteDifferences

_TRUSTED = 0.1  # finite differences judge where their own error is within this share of the tolerance


@dataclass(frozen=True)
class Row:
    """One contestant: how far it is from the reference, the first row, and how good it is on its own.

    Args:
        name: package and method. folded: whether the package is cvxfold.
        solution: ‖difference‖/‖reference‖ over all outputs of each instance, ``(B,)``.
        gradients: the same of the loss gradient on each parameter, by name, ``(B,)``, or ``(1,)`` where the
            instances share the parameter. A gradient of no influence counts as one of little.
        residual: relative residual of its own adjoint system at its own solution, ``(B,)``.
        forward_seconds, backward_seconds: wall time, after a call to warm up.
        peak_bytes: as :class:`cvxfold.studies.measure.Measured` has it.
        finite_difference_error: of the gradient, relative, ``(B,)``, and last for shared parameters.
        verdicts: what it reports of the gradient of each instance, B of them; cvxpylayers reports nothing.
        flat: likewise, whether it is zero to rounding while the loss looks at the solution.
        error: why there is nothing else in this row.
    """

    name: str
    folded: bool
    solution: Tensor | None = None
    gradients: dict[str, Tensor] | None = None
    residual: Tensor | None = None
    forward_seconds: float | None = None
    backward_seconds: float | None = None
    peak_bytes: int | None = None
    finite_difference_error: Tensor | None = None
    verdicts: list[Verdict] | None = None
    flat: list[bool] | None = None
    error: str | None = None

    @property
    def solution_difference(self) -> float | None:
        """The largest over the batch."""
        return None if self.solution is None else float(self.solution.max())

    @property
    def gradient_differences(self) -> dict[str, float] | None:
        """The largest over the batch, by parameter."""
        if self.gradients is None:
            return None
        return {name: float(each.max()) for name, each in self.gradients.items()}

    @property
    def gradient_difference(self) -> float | None:
        """The largest over batch and parameters, NaN if one is."""
        if not self.gradient_differences:
            return None
        found = self.gradient_differences.values()
        return math.nan if any(math.isnan(each) for each in found) else max(found)

    @property
    def adjoint_residual(self) -> float | None:
        """The largest over the batch."""
        return None if self.residual is None else float(self.residual.max())

    @property
    def worst_parameter(self) -> str:
        """Where the gradient differs most, in words; nothing where there is but one parameter."""
        differences = self.gradient_differences or {}
        if len(differences) < 2:
            return ""
        return f" (most on {max(differences, key=lambda name: differences[name])})"

    def agrees(self, rtol: float) -> bool:
        """Whether solution and gradients are within ``rtol`` of the reference's."""
        differences = (self.solution_difference, self.gradient_difference)
        return all(difference is not None and difference <= rtol for difference in differences)


@dataclass(frozen=True)
class Findings:
    """All contestants on the same values and the same loss: what was found, and who is right.

    Args:
        rows: cvxfold's methods, of which the first is the reference, then cvxpylayers' modes.
        rtol: what counts as agreement.
        batch: B.
        finite_differences: the arbiter's derivatives, if it was asked.
        notes: what else there is to say.
    """

    rows: tuple[Row, ...]
    rtol: float
    batch: int
    finite_differences: FiniteDifferences | None = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Row:
        """The row of a name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r}: the rows are {[row.name for row in self.rows]}")

    @property
    def reference(self) -> Row:
        """The row that the others are compared to."""
        return self.rows[0]

    def agrees(self, rtol: float | None = None) -> bool:
        """Whether every other answer, of cvxpylayers and of cvxfold, is within ``rtol`` of the reference's.

        This is about numbers only, of all instances. Rows that failed count neither way; where the reference
        failed or nothing is left to compare with it, that is no agreement.

        Args:
            rtol: the comparison's own unless given.
        """
        answers = [row for row in self.rows[1:] if row.error is None]
        tolerance = self.rtol if rtol is None else rtol
        return bool(answers) and all(row.agrees(tolerance) for row in answers)

    @property
    def degenerate(self) -> list[int]:
        """Instances that have no unique derivative, as cvxfold's first method that answered reports them.

        Each answer there may be one of several gradients, so differences tell nothing.
        """
        return self._instances(Verdict.DEGENERATE)

    @property
    def unsolvable(self) -> list[int]:
        """Instances that have no solution, where the layer passes over them (``on_unsolvable="nan"``)."""
        return self._instances(Verdict.NO_SOLUTION)

    @property
    def flat(self) -> list[int]:
        """Instances whose gradient is zero to rounding, as the same row reports them: nothing moves there."""
        reports = [row.flat for row in self.rows if row.flat is not None]
        return [number for number, flat in enumerate(reports[0]) if flat] if reports else []

    @property
    def differing(self) -> list[Row]:
        """Rows with another answer than the reference's."""
        return [row for row in self.rows if row.error is None and not row.agrees(self.rtol)]

    @property
    def judged(self) -> Tensor | None:
        """Where finite differences are good enough to judge gradients that exist; None if nowhere.

        One for each instance, and last for shared parameters if there are any, whose gradient is one of all
        instances together.
        """
        if self.finite_differences is None:
            return None
        own_error = self.finite_differences.own_error
        trusted = self.differentiable(len(own_error)) & (own_error <= _TRUSTED * self.rtol)
        return trusted if bool(trusted.any()) else None

    def differentiable(self, entries: int) -> Tensor:
        """Where there is a unique derivative, for B entries, or B + 1 with that of shared parameters."""
        unique = torch.ones(self.batch, dtype=torch.bool, device="cpu")
        unique[[*self.degenerate, *self.unsolvable]] = False
        return torch.cat([unique, unique.all().expand(entries - self.batch)])

    @property
    def right(self) -> tuple[str, ...]:
        """Names of the rows whose gradient is within ``rtol`` of the finite differences.

        Without these, of those whose adjoint residual is within ``rtol``: they solved their linear system,
        at a solution that may still be off. Instances without a solution or without a unique derivative do
        not count; where there are no others, nobody is right.
        """
        return tuple(row.name for row in self.rows if self._is_right(row))

    def finite_difference_error(self, row: Row) -> float | None:
        """The largest of a row where finite differences judge; of all where they judge nothing."""
        errors, judged = row.finite_difference_error, self.judged
        if errors is None:
            return None
        return float((errors if judged is None else errors[judged]).max())

    def _instances(self, verdict: Verdict) -> list[int]:
        """Those of a verdict, by the first row that gives any."""
        reports = [row.verdicts for row in self.rows if row.verdicts is not None]
        return [number for number, each in enumerate(reports[0]) if each is verdict] if reports else []

    def _is_right(self, row: Row) -> bool:
        judged = self.judged
        measure = row.residual if judged is None else row.finite_difference_error
        if measure is None:
            return False
        counted = measure[self.differentiable(self.batch) if judged is None else judged]
        return bool(len(counted)) and bool((counted <= self.rtol).all())
