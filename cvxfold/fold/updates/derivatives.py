"""Derivatives of a user's functions inside of an update: on the tape where there is one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def gradient(objective: Callable[..., Tensor], x: Tensor, params: Sequence[Any]) -> Tensor:
    """∇f(x), of the shape of x.

    Args:
        objective: f(x, *params), a number or, for a batch, one for each instance.
        x: ``(…, n)``.
        params: of f.

    Raises:
        ValueError: the value does not depend on x.
    """
    on_tape = torch.is_grad_enabled()
    with torch.enable_grad():
        at = _leaf(x, on_tape)
        value = objective(at, *params)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise ValueError("objective: expected a tensor that depends on x, differentiably")
        (found,) = torch.autograd.grad(value.sum(), at, create_graph=on_tape)
    return found


def jacobian(function: Callable[..., Tensor], x: Tensor, params: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """c(x) ``(…, p)`` and its Jacobian ``(…, p, n)``, by p products.

    Args:
        function: c(x, *params).
        x: ``(…, n)``.
        params: of c.
    """
    on_tape = torch.is_grad_enabled()
    with torch.enable_grad():
        at = _leaf(x, on_tape)
        value = function(at, *params)
        if value.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"constraints: expected values of shape (…, p) for x of shape {tuple(x.shape)}, got "
                f"{tuple(value.shape)}"
            )
        rows = [
            torch.autograd.grad(
                entry.sum(),
                at,
                create_graph=on_tape,
                retain_graph=True,
                materialize_grads=True,
                allow_unused=True,
            )[0]
            for entry in value.unbind(-1)
        ]
        matrix = torch.stack(rows, dim=-2) if rows else x.new_zeros(*x.shape[:-1], 0, x.shape[-1])
    return (value, matrix) if on_tape else (value.detach(), matrix.detach())


def _leaf(x: Tensor, on_tape: bool) -> Tensor:
    """x itself where it is on the tape, so that what is made of it is; else a leaf."""
    return x if on_tape and x.requires_grad else x.detach().requires_grad_()
