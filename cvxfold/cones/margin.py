"""The distance from a point of a convex cone to the cone's boundary.

It is the smallest distance to a supporting plane, min ⟨n, u⟩/‖n‖ over n ∈ K*, and as that quotient is
quasiconcave in n, over the extreme rays of K* alone. For a cone in R³ these are a curve: one number to find.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_POINTS = 48  # on either side of the centre
_LEVELS = 3


def lowest(height: Callable[[Tensor], Tensor], low: Tensor, centre: Tensor, high: Tensor) -> Tensor:
    """The lowest of many functions of one variable on their intervals, by grids that narrow.

    Every value is the distance of some supporting plane, so the result is never too small.

    Args:
        height: the functions, from points ``(..., n)`` to values ``(..., n)``.
        low, high: the intervals, ``(...)``.
        centre: where the functions change most quickly, ``(...)``; the first grid is dense there.

    Returns:
        About the minima, ``(...)``.
    """
    steps = torch.linspace(-1, 1, 2 * _POINTS + 1, dtype=low.dtype, device=low.device)
    reach = torch.where(steps < 0, (centre - low).unsqueeze(-1), (high - centre).unsqueeze(-1))
    points = centre.unsqueeze(-1) + reach * steps**3
    found = torch.full_like(low, torch.inf)
    for _ in range(_LEVELS):
        values, index = height(points).min(-1, keepdim=True)
        found = torch.minimum(found, values.squeeze(-1))
        start = points.gather(-1, (index - 1).clamp_min(0))
        end = points.gather(-1, (index + 1).clamp_max(2 * _POINTS))
        points = torch.lerp(start, end, 0.5 + 0.5 * steps)
    return found
