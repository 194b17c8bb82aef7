"""The adjoint system (I − Φᵀ) w = ū: what is asked of a method and what it returns."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cvxfold.fold.linearization import Linearization

_FLOOR = 1e-14


@dataclass(frozen=True)
class AdjointSettings:
    """When an adjoint is good enough.

    Args:
        tol: on the relative residual ‖ū − (I − Φᵀ) w‖ / ‖ū‖ of each instance.
        max_iters: products with Φᵀ at most; None leaves it to the method.
    """

    tol: float = 1e-9
    max_iters: int | None = None


@dataclass(frozen=True)
class Adjoint:
    """A solution of the adjoint system.

    Args:
        method: what was used.
        w: ``(B, m)``.
        iterations: of the method until it stopped, ``(B,)``.
        residual: ‖ū − (I − Φᵀ) w‖ / ‖ū‖, measured afterwards by one product, ``(B,)``.
        rate: the factor by which one iteration reduced the residual, toward the end, ``(B,)``; NaN where
            there were too few iterations to tell.
        converged: whether the residual is within the tolerance, ``(B,)``.
        history: relative residual by iteration, ``(K, B)``, NaN after an instance stopped.
    """

    method: str
    w: Tensor
    iterations: Tensor
    residual: Tensor
    rate: Tensor
    converged: Tensor
    history: Tensor


@dataclass(frozen=True)
class Attempt:
    """What a method came to.

    Args:
        w: ``(B, m)``.
        history: its relative residuals by iteration, ``(K, B)``, NaN after an instance stopped.
        method: what was used, as reports show it.
    """

    w: Tensor
    history: Tensor
    method: str


class AdjointMethod(Protocol):
    """A linear method for the adjoint system."""

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Solve (I − Φᵀ) w = ``rhs`` ``(B, m)``, each instance to the tolerance if that can be had."""
        ...


def solve_adjoint(
    method: AdjointMethod, phi: Linearization, rhs: Tensor, settings: AdjointSettings
) -> Adjoint:
    """Solve the adjoint system and measure what came out, whatever the method says of itself.

    Args:
        method: how.
        phi: the linearization, B instances.
        rhs: ū, ``(B, m)``.
        settings: how well.
    """
    attempt = method.solve(phi, rhs, settings)
    w, history = attempt.w, attempt.history
    residual = relative_norm(rhs - (w - phi.vjp(w)), rhs)
    return Adjoint(
        method=attempt.method,
        w=w,
        iterations=(~history.isnan()).sum(0),
        residual=residual,
        rate=estimate_rate(history),
        converged=residual <= settings.tol,
        history=history,
    )


def relative_norm(r: Tensor, rhs: Tensor) -> Tensor:
    """‖r‖/‖rhs‖ by instance, ``(B,)``; zero where both are zero."""
    norm, scale = r.norm(dim=-1), rhs.norm(dim=-1)
    return torch.where(norm == 0, norm, norm / scale)


def estimate_rate(history: Tensor) -> Tensor:
    """The mean factor per iteration over the last half of each residual history, ``(B,)``.

    Residuals at the floor of the arithmetic are left out, but for the first: that one, relative to the
    residual 1 of w = 0, is the rate of a method that needs a single iteration.
    """
    if history.shape[0] == 0:
        return history.new_full(history.shape[1:], torch.nan)
    path = torch.cat([torch.ones_like(history[:1]), history])
    usable = (path > _FLOOR) & path.isfinite()
    usable[1] |= path[1].isfinite()
    last = usable.long().cumprod(0).sum(0) - 1
    first = last // 2
    ends = path.gather(0, torch.stack([first, last]))
    span = (last - first).to(history.dtype)
    return torch.where(span > 0, (ends[1] / ends[0]) ** (1 / span), torch.nan)


@dataclass
class History:
    """Relative residuals by iteration, while instances drop out.

    Args:
        batch: B.
    """

    batch: int
    _rows: list[Tensor] = field(default_factory=list)

    def append(self, residual: Tensor, index: Tensor) -> None:
        """Record ``residual`` ``(b,)`` of the instances ``index`` ``(b,)``."""
        row = residual.new_full((self.batch,), torch.nan)
        row[index] = residual
        self._rows.append(row)

    def stack(self, like: Tensor) -> Tensor:
        """All of it, ``(K, B)``."""
        return torch.stack(self._rows) if self._rows else like.new_empty(0, self.batch)
