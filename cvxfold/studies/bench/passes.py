"""One forward and one backward pass of a layer, timed; and the values that it is given."""

import gc
from collections.abc import Sequence
from ctypes import CDLL
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.studies.bench.families.family import Evaluate, Family
from cvxfold.studies.measure import timed

_STRIDE = 7_919  # between the seeds of two rounds


DISTINCT = 4_096
"""Instances that are drawn; larger batches are these again."""


@dataclass(frozen=True)
class Pass:
    """What a pass found and took.

    Args:
        outputs: ``(B, *shape)`` each. gradients: of the loss, one for each parameter.
        forward, backward: seconds.
    """

    outputs: list[Tensor]
    gradients: list[Tensor]
    forward: float
    backward: float

    @property
    def seconds(self) -> float:
        """Both passes."""
        return self.forward + self.backward


def one_pass(evaluate: Evaluate, values: Sequence[Tensor], weights: Sequence[Tensor], **call: Any) -> Pass:
    """Solve, and differentiate Σ ⟨weight, output⟩ with respect to all parameters.

    Args:
        evaluate: the layer. values: of its parameters ``(B, *shape)``. weights: like its outputs, and on
            the same device, which is idle before and after each pass.
        **call: the layer's keyword arguments.
    """
    leaves, device = [value.clone().requires_grad_() for value in values], weights[0].device
    outputs, forward = timed(lambda: list(evaluate(*leaves, **call)), device)
    loss = torch.stack([(w * out).sum() for w, out in zip(weights, outputs, strict=True)]).sum()
    gradients, backward = timed(lambda: torch.autograd.grad(loss, leaves, materialize_grads=True), device)
    return Pass([out.detach() for out in outputs], list(gradients), forward, backward)


def drawn(family: Family, size: int, batch: int, seed: int, turn: int) -> list[Tensor]:
    """Values of the parameters for one round: others in each, the same for all peers; on the CPU.

    Beyond 4,096 instances they are those again.
    """
    generator = torch.Generator().manual_seed((seed + _STRIDE * turn) % 2**63)
    return [tiled(value, batch) for value in family.sample(size, min(batch, DISTINCT), generator)]


def tiled(tensor: Tensor, batch: int) -> Tensor:
    """So many instances: the first ones, or all of them over and over."""
    times = -(-batch // len(tensor))
    return tensor[:batch] if times == 1 else tensor.repeat(times, *[1] * (tensor.ndim - 1))[:batch]


def weights_of(family: Family, size: int, batch: int, seed: int) -> list[Tensor]:
    """Standard normal weights of the loss, like the outputs; on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [variable.shape for variable in family.state(size).variables]
    return [torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def forget() -> None:
    """Give memory that nobody uses back to the system, so that what is taken next can be seen."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    try:
        CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library
