"""What a comparison found, and who is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from torch import Tensor

from cvxfold.comparison import show
from cvxfold.comparison.differences import FiniteDifferences


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
        peak_bytes: as :class:`cvxfold.monitor.measure.Measured` has it.
        finite_difference_error: of the gradient, relative, ``(B,)``, and last for shared parameters.
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
    error: str | None = None

    @property
    def solution_difference(self) -> float | None:
        """The largest over the batch."""
        return _largest(self.solution)

    @property
    def gradient_differences(self) -> dict[str, float] | None:
        """The largest over the batch, by parameter."""
        if self.gradients is None:
            return None
        return {name: float(each.max()) for name, each in self.gradients.items()}

    @property
    def gradient_difference(self) -> float | None:
        """The largest over batch and parameters."""
        return _worst(self.gradient_differences.values()) if self.gradient_differences else None

    @property
    def adjoint_residual(self) -> float | None:
        """The largest over the batch."""
        return _largest(self.residual)

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
class Comparison:
    """All contestants on the same values and the same loss.

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
        """Whether cvxfold's first method and every answer of cvxpylayers agree.

        Rows that failed count neither way; where nothing is left to compare, that is no agreement.
        """
        answers = [row for row in self.rows if not row.folded and row.error is None]
        tolerance = self.rtol if rtol is None else rtol
        return bool(answers) and all(row.agrees(tolerance) for row in answers)

    @property
    def differing(self) -> list[Row]:
        """Rows with another answer than the reference's."""
        return [row for row in self.rows if row.error is None and not row.agrees(self.rtol)]

    @property
    def right(self) -> tuple[str, ...]:
        """Names of the rows whose gradient is within ``rtol`` of the finite differences.

        Without these, of those whose adjoint residual is within ``rtol``: they solved their linear system,
        at a solution that may still be off.
        """
        return tuple(row.name for row in self.rows if self._is_right(row))

    @property
    def verdict(self) -> str:
        """Who is right, in words."""
        said = [*self._verdict(), *self._failures(), *self.notes]
        return " ".join(sentence for sentence in said if sentence)

    def to_dict(self) -> dict[str, Any]:
        """All of it in numbers, strings and lists, for JSON; a number that is not finite as a string."""
        record = {
            "batch": self.batch,
            "rtol": self.rtol,
            "agrees": self.agrees(),
            "right": list(self.right),
            "verdict": self.verdict,
            "rows": [_row_record(row) for row in self.rows],
        }
        if self.finite_differences is not None:
            record["finite_differences"] = {
                "solver": self.finite_differences.solver,
                "directions": self.finite_differences.directions,
                "own_error": [_number(each) for each in self.finite_differences.own_error.tolist()],
            }
        return record

    def __rich__(self) -> Group:
        return Group(show.table(self), self.verdict)

    def __str__(self) -> str:
        return show.text(self)

    def _trusted(self) -> Tensor | None:
        """Where the finite differences are good enough to judge, ``(U,)``."""
        if self.finite_differences is None:
            return None
        trusted = self.finite_differences.own_error <= 0.1 * self.rtol
        return trusted if bool(trusted.any()) else None

    def _is_right(self, row: Row) -> bool:
        trusted = self._trusted()
        measure = row.finite_difference_error if trusted is not None else row.residual
        if measure is None:
            return False
        return bool(((measure if trusted is None else measure[trusted]) <= self.rtol).all())

    def _failures(self) -> list[str]:
        """Who failed, and why; a reason that several share once."""
        reasons: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.error is not None:
                reasons.setdefault(row.error, []).append(row)
        return [f"{_listing(rows)} failed: {reason.rstrip('.')}." for reason, rows in reasons.items()]

    def _verdict(self) -> Sequence[str]:
        reference, differing = self.reference, self.differing
        if reference.error is not None:
            return ["There is nothing to compare with."]
        if not differing:
            others = [row for row in self.rows[1:] if row.error is None]
            if all(row.folded for row in others):
                said = "There is no answer of cvxpylayers to compare with."
                return [said, self._judged([reference, *others])]
            solution = _worst(_known(row.solution_difference for row in others))
            gradient = _worst(_known(row.gradient_difference for row in others))
            return [
                f"{_listing([reference, *others])} agree to {self.rtol:.0e}: the largest difference is "
                f"{solution:.1e} in the solutions and {gradient:.1e} in the gradients.",
                self._judged([reference]) if self.finite_differences else "",
            ]
        said = [
            f"{row.name} differs from {reference.name} by {row.solution_difference:.1e} in the solution and "
            f"{row.gradient_difference:.1e} in the gradient{row.worst_parameter}."
            for row in differing
        ]
        return [*said, self._judged([reference, *differing]), self._conclusion([reference, *differing])]

    def _judged(self, rows: Sequence[Row]) -> str:
        """What speaks for each of the rows."""
        trusted = self._trusted()
        if trusted is None:
            doubt = ""
            if self.finite_differences is not None:
                own = _largest(self.finite_differences.own_error)
                doubt = f"Finite differences cannot tell: their own error is up to {own:.1e}. "
            known = [
                f"{row.adjoint_residual:.1e} ({row.name})" for row in rows if row.adjoint_residual is not None
            ]
            return f"{doubt}Adjoint residuals: {', '.join(known)}."
        assert self.finite_differences is not None
        own = float(self.finite_differences.own_error[trusted].max())
        some = "" if bool(trusted.all()) else f", in {int(trusted.sum())} of {len(trusted)} instances"
        errors = [
            f"{float(row.finite_difference_error[trusted].max()):.1e} ({row.name})"
            for row in rows
            if row.finite_difference_error is not None
        ]
        return f"Off the finite differences (good to {own:.1e}{some}): {', '.join(errors)}."

    def _conclusion(self, rows: Sequence[Row]) -> str:
        right = [row for row in rows if self._is_right(row)]
        if not right:
            return f"None of them is right to {self.rtol:.0e}."
        if len(right) == 1:
            return f"{right[0].name} is right."
        if self._trusted() is not None:
            names = _listing(right)
            return f"The gradients of {names} are right to {self.rtol:.0e}."
        return (
            f"{_listing(right)} each solve their adjoint system, at solutions of different accuracy or of a "
            "degenerate problem: finite differences would tell."
        )


def _largest(values: Tensor | None) -> float | None:
    return None if values is None else float(values.max())


def _worst(values: Any) -> float:
    """The maximum, NaN if one is."""
    listed = list(values)
    return math.nan if any(math.isnan(value) for value in listed) else max(listed)


def _known(values: Any) -> list[float]:
    return [value for value in values if value is not None]


def _listing(rows: Sequence[Row]) -> str:
    names = [row.name for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _row_record(row: Row) -> dict[str, Any]:
    def numbers(values: Tensor | None) -> list[Any] | None:
        return None if values is None else [_number(each) for each in values.tolist()]

    return {
        "name": row.name,
        "error": row.error,
        "solution_difference": _number(row.solution_difference),
        "solution_differences": numbers(row.solution),
        "gradient_difference": _number(row.gradient_difference),
        "gradient_differences": row.gradients and {k: numbers(v) for k, v in row.gradients.items()},
        "adjoint_residual": _number(row.adjoint_residual),
        "adjoint_residuals": numbers(row.residual),
        "finite_difference_error": _number(_largest(row.finite_difference_error)),
        "finite_difference_errors": numbers(row.finite_difference_error),
        "forward_seconds": row.forward_seconds,
        "backward_seconds": row.backward_seconds,
        "peak_bytes": row.peak_bytes,
    }
