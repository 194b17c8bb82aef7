"""JAX's functions among PyTorch's, on the same device and in float64."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def jax_package() -> Any:
    """JAX, kept from taking most of a GPU's memory as it begins, and in float64."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


def has_gpu() -> bool:
    """Whether JAX sees one."""
    return jax_package().default_backend() == "gpu"


def by_jax(forward: Callable[..., Any], backward: Callable[..., Any], *tensors: Tensor) -> Tensor:
    """A function on PyTorch's autograd tape.

    Args:
        forward: from JAX's arrays to one.
        backward: from the gradient in that, and the arrays, to one gradient for each.
        *tensors: of which the arrays are views.
    """
    return _ByJax.apply(forward, backward, *tensors)  # pyright: ignore[reportReturnType]


class _ByJax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, forward: Any, backward: Any, *tensors: Tensor) -> Tensor:
        arguments = [_to_jax(tensor) for tensor in tensors]
        ctx.kept = backward, arguments
        return torch.from_dlpack(forward(*arguments))

    @staticmethod
    def backward(ctx: Any, *loss: Tensor) -> Any:
        backward, arguments = ctx.kept
        found = backward(_to_jax(loss[0]), *arguments)
        return None, None, *(torch.from_dlpack(one) for one in found)


def _to_jax(tensor: Tensor) -> Any:
    return jax_package().dlpack.from_dlpack(tensor.detach().contiguous())
