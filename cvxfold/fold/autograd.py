"""A folded iteration for autograd: x* as a function of what its update depends on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import is_legacy_mapped
from cvxfold.fold.adjoint import Backward
from cvxfold.fold.parameters import wanting
from cvxfold.fold.second import (
    NO_SECOND_DERIVATIVE,
    NOT_OF_AN_APPROXIMATION,
    Again,
    differentiable_gradient,
    refused,
)

NOT_BATCHED = (
    "cvxfold: is_grads_batched (vectorize=True) is not supported by a folded iteration; use "
    "torch.autograd.functional.jacobian with vectorize=False"
)


def folded_at(backward: Backward, closed_over: Sequence[Tensor]) -> Sequence[Tensor]:
    """The leaves of x*, whose gradients go on to y = F(x*) folded.

    Args:
        backward: of the call.
        closed_over: the leaves that the update depends on beside its parameters.
    """
    theta = [leaf for _, leaf in wanting(backward.place.params)]
    return _Fold.apply(backward, len(closed_over), *backward.tape.y, *theta, *closed_over)


class _Fold(torch.autograd.Function):
    """The leaves of y, and θ → the leaves of x*.

    w goes back through y. Only where the gradient is to be differentiated again is it a function of θ and x*
    that is put on the tape as such, as on the tape of y x* is a constant.
    """

    @staticmethod
    def forward(backward: Backward, others: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf.detach().clone() for leaf in backward.tape.x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, ctx.others, *tensors = inputs
        theta = tensors[len(output) :]
        ctx.save_for_backward(*theta, *output)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        if is_legacy_mapped(bars[0]):
            raise NotImplementedError(NOT_BATCHED)
        call, count = ctx.call, len(bars)
        layout = call.tape.layout
        w = call.adjoint(layout.packed([bar.detach() for bar in bars]))
        if not torch.is_grad_enabled():
            theta_count = len(ctx.needs_input_grad) - 2 - count
            return None, None, *layout.unpacked(w), *[None] * theta_count
        saved = ctx.saved_tensors
        theta, x = saved[:-count], saved[-count:]
        again = Again(call, theta[len(theta) - ctx.others :])
        if again.is_complete and call.method.exact:
            return None, None, *[None] * count, *differentiable_gradient(again, w, bars, x, theta)
        reason = NO_SECOND_DERIVATIVE if call.method.exact else NOT_OF_AN_APPROXIMATION
        once = refused(reason, layout.unpacked(w), [*bars, *x, *theta])
        return None, None, *once, *[None] * len(theta)
