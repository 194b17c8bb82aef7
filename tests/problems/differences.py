"""Jacobians of a layer entry by entry, of one call each: the batch has an instance for every entry."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Layer = Callable[..., Any]


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.reshape(len(value), -1) for value in values], 1)


def jacobian_by_differences(layer: Layer, params: Sequence[Tensor], step: float) -> Tensor:
    """Central differences: ``(outputs, inputs)`` for one instance's parameters ``(1, *shape)``."""
    point = _flat(params)
    steps = step * torch.eye(point.shape[1], dtype=point.dtype)
    pieces = (point + torch.cat([steps, -steps])).split([p.numel() for p in params], 1)
    with torch.no_grad():
        moved = layer(*(piece.view(-1, *p.shape[1:]) for piece, p in zip(pieces, params, strict=True)))
    up, down = _flat(moved).chunk(2)
    return ((up - down) / (2 * step)).mT


def jacobian_by_gradients(layer: Layer, params: Sequence[Tensor]) -> Tensor:
    """By the backward pass: ``(outputs, inputs)`` for one instance's parameters ``(1, *shape)``.

    The same instance as often as there are outputs, of which the i-th one has the loss of its i-th output.
    """
    count = _flat(layer(*params)).shape[1]
    inputs = [p.detach().expand(count, *p.shape[1:]).clone().requires_grad_() for p in params]
    outputs = _flat(layer(*inputs))
    gradients = torch.autograd.grad(
        outputs.diagonal().sum(), inputs, allow_unused=True, materialize_grads=True
    )
    return _flat(gradients)


def assert_jacobians_agree(layer: Layer, params: Sequence[Tensor]) -> None:
    """By gradients as by differences, each entry, at the tolerances of ``gradcheck`` that the tests use."""
    found, expected = jacobian_by_gradients(layer, params), jacobian_by_differences(layer, params, 1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
