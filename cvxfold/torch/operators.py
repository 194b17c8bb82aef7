"""A layer as PyTorch operators, for ``torch.compile`` without a break in the graph and for ``torch.export``.

    cvxfold::solve(parameters, layer, leaves_state) → variables and, if asked for, the state
    cvxfold::gradients(parameters, state, bars, layer, wanted) → gradients of the wanted parameters

Graphs hold numbers and tensors, so a layer is a number there, and what the backward pass begins with is a
tensor. A layer that is in a graph lives as long as the process.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.dispatch import recording
from cvxfold.compat.functorch import refusing
from cvxfold.layer.autograd import NO_SECOND_DERIVATIVE
from cvxfold.layer.recall import Passes, Recall
from cvxfold.problem.arguments import batch_sizes, check_count, device_of, dtype_of_outputs
from cvxfold.torch.numbers import layer_of

_in_graphs: dict[int, Passes] = {}


def in_graph(layer: int, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The variables of the layer of this number, by its operators."""
    leaves_state = torch.is_grad_enabled() and any(value.requires_grad for value in parameters)
    found = torch.ops.cvxfold.solve(list(parameters), layer, leaves_state)
    return tuple(found[:-1] if leaves_state else found)


def _passes(number: int) -> Passes:
    """Of the layer of this number, which stays now."""
    if number not in _in_graphs:
        layer = layer_of(number)
        _in_graphs[number] = Passes(layer, Recall(), layer.options)
    return _in_graphs[number]


def _led(passes: Passes, parameters: Sequence[Tensor]) -> tuple[list[Tensor], int | None]:
    """The parameters, each with a leading dimension, and B or None."""
    specs = passes.layer.parameters_of_problem
    sizes, batch = batch_sizes([tuple(value.shape) for value in parameters], specs)
    led = [
        value.detach() if size is not None else value.detach().unsqueeze(0)
        for value, size in zip(parameters, sizes, strict=True)
    ]
    return led, batch


@torch.library.custom_op("cvxfold::solve", mutates_args=())
def _solve(parameters: Sequence[Tensor], layer: int, leaves_state: bool) -> list[Tensor]:
    passes = _passes(layer)
    led, batch = _led(passes, parameters)
    if batch == 0:
        return [torch.zeros_like(one) for one in _shaped(parameters, layer, leaves_state)]
    with recording():
        variables, state = passes.solve(led, 1 if batch is None else batch, leaves_state)
    found = [variable.squeeze(0) if batch is None else variable for variable in variables]
    return found if state is None else [*found, state]


@_solve.register_fake
def _shaped(parameters: Sequence[Tensor], layer: int, leaves_state: bool) -> list[Tensor]:
    passes = _passes(layer)
    specs = passes.layer.parameters_of_problem
    check_count(parameters, specs)
    _, batch = batch_sizes([tuple(value.shape) for value in parameters], specs)
    real = dtype_of_outputs(parameters)
    device = device_of(parameters)
    found = [
        torch.empty(
            spec.shape if batch is None else (batch, *spec.shape),
            dtype=real.to_complex() if spec.is_complex else real,
            device=device,
        )
        for spec in passes.layer.variables_of_problem
    ]
    if leaves_state:
        rows = 1 if batch is None else batch
        found.append(torch.empty(rows, passes.width, dtype=torch.float64, device=device))
    return found


@torch.library.custom_op("cvxfold::gradients", mutates_args=())
def _gradients(
    parameters: Sequence[Tensor], state: Tensor, bars: Sequence[Tensor], layer: int, wanted: Sequence[bool]
) -> list[Tensor]:
    if len(state) == 0:
        return [torch.zeros_like(value) for value, wants in zip(parameters, wanted, strict=True) if wants]
    passes = _passes(layer)
    led, batch = _led(passes, parameters)
    summed = [len(value) == 1 < len(state) for value in led]
    given = [bar.detach() if batch is not None else bar.detach().unsqueeze(0) for bar in bars]
    with torch.no_grad(), recording(), passes.recall.lock:
        found = passes.again(led, state).pull(given, list(wanted), summed)
    return [
        gradient.reshape(value.shape).clone()
        for gradient, value in zip(found, parameters, strict=True)
        if gradient is not None
    ]


@_gradients.register_fake
def _gradients_shaped(
    parameters: Sequence[Tensor], state: Tensor, bars: Sequence[Tensor], layer: int, wanted: Sequence[bool]
) -> list[Tensor]:
    return [
        torch.empty(value.shape, dtype=value.dtype, device=value.device)
        for value, wants in zip(parameters, wanted, strict=True)
        if wants
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    parameters, ctx.layer, leaves_state = inputs
    if not leaves_state and any(value.requires_grad for value in parameters):
        raise RuntimeError("cvxfold::solve: expected leaves_state=True where gradients are wanted, got False")
    ctx.wanted = [value.requires_grad for value in parameters]
    ctx.shapes = [(tuple(one.shape), one.dtype) for one in output]
    ctx.save_for_backward(*parameters, *output[-1:])


def _pulled(ctx: Any, bars: Sequence[Tensor | None]) -> tuple[list[Tensor | None], None, None]:
    *parameters, state = ctx.saved_tensors
    given = [
        torch.zeros(shape, dtype=dtype, device=state.device) if bar is None else bar
        for bar, (shape, dtype) in zip(bars[:-1], ctx.shapes[:-1], strict=True)
    ]
    found = iter(torch.ops.cvxfold.gradients(parameters, state, given, ctx.layer, ctx.wanted))
    return [next(found) if wants else None for wants in ctx.wanted], None, None


_solve.register_autograd(_pulled, setup_context=_keep)
_gradients.register_autograd(refusing(NO_SECOND_DERIVATIVE))
