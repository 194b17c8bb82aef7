"""Roots of many increasing functions of one variable at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from cvxfold.batches.near import is_near

_MOST = 100
_ROUGHLY = 6  # steps after which all but a few of a thousand roots are known to rounding
_FAR = 2  # steps between looks at a device that is far, after that many


def bracketed_newton(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    low: Tensor,
    high: Tensor,
    done: Tensor,
    rough: bool = False,
) -> Tensor:
    """Newton's method, kept inside a bracket that every value narrows.

    Made for functions that end like a logarithm at a finite end of their interval: a step that would
    leave the bracket is taken in the logarithm of the distance to that end, and if that fails too the
    bracket is halved. As little as possible is done in a step: on a CPU small tensors cost by the call.

    Args:
        function: value and slope of the increasing functions at points of any one shape.
        start: first guesses, inside.
        low, high: the interval on which each function is defined; may be infinite.
        done: where nothing is to be found.
        rough: whether a few steps are enough, for all, without a look at how far they have come.

    Returns:
        The roots, to rounding unless ``rough``.
    """
    eps = torch.finfo(start.dtype).eps
    # A root that is nearer to an end than this cannot be told from it.
    below = torch.where(low.isfinite(), low + 4 * eps * low.abs(), low)
    above = torch.where(high.isfinite(), high - 4 * eps * high.abs(), high)
    near, x = is_near(start), start
    for step in range(1, 1 + (_ROUGHLY if rough else _MOST)):
        value, slope = function(x)
        negative = value < 0
        below, above = torch.where(negative, x, below), torch.where(negative, above, x)
        new = torch.addcdiv(x, value, slope, value=-1)
        outside = new != new.clamp(below, above)
        if not near or bool(outside.any()):
            new = torch.where(outside, _inside(x, value / slope, low, high, below, above), new)
        # Where the value, a logarithm, is this small the error that Newton's step leaves is about its square.
        quadratic = (value.abs() <= 0.1 * eps**0.5) & ~outside
        tolerance = torch.where(quadratic, 1e-6, 8 * eps)
        small = (new - x).abs() <= tolerance * (x.abs() + 1)
        x = torch.where(done, x, new)
        done = done | small
        look = near or (step >= _ROUGHLY and step % _FAR == 0 and not rough)
        if look and bool(done.all()):
            break
    return x


def _inside(x: Tensor, move: Tensor, low: Tensor, high: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """The step −move in the logarithm of the distance to the end it points to, or else half the bracket."""
    end = torch.where(move > 0, low, high)
    new = (end - (end - x) * (-(move / (end - x)).abs()).exp()).clamp(below, above)
    new = torch.where(new.isfinite(), new, 0.5 * (below + above))
    return torch.where(new.isfinite(), new, x)
