"""A call by the shortcut on the tape of automatic differentiation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import applied, is_legacy_mapped
from cvxfold.layer.autograd import NOT_BATCHED, adjoint
from cvxfold.layer.shortcut import ShortCall
from cvxfold.problem.recover import finished


def on_tape(call: ShortCall) -> tuple[Tensor, ...]:
    """The variables of a call that has been solved, differentiable in its parameters."""
    call.report()
    found = applied(_Directly, call, *call.arguments.tensors)
    if call.hands_out_terms:
        return found
    return tuple(finished(out, spec) for out, spec in zip(found, call.outputs, strict=True))


class _Directly(torch.autograd.Function):
    """Parameters → variables, by a call that has been solved."""

    @staticmethod
    def forward(ctx: Any, call: ShortCall, *_: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        kept = [None if value.is_inference() else value for value in call.arguments.tensors]
        ctx.save_for_backward(*kept)  # for second derivatives
        ctx.set_materialize_grads(False)
        return call.terms(last=True)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> tuple[Tensor | None, ...]:
        if any(bar is not None and is_legacy_mapped(bar) for bar in bars):
            raise NotImplementedError(NOT_BATCHED)
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # create_graph=True
            parameters = [
                value.clone() if kept is None else kept
                for value, kept in zip(ctx.call.arguments.tensors, ctx.saved_tensors, strict=True)
            ]
            return None, *_differentiable(ctx.call, parameters, bars, wanted)
        return None, *_as_given(ctx.call, bars, wanted)


def _differentiable(
    call: ShortCall, parameters: Sequence[Tensor], bars: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of the parameters in their shapes, with a graph of their own: the general way.

    1. The parameters' stored entries, and the answer, which is known.
    2. From loss gradients on the variables to those on x and y.
    3. From these to the stored entries, by the adjoint.
    4. From these to the parameters, by automatic differentiation.
    """
    values, passes = call.generally(parameters)  # 1
    x_bar, y_bar = call.on_points(bars)  # 2
    found = adjoint(x_bar, y_bar, values, passes)  # 3
    pairs = [  # 4
        (value, one)
        for value, one in zip(values, found, strict=True)
        if value.requires_grad and one is not None
    ]
    inputs = [value for value, wants in zip(parameters, wanted, strict=True) if wants]
    gradients = iter(
        torch.autograd.grad(
            [value for value, _ in pairs], inputs, [one for _, one in pairs],
            create_graph=True, materialize_grads=True,
        )
    )  # fmt: skip
    return [next(gradients) if wants else None for wants in wanted]


def _as_given(
    call: ShortCall, bars: Sequence[Tensor | None], wanted: Sequence[bool]
) -> Sequence[Tensor | None]:
    """Gradients of the parameters in their shapes, summed over the batch for those that it shares."""
    gradients, form = call.differentiate(bars, wanted), call.arguments.form
    if form.instances == 1 or all(form.batched):
        return gradients
    return [
        gradient if gradient is None or batched else gradient.sum(0)
        for gradient, batched in zip(gradients, form.batched, strict=True)
    ]
