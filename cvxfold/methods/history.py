"""The residuals of an iteration by instance: recorded, tidied, and the rate that they show."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

_FLOOR = 1e-14


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


def padded(history: Tensor, longest: int) -> Tensor:
    """A history ``(K, B)`` with NaN for further iterations, ``(longest, B)``."""
    more = longest - len(history)
    return torch.cat([history, history.new_full((more, history.shape[1]), torch.nan)]) if more else history


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
