"""Roots of many increasing functions of one variable at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

_MOST = 100
_LOOKS = 4  # steps between looks at whether all have converged


def bracketed_newton(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    low: Tensor,
    high: Tensor,
    done: Tensor,
) -> Tensor:
    """Newton's method, kept inside a bracket that every value narrows.

    Made for functions that end like a logarithm at a finite end of their interval: a step that would
    leave the bracket is taken in the logarithm of the distance to that end, and if that fails too the
    bracket is halved.

    Args:
        function: value and slope of the increasing functions at points of any one shape.
        start: first guesses, inside.
        low, high: the interval on which each function is defined; may be infinite.
        done: where nothing is to be found.

    Returns:
        The roots, to rounding.
    """
    eps = torch.finfo(start.dtype).eps
    # A root that is nearer to an end than this cannot be told from it.
    below = torch.where(low.isfinite(), low + 4 * eps * low.abs(), low)
    above = torch.where(high.isfinite(), high - 4 * eps * high.abs(), high)
    x = start
    for step in range(_MOST):
        value, slope = function(x)
        below, above = torch.where(value < 0, x, below), torch.where(value > 0, x, above)
        move = -value / slope
        new = x + move
        end = torch.where(move < 0, low, high)
        toward_end = end - (end - x) * (-(move / (end - x)).abs()).exp()
        new = torch.where((new >= below) & (new <= above), new, toward_end.clamp(below, above))
        new = torch.where((new >= below) & (new <= above), new, 0.5 * (below + above))
        # The error left is about the square of the step over the distance to the nearer end.
        room = torch.minimum(x - low, high - x).clamp_max(1)
        small = (new - x).abs() <= 8 * eps * x.abs().clamp_min(1) + 0.1 * eps**0.5 * room
        x = torch.where(done | ~new.isfinite(), x, new)
        done = done | small
        if step % _LOOKS == _LOOKS - 1 and bool(done.all()):
            break
    return x
