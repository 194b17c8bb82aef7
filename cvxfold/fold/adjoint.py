"""The adjoint system (I − Φᵀ) w = ū: what is asked of a method and what it returns."""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from cvxfold.deadline import NEVER, Deadline
from cvxfold.fold.linearization import Linearization

_FLOOR = 1e-14


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
    history: Tensor
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
        exhausted = torch.zeros(len(w), dtype=torch.bool, device=w.device)
        exhausted[left] = True
        return cls(w, history, method, exhausted)


class AdjointMethod(Protocol):
    """A linear method for the adjoint system."""

    exact: ClassVar[bool]  # whether it tends to the solution; otherwise it is an approximation by design

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
    size = rhs.abs().amax(-1, keepdim=True) if rhs.shape[1] else rhs.new_ones(len(rhs), 1)
    size = torch.where(size > 0, size, 1.0)  # so that the squares in the norms neither vanish nor overflow
    residual = relative_norm((rhs - (w - phi.vjp(w))) / size, rhs / size)
    return Adjoint(
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


def relative_norm(r: Tensor, rhs: Tensor) -> Tensor:
    """‖r‖/‖rhs‖ by instance, ``(B,)``; zero where both are zero."""
    norm, scale = r.norm(dim=-1), rhs.norm(dim=-1)
    return torch.where(norm == 0, norm, norm / scale)


def estimate_rate(history: Tensor) -> Tensor:
    """The factor per iteration toward the end of each residual history, ``(B,)``.

    It is the slope of a least-squares line through the logarithms of the last half, because residuals
    oscillate where the leading eigenvalues are complex. Residuals at the floor of the arithmetic are left
    out, but for the first: that one, relative to the residual 1 of w = 0, is the rate of a method that needs
    a single iteration.
    """
    if history.shape[0] == 0:
        return history.new_full(history.shape[1:], torch.nan)
    path = torch.cat([torch.ones_like(history[:1]), history])
    usable = (path > _FLOOR) & path.isfinite()
    usable[1] |= path[1].isfinite()
    last = usable.long().cumprod(0).sum(0) - 1
    k = torch.arange(len(path), device=path.device).unsqueeze(-1)
    fitted = (k >= last // 2) & (k <= last)
    k = torch.where(fitted, k - (last // 2 + last) / 2, 0.0).to(path.dtype)  # relative to their mean
    slope = (k * torch.where(fitted, path, 1.0).log()).sum(0) / k.square().sum(0)
    return torch.where(last > 0, slope.exp(), torch.nan)


def until(history: Tensor, tol: float) -> Tensor:
    """A history ``(K, B)`` up to where each instance first met the tolerance.

    Steps that it took beyond, until the next check, cost time but were not needed.
    """
    met = (history <= tol).long().cumsum(0)
    return torch.where((met > 1) | ((met == 1) & ~(history <= tol)), torch.nan, history)


def compact(history: Tensor) -> Tensor:
    """``(K, B)`` with each instance's entries moved up over its gaps, and no empty rows at the end."""
    if history.numel() == 0:
        return history
    empty = history.isnan()
    history = history.gather(0, empty.to(torch.uint8).argsort(dim=0, stable=True))
    return history[: int((~empty).sum(0).amax())]


def interval(every: int, preconditioned: bool) -> int:
    """Iterations between looks at who has converged; each look waits for the device.

    With the approximate inverse an iteration costs more than that, and few of them are enough.
    """
    return min(every, 2) if preconditioned else every


def label(name: str, preconditioned: bool) -> str:
    """A method's name in reports."""
    return f"{name}, preconditioned" if preconditioned else name


def require_positive(name: str, value: float) -> None:
    """Raise a ValueError unless ``value`` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def require_count(name: str, value: int, least: int = 1) -> None:
    """Raise a ValueError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


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
