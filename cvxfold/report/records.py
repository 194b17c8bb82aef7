"""The records of one forward and of one backward pass, an entry for each instance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.batches.near import fetched, is_near
from cvxfold.batches.records import ByIteration, on_host
from cvxfold.engines.outcome import CODES, INVALID, Ended, Status, instances_that, is_absent
from cvxfold.engines.protocol import Solution
from cvxfold.gradient.diagnosis import Diagnosis
from cvxfold.gradient.verdict import (
    NO_SOLUTION,
    OF_A_LAYER,
    VERDICTS,
    Complaint,
    Remedies,
    Verdict,
    complaints,
    is_worth_a_word,
    judge,
)
from cvxfold.methods import AdjointSolution
from cvxfold.methods.history import padded


@dataclass(frozen=True)
class ForwardRecord:
    """The forward pass, one entry per instance.

    Args:
        codes: status, as indices into :data:`cvxfold.engines.outcome.CODES`, ``(B,)``.
        iterations: applications of the splitting operator, ``(B,)``.
        newton_steps: of the finish, ``(B,)``.
        primal_residual, dual_residual, gap: in SCS's definitions, ``(B,)``; NaN for an invalid instance.
        residual: what was held against the tolerance: the largest of them, and of their rows, each relative
            to the terms that it is made of, ``(B,)``.
        certificate: where there is no solution, the residual of the proof of that
            (:mod:`cvxfold.engines.tensors.certificates`), ``(B,)``; elsewhere NaN.
        rescued: instances that our own method did not reach, so that another solver took over, ``(B,)``.
        seconds: wall time of the whole pass.
    """

    codes: Tensor
    iterations: Tensor
    newton_steps: Tensor
    primal_residual: Tensor
    dual_residual: Tensor
    gap: Tensor
    residual: Tensor
    certificate: Tensor
    rescued: Tensor
    seconds: float

    @classmethod
    def of(cls, solution: Solution | Ended, seconds: float) -> "ForwardRecord":
        """The record of a solution."""
        left = solution.residuals
        return cls(
            solution.status, solution.iterations, solution.newton_steps,
            left.primal, left.dual, left.gap, left.relative,
            solution.certificate, solution.rescued, seconds,
        )  # fmt: skip

    @classmethod
    def of_fixed_point(
        cls, codes: Tensor, iterations: Tensor, residual: Tensor, seconds: float
    ) -> "ForwardRecord":
        """The record of a fixed point, of which there is nothing to tell but the ``residual`` ``(B,)``."""
        blank = cls.blank(codes, seconds)
        return replace(blank, iterations=iterations, residual=residual)

    @classmethod
    def blank(cls, codes: Tensor, seconds: float) -> "ForwardRecord":
        """The record of a batch with statuses ``codes`` of which nothing else is known."""
        none, no = torch.zeros_like(codes), torch.zeros_like(codes, dtype=torch.bool)
        unknown = torch.full((len(codes),), torch.nan, dtype=torch.float64, device=codes.device)
        return cls(codes, none, none, unknown, unknown, unknown, unknown, unknown, no, seconds)

    @property
    def here(self) -> "ForwardRecord":
        """The same on the CPU, copied at once when somebody looks."""
        return self if is_near(self.codes) else self._copied

    @cached_property
    def _copied(self) -> "ForwardRecord":
        return on_host(self)

    @cached_property
    def codes_here(self) -> Tensor:
        """The statuses on the CPU."""
        return fetched(self.codes)[0]

    def know(self, codes: Tensor) -> None:
        """Take note of the statuses, on the CPU, so that nobody need copy them."""
        self.__dict__["codes_here"] = codes

    def invalidate(self, invalid: Tensor) -> None:
        """Make instances, ``(B,)``, invalid ones."""
        self.codes[invalid] = INVALID
        for known in ("_copied", "codes_here"):
            self.__dict__.pop(known, None)

    @property
    def status(self) -> list[Status]:
        """How each instance ended."""
        return [CODES[code] for code in self.codes_here.tolist()]

    @property
    def present(self) -> Tensor:
        """Which instances have a solution or may have one, ``(B,)``."""
        return ~is_absent(self.codes)

    def instances(self, status: Status | str) -> list[int]:
        """Indices of the instances that ended so.

        Args:
            status: or its name, such as "infeasible".

        Raises:
            ValueError: there is no such status.
        """
        return instances_that(self.codes_here, status)


@dataclass(frozen=True)
class BackwardRecord:
    """The backward pass, one entry per instance.

    Args:
        method: of the adjoint system.
        iterations: until the method stopped, ``(B,)``.
        residual: relative residual of the adjoint system, measured afterwards, ``(B,)``.
        rate: the factor by which one iteration reduced the residual, ``(B,)``; NaN where unknown.
        converged: whether the residual is within the tolerance, ``(B,)``.
        history: relative residual by iteration, ``(K, B)``, NaN after an instance stopped.
        seconds: wall time of the whole pass.
        codes: verdicts, as indices into :data:`cvxfold.gradient.verdict.VERDICTS`, ``(B,)``.
        diagnosis: what the verdicts rest on: kinks, singular systems, the forward pass's share of the error.
        tol: on the residual.
        solved: whether the forward pass reached its tolerance, ``(B,)``.
    """

    method: str
    iterations: Tensor
    residual: Tensor
    rate: Tensor
    converged: Tensor
    history: ByIteration
    seconds: float
    codes: Tensor
    diagnosis: Diagnosis
    tol: float
    solved: Tensor

    @classmethod
    def of(
        cls, system: AdjointSolution, diagnosis: Diagnosis, solved: Tensor, tol: float, seconds: float = 0.0
    ) -> "BackwardRecord":
        """The record of an adjoint, with its verdicts.

        Args:
            system: the adjoint system's solution.
            diagnosis: of the gradients.
            solved: whether the forward pass reached its tolerance, ``(B,)``.
            tol: on the residual.
            seconds: wall time of the pass.
        """
        residual, rate, history = system.residual, system.rate, system.history
        codes = judge(residual, rate, system.exhausted, solved, diagnosis, tol, not system.exact)
        return cls(
            system.method, system.iterations, residual, rate, residual <= tol, history, seconds,
            codes, diagnosis, tol, solved,
        )  # fmt: skip

    @classmethod
    def blank(cls, codes: Tensor, method: str, longest: int, tol: float, seconds: float) -> "BackwardRecord":
        """The record of a batch that has no gradients.

        Args:
            codes: like those of the forward pass, ``(B,)``.
            method: that was to find them. longest: K, the rows of its history.
            tol: on the residual. seconds: wall time of the pass.
        """
        batch, none = len(codes), torch.zeros_like(codes)
        unknown = torch.full((batch,), torch.nan, dtype=torch.float64, device=codes.device)
        history = unknown.expand(longest, batch).clone()
        return cls(
            method, none, unknown, unknown, none > 0, history, seconds, torch.full_like(codes, NO_SOLUTION),
            Diagnosis.unknown(unknown), tol, none > 0,
        )  # fmt: skip

    def padded(self, longest: int) -> "BackwardRecord":
        """With a history of ``longest`` rows."""
        return replace(self, history=padded(self.history, longest))

    @property
    def here(self) -> "BackwardRecord":
        """The same on the CPU, copied at once when somebody looks."""
        return self if is_near(self.codes) else self._copied

    @cached_property
    def _copied(self) -> "BackwardRecord":
        return on_host(self)

    @cached_property
    def _looked_at(self) -> Sequence[Tensor]:
        """The verdicts and which gradients are flat, on the CPU."""
        return fetched(self.codes, self.flat)

    @property
    def codes_here(self) -> Tensor:
        """The verdicts on the CPU."""
        return self._looked_at[0]

    @property
    def verdict(self) -> list[Verdict]:
        """How far each gradient can be trusted."""
        return [VERDICTS[code] for code in self.codes_here.tolist()]

    @property
    def degenerate(self) -> Tensor:
        """Where there is no unique derivative, ``(B,)``."""
        return self.diagnosis.degenerate

    @property
    def flat(self) -> Tensor:
        """Where the gradient is zero to rounding while the loss looks at the solution, ``(B,)``.

        That is a gradient like any other (a vertex of a linear program does not move), but nobody learns from
        it.
        """
        return self.diagnosis.flat

    @property
    def all_flat(self) -> bool:
        """Whether all gradients are so."""
        flat = self._looked_at[1]
        return len(flat) > 0 and bool(flat.all())

    @property
    def forward_error(self) -> Tensor:
        """The relative error of the gradient that the forward residual alone causes, estimated, ``(B,)``."""
        return self.diagnosis.forward_error

    @property
    def error(self) -> Tensor:
        """An estimate of the relative error of the gradient, all causes together, ``(B,)``.

        It tends to be too large rather than too small (the page "Robustness" of the documentation tells how
        it was calibrated). Infinite where there is no unique gradient; summaries leave that out, as the
        verdict counts it.
        """
        return self.diagnosis.error

    def complaints(self, remedies: Remedies = OF_A_LAYER) -> list[Complaint]:
        """A sentence for each kind of gradient that is not to be trusted, with the remedy."""
        if not is_worth_a_word(self.codes_here):
            return []
        return complaints(self.here, remedies)
