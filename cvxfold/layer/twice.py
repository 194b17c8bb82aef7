"""Second derivatives of the solve, for autograd and for ``torch.func``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import nothing_kept, refusing
from cvxfold.layer.second import moved_gradient, moved_tangent
from cvxfold.layer.taped import Asked, joined, lane_by_lane, split, tangents_in_lanes
from cvxfold.problem.values import ProgramValues

NO_THIRD_DERIVATIVE = (
    "cvxfold: second derivatives cannot be differentiated again; finite differences of them are third ones"
)


def second(
    dots: Sequence[Tensor],
    bar_dots: Sequence[Tensor],
    bars: Sequence[Tensor],
    values: Sequence[Tensor],
    asked: Asked,
) -> tuple[Tensor, ...]:
    """How x, y and the gradient on the data move.

    Args:
        dots: tangents of P, q, A and b. bar_dots: tangents of x̄ and ȳ. bars: x̄ and ȳ. values: P, q, A and b.
        asked: of the pass.

    Returns:
        Tangents of x and y, and of the gradients on P, q, A and b.
    """
    return _Second.apply(*dots, *bar_dots, *bars, *values, asked)


def second_tangent(
    moving: Sequence[Tensor],
    dots: Sequence[Tensor],
    others: Sequence[Tensor],
    values: Sequence[Tensor],
    asked: Asked,
) -> tuple[Tensor, Tensor]:
    """How the tangents of x and y move.

    Args:
        moving: how the tangents of P, q, A and b move. dots: these tangents. others: those along which.
        values: P, q, A and b. asked: of the pass.
    """
    return _SecondTangent.apply(*moving, *dots, *others, *values, asked)


class _Second(torch.autograd.Function):
    """Tangents of (P, q, A, b) and of loss gradients on (x, y) → those of (x, y) and of (P, q, A, b)'s."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        *tensors, asked = inputs
        passes, (x_dot, y_dot, x_bar, y_bar) = asked.passes, tensors[4:8]
        assert passes.answer is not None
        dots, values = ProgramValues(*tensors[:4]), ProgramValues(*tensors[8:])
        found = moved_gradient(passes.session, passes.answer, values, dots, (x_bar, y_bar), (x_dot, y_dot))
        return found.dx, found.dy, *found.on(asked.shared)

    setup_context = staticmethod(nothing_kept)
    backward = jvp = staticmethod(refusing(NO_THIRD_DERIVATIVE))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        """One pass where the forward pass was mapped too, else one for each lane."""
        *tensors, asked = inputs
        if not any(dim is not None for dim in in_dims[8:12]):  # not by this very map
            return lane_by_lane(_Second.apply, inputs, in_dims, info.batch_size)
        lanes, batch = info.batch_size, asked.passes.request.batch
        flat = [joined(*each, lanes, batch) for each in zip(tensors, in_dims[:12], strict=True)]
        flat[4:8] = [one.expand(lanes * batch, -1) for one in flat[4:8]]  # no instance shares those
        dx, dy, *moved = _Second.apply(*flat, asked.flattened())
        by_lane = [split(one, lanes, shared) for one, shared in zip(moved, asked.shared, strict=True)]
        return (*(one.unflatten(0, (lanes, batch)) for one in (dx, dy)), *by_lane), (0,) * 6


class _SecondTangent(torch.autograd.Function):
    """Tangents of (P, q, A, b), how they move, and other tangents → how those of (x, y) move."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, asked = inputs
        passes = asked.passes
        assert passes.answer is not None
        moving, dots, others, values = (ProgramValues(*tensors[k : k + 4]) for k in (0, 4, 8, 12))
        return moved_tangent(passes.session, passes.answer, values, (dots, others), moving)

    setup_context = staticmethod(nothing_kept)
    backward = jvp = staticmethod(refusing(NO_THIRD_DERIVATIVE))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        """One pass where the forward pass was mapped too, else one for each lane."""
        return tangents_in_lanes(_SecondTangent.apply, inputs, in_dims, info.batch_size)
