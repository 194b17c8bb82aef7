"""A call by the shortcut on the tape of automatic differentiation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import is_legacy_mapped
from cvxfold.layer.autograd import NO_SECOND_DERIVATIVE, NOT_BATCHED
from cvxfold.layer.shortcut import ShortCall
from cvxfold.problem.recover import finished


def on_tape(call: ShortCall) -> tuple[Tensor, ...]:
    """The variables of a call that has been solved, differentiable in its parameters."""
    call.report()
    found = _Directly.apply(call, *call.arguments.tensors)
    if all(spec.is_its_terms for spec in call.outputs):
        return found
    return tuple(finished(out, spec) for out, spec in zip(found, call.outputs, strict=True))


class _Directly(torch.autograd.Function):
    """Parameters → variables, by a call that has been solved."""

    @staticmethod
    def forward(ctx: Any, call: ShortCall, *_: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        return call.terms(last=True)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> tuple[Tensor | None, ...]:
        if any(bar is not None and is_legacy_mapped(bar) for bar in bars):
            raise NotImplementedError(NOT_BATCHED)
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # create_graph=True
            return None, *_Once.apply(ctx.call, wanted, *bars)
        return None, *_as_given(ctx.call, bars, wanted)


class _Once(torch.autograd.Function):
    """The gradient, for who asks for its graph: there is none."""

    @staticmethod
    def forward(ctx: Any, call: ShortCall, wanted: Sequence[bool], *bars: Tensor | None) -> Any:
        return tuple(_as_given(call, bars, wanted))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(NO_SECOND_DERIVATIVE)


def _as_given(call: ShortCall, bars: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of the parameters in their shapes, summed over the batch for those that it shares."""
    arguments, found = call.arguments, []
    gradients = call.differentiate(bars, wanted)
    for gradient, value, batched in zip(gradients, arguments.tensors, arguments.batched, strict=True):
        if gradient is not None:
            if not batched and len(gradient) > 1:
                gradient = gradient.sum(0)
            gradient = gradient if gradient.shape == value.shape else gradient.view(value.shape)
        found.append(gradient)
    return found
