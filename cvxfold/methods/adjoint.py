"""The adjoint system (I − Φᵀ) w = ū: what is asked of a method and what it returns."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from cvxfold.batches.records import Batched, ByIteration
from cvxfold.deadline import NEVER, Deadline
from cvxfold.methods.history import estimate_rate, relative_norm
from cvxfold.methods.linearization import Linearization


@dataclass(frozen=True)
class AdjointSettings:
    """When an adjoint is good enough.

    Args:
        tol: on the relative residual ‖ū − (I − Φᵀ) w‖ / ‖ū‖ of each instance.
        max_iters: iterations at most, of one product with Φᵀ each, or of a pair of products (bicgstab, least
            squares); None leaves it to the method.
        deadline: after it no iteration begins but a method's first.
    """

    tol: float = 1e-9
    max_iters: int | None = None
    deadline: Deadline = NEVER


@dataclass(frozen=True)
class AdjointSolution(Batched):
    """A solution of the adjoint system.

    Args:
        method: what was used.
        w: ``(B, m)``.
        iterations: of the method until it stopped, ``(B,)``.
        residual: ‖ū − (I − Φᵀ) w‖ / ‖ū‖, measured afterwards by one product, ``(B,)``.
        rate: the factor by which one iteration reduced the residual, toward the end, ``(B,)``; NaN where
            there were too few iterations to tell.
        converged: whether the residual is within the tolerance, ``(B,)``.
        history: relative residual after each iteration, ``(K, B)``, NaN after an instance stopped.
        exhausted: instances whose iterations or time ran out; the others stopped by themselves, ``(B,)``.
        exact: whether the method tends to the solution; otherwise w is an approximation by design.
    """

    method: str
    w: Tensor
    iterations: Tensor
    residual: Tensor
    rate: Tensor
    converged: Tensor
    history: ByIteration
    exhausted: Tensor
    exact: bool = True


@dataclass(frozen=True)
class Attempt:
    """What a method came to.

    Args:
        w: ``(B, m)``.
        history: its relative residuals after each iteration, ``(K, B)``, NaN after an instance stopped.
        method: what was used, as reports show it.
        exhausted: instances whose iterations or time ran out, ``(B,)``.
    """

    w: Tensor
    history: Tensor
    method: str
    exhausted: Tensor

    @classmethod
    def ended(cls, w: Tensor, history: Tensor, method: str, left: Tensor) -> "Attempt":
        """One in which the instances ``left`` ``(b,)`` were still at work when iterations or time ran out."""
        nobody = torch.zeros(len(w), dtype=torch.bool, device=w.device)
        return cls(w, history, method, nobody.index_fill_(0, left, True))


class AdjointMethod(Protocol):
    """A linear method for the adjoint system."""

    exact: ClassVar[bool]  # whether it tends to the solution; otherwise it is an approximation by design

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Solve (I − Φᵀ) w = ``rhs`` ``(B, m)``, each instance to the tolerance if that can be had."""
        ...


def solve_adjoint(
    method: AdjointMethod, phi: Linearization, rhs: Tensor, settings: AdjointSettings
) -> AdjointSolution:
    """Solve the adjoint system and measure what came out, whatever the method says of itself.

    Args:
        method: how.
        phi: the linearization, B instances.
        rhs: ū, ``(B, m)``.
        settings: how well.
    """
    attempt = method.solve(phi, rhs, settings)
    w, history = attempt.w, attempt.history
    size = rhs.abs().amax(-1, keepdim=True) if rhs.shape[1] else rhs.new_ones(len(rhs), 1)
    size = torch.where(size > 0, size, 1.0)  # so that the squares in the norms neither vanish nor overflow
    residual = relative_norm((rhs - (w - phi.vjp(w))) / size, rhs / size)
    return AdjointSolution(
        method=attempt.method,
        w=w,
        iterations=(~history.isnan()).sum(0),
        residual=residual,
        rate=estimate_rate(history),
        converged=residual <= settings.tol,
        history=history,
        exhausted=attempt.exhausted,
        exact=method.exact,
    )


def interval(every: int, preconditioned: bool) -> int:
    """Iterations between looks at who has converged; each look waits for the device.

    With the approximate inverse an iteration costs more than that, and few of them are enough.
    """
    return min(every, 2) if preconditioned else every


def label(name: str, preconditioned: bool) -> str:
    """A method's name in reports."""
    return f"{name}, preconditioned" if preconditioned else name
