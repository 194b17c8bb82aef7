"""The verdict on each gradient: may it be trusted, and if not, what would help."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from cvxfold.gradient.diagnosis import Diagnosis
from cvxfold.gradient.screen import ACCURACY, MAGNIFIED, unfelt

_HOPELESS = 1 - 1e-7  # at a rate above this no number of iterations helps
_ROUNDING = 1e-14  # a residual below this is what the arithmetic leaves
_MANY = 20


class Verdict(StrEnum):
    """How far the gradient of an instance can be trusted; equal to its name."""

    CONVERGED = "converged"
    """The adjoint system is solved to the tolerance, at an accurate solution."""
    SLOW = "slow"
    """The method was still converging when its iterations or its time ran out."""
    DEGENERATE = "degenerate"
    """There is no unique derivative: a kink, or a solution or multiplier that is not unique."""
    FORWARD_INEXACT = "forward inexact"
    """The forward pass is not accurate enough for this accuracy of the gradient."""
    APPROXIMATE = "approximate"
    """An approximation was asked for, and this is one."""
    FAILED = "failed"
    """The method stopped without reaching the tolerance, and not for want of iterations."""
    ILL_CONDITIONED = "ill-conditioned"
    """The residual is within the tolerance, but the system magnifies it to an error that is not small."""
    NO_SOLUTION = "no solution"
    """There was nothing to differentiate; the gradient is zero."""


VERDICTS = tuple(Verdict)
"""A tensor of verdicts holds indices into this tuple."""

_CONVERGED, _SLOW, _DEGENERATE, _FORWARD_INEXACT, _APPROXIMATE, _FAILED, _ILL_CONDITIONED, NO_SOLUTION = (
    range(len(VERDICTS))
)


def judge(
    residual: Tensor,
    rate: Tensor,
    exhausted: Tensor,
    solved: Tensor,
    diagnosis: Diagnosis,
    tol: float,
    approximate: bool,
) -> Tensor:
    """The verdicts on a batch, as indices into :data:`VERDICTS`, ``(B,)``.

    Args:
        residual: of the adjoint system, relative, ``(B,)``.
        rate: of the method, ``(B,)``; NaN where unknown.
        exhausted: where its iterations or time ran out, ``(B,)``.
        solved: whether the forward pass reached its tolerance, ``(B,)``.
        diagnosis: of the instances.
        tol: on the residual.
        approximate: whether the method is an approximation by design.
    """
    missed = ~(residual <= tol)
    verdicts = torch.where(missed, _FAILED, _CONVERGED)
    helped = exhausted & (rate > 0) & (rate < _HOPELESS) & (residual > _ROUNDING) & residual.isfinite()
    verdicts = torch.where(missed & helped, _SLOW, verdicts)  # by more iterations
    if approximate:
        verdicts = torch.where(missed & residual.isfinite(), _APPROXIMATE, verdicts)
    share, error = diagnosis.forward_error, diagnosis.adjoint_error
    # Of the two errors the larger one is what to do something about.
    beside = diagnosis.strength, diagnosis.gradient, diagnosis.degenerate
    inexact = ~(share <= max(tol, ACCURACY)) & ~(share < residual) & ~unfelt(share, *beside)
    large = ~(error <= max(MAGNIFIED * tol, ACCURACY))
    magnified = large & ~unfelt(error, *beside) & ~missed
    verdicts = torch.where(magnified, _ILL_CONDITIONED, verdicts)
    verdicts = torch.where(inexact & (verdicts != _FAILED), _FORWARD_INEXACT, verdicts)
    verdicts = torch.where(diagnosis.degenerate & residual.isfinite(), _DEGENERATE, verdicts)
    # Where there is no solution yet, that comes first: whatever else is seen there may go with it.
    return torch.where(~solved & residual.isfinite(), _FORWARD_INEXACT, verdicts)


@dataclass(frozen=True)
class Complaint:
    """A sentence about one kind of gradient that is not to be trusted: which, how bad, and the remedy."""

    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Remedies:
    """What would help, in the words of the options that there are.

    Args:
        degenerate, inexact, failed, ill_conditioned: by verdict.
    """

    degenerate: str
    inexact: str
    failed: str
    ill_conditioned: str


OF_A_LAYER = Remedies(
    degenerate="make the solution unique (a small sum_squares in the objective, no redundant constraints), "
    "regularize the gradient (proximal=…) or leave these instances out",
    inexact="use refine=True, a smaller tol or more max_iters (of an unrolled cold start, more iterations)",
    failed="scale the problem, regularize the gradient (proximal=…)",
    ill_conditioned="lower backward_tol, scale the problem, or regularize the gradient (proximal=…)",
)


def is_worth_a_word(codes: Tensor) -> bool:
    """Whether there is something to be said of verdicts ``(B,)`` on the CPU."""
    fine = (codes == _CONVERGED) | (codes == _APPROXIMATE) | (codes == NO_SOLUTION)
    return not bool(fine.all())


class Judged(Protocol):
    """The gradients of a batch and their verdicts, all on the CPU; see :func:`judge`."""

    @property
    def codes(self) -> Tensor:
        """The verdicts, ``(B,)``."""
        ...

    @property
    def method(self) -> str:
        """Of the adjoint system."""
        ...

    @property
    def residual(self) -> Tensor:
        """Its relative residual, ``(B,)``."""
        ...

    @property
    def rate(self) -> Tensor:
        """Of the method, ``(B,)``."""
        ...

    @property
    def solved(self) -> Tensor:
        """Whether the forward pass reached its tolerance, ``(B,)``."""
        ...

    @property
    def diagnosis(self) -> Diagnosis:
        """Of the instances."""
        ...

    @property
    def tol(self) -> float:
        """On the residual."""
        ...


def complaints(of: Judged, remedies: Remedies = OF_A_LAYER) -> list[Complaint]:
    """What is to be said of a batch."""
    codes, method, residual, rate = of.codes, of.method, of.residual, of.rate
    diagnosis, tol = of.diagnosis, of.tol
    found: list[Complaint] = []

    def complain(code: int, text: str) -> None:
        found.append(Complaint(VERDICTS[code], text))

    if len(rows := _rows(codes, _SLOW)):
        worst, slowest = float(residual[rows].amax()), float(rate[rows].amax())
        more = math.ceil(float(((tol / residual[rows]).log() / rate[rows].log()).amax()))
        complain(
            _SLOW,
            f"{_instances(rows)} did not reach the tolerance {tol:.1e} by method {method!r} (relative "
            f"residual up to {worst:.1e}, contracting by {slowest:.4g} an iteration: about {more:,} more "
            f"iterations are needed); {_deeper(method)}{_or_auto(method)}",
        )
    if len(rows := _rows(codes, _DEGENERATE)):
        kinked = int(diagnosis.kinked[rows].sum())
        complain(
            _DEGENERATE,
            f"{_instances(rows)} are degenerate, so there is no unique derivative "
            f"({kinked} on a kink, {int(diagnosis.singular[rows].sum())} with a solution or multiplier that "
            f"is not unique); one of several possible gradients is returned: {remedies.degenerate}",
        )
    if len(rows := _rows(codes, _FORWARD_INEXACT)):
        complain(
            _FORWARD_INEXACT,
            f"{_instances(rows)} are taken at solutions that are not accurate enough "
            f"({_why_inexact(of.solved[rows], diagnosis.error[rows])}); {remedies.inexact}",
        )
    failed = _rows(codes, _FAILED)
    plain = method == "lfpi" or method.startswith("unrolled")  # which need ρ(Φ) < 1
    diverged = failed[rate[failed] >= 1] if plain else failed[:0]
    if len(diverged):
        complain(
            _FAILED,
            f"{_instances(diverged)} cannot be had by method {method!r}: it converges where the spectral "
            f"radius ρ(Φ) < 1, and here its residual grows (by a factor of "
            f"{float(rate[diverged].amax()):.4g} an iteration), so ρ(Φ) ≥ 1; 'gmres', 'bicgstab', "
            "'anderson' and 'direct' need no more than that I − Φ is invertible",
        )
        failed = failed[~torch.isin(failed, diverged)]
    if len(rows := failed):
        complain(
            _FAILED,
            f"{_instances(rows)} did not reach the tolerance {tol:.1e} by method {method!r} (relative "
            f"residual up to {float(residual[rows].nan_to_num(torch.inf).amax()):.1e}) and the method "
            f"stopped making progress; {remedies.failed}{_or_auto(method)}",
        )
    if len(rows := _rows(codes, _ILL_CONDITIONED)):
        complain(
            _ILL_CONDITIONED,
            f"{_instances(rows)} may be off by up to {float(diagnosis.error[rows].amax()):.1e} "
            f"(relative): what is left of the adjoint systems ({float(residual[rows].amax()):.1e}) is "
            f"magnified by their conditioning; {remedies.ill_conditioned}",
        )
    return found


def _why_inexact(solved: Tensor, error: Tensor) -> str:
    """Why some gradients ``(b,)`` are forward inexact: an error that is large, no solution yet, or both."""
    missed, causes = int((~solved).sum()), []
    if missed < len(solved) or bool((error > ACCURACY).any()):
        causes.append(f"estimated error up to {float(error.nan_to_num(torch.inf).amax()):.1e}, relative")
    if missed:
        who = "" if missed == len(solved) else f" of {missed} of them"
        causes.append(f"the forward pass{who} did not reach its tolerance")
    return "; ".join(causes)


def _deeper(method: str) -> str:
    """How to let a method go on."""
    unrolled = method.startswith("unrolled")
    return "raise the depth of unrolling" if unrolled else "raise backward_max_iters or time_limit"


def _or_auto(method: str) -> str:
    """The remedy that is left, unless it was the default that failed; that begins with the direct method."""
    return "" if method.startswith("direct") else ", or choose backward='auto'"


def _rows(codes: Tensor, code: int) -> Tensor:
    return (codes == code).nonzero().squeeze(-1)


def _instances(rows: Tensor) -> str:
    shown = ", ".join(map(str, rows[:_MANY].tolist()))
    more = f", … ({len(rows)} in all)" if len(rows) > _MANY else ""
    return f"the gradients of instances [{shown}{more}]"
