"""A call on the tape, and what ``torch.func.vmap`` does to their batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.layer.answer import Answer
from cvxfold.layer.request import CallRequest
from cvxfold.layer.session import Session


class TapedCall:
    """The passes of one call: what the forward pass leaves for the backward pass.

    Args:
        session: that serves it. request: what is asked.

    Attributes:
        answer: of the forward pass, once it was made.
        flattened: those that served this one under ``torch.func.vmap``.
    """

    def __init__(self, session: Session, request: CallRequest) -> None:
        self.session, self.request = session, request
        self.answer: Answer | None = None
        self.flattened: TapedCall | None = None


@dataclass(frozen=True)
class Asked:
    """Which gradients are asked for.

    Args:
        passes: of the call. wanted: whether each of P, q, A and b needs one. shared: by the batch.
    """

    passes: TapedCall
    wanted: Sequence[bool]
    shared: Sequence[bool]

    def flattened(self) -> "Asked":
        """The same of the passes that served these under ``torch.func.vmap``, where nothing is shared."""
        assert self.passes.flattened is not None
        return Asked(self.passes.flattened, self.wanted, [False] * len(self.shared))


def or_zeros(given: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Zeros in place of what is None."""
    return [torch.zeros_like(value) if one is None else one for one, value in zip(given, like, strict=True)]


def lanes_first(value: Tensor, dim: int | None, lanes: int) -> Tensor:
    """With the mapped dimension as the first."""
    return value.expand(lanes, *value.shape) if dim is None else value.movedim(dim, 0)


def joined(value: Tensor, dim: int | None, lanes: int, batch: int) -> Tensor:
    """The stored entries of all lanes as one batch ``(1|lanes·B, ·)``."""
    if dim is None and value.shape[0] == 1:
        return value
    value = lanes_first(value, dim, lanes)
    return value.expand(lanes, batch, value.shape[-1]).flatten(0, 1)


def split(gradient: Tensor, lanes: int, shared: bool) -> Tensor:
    """The gradients of a joined batch by lane; summed over each lane's batch where the datum was shared."""
    by_lane = gradient.unflatten(0, (lanes, -1))
    return by_lane.sum(1, keepdim=True) if shared else by_lane


def lane_by_lane(
    apply: Callable[..., Sequence[Tensor | None]],
    inputs: Sequence[Any],
    in_dims: Sequence[int | None],
    lanes: int,
) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
    """The ``vmap`` of a Function whose forward pass was not mapped: one pass for each lane.

    Args:
        apply: of the Function. inputs, in_dims: as its ``vmap`` has them. lanes: how many.
    """
    rows = [
        apply(
            *(one if dim is None else one.select(dim, lane) for one, dim in zip(inputs, in_dims, strict=True))
        )
        for lane in range(lanes)
    ]
    outs = tuple(None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True))
    return outs, tuple(None if out is None else 0 for out in outs)


def tangents_in_lanes(
    apply: Callable[..., Sequence[Tensor]], inputs: Sequence[Any], in_dims: Sequence[int | None], lanes: int
) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
    """The ``vmap`` of a Function of stored entries, P, q, A and b the last of them, that finds tangents.

    One pass where the forward pass was mapped too, else one for each lane.

    Args:
        apply, inputs, in_dims, lanes: as of :func:`lane_by_lane`.
    """
    *tensors, asked = inputs
    if not any(dim is not None for dim in in_dims[-5:-1]):  # by this very map
        return lane_by_lane(apply, inputs, in_dims, lanes)
    batch = asked.passes.request.batch
    flat = [joined(*each, lanes, batch) for each in zip(tensors, in_dims[:-1], strict=True)]
    found = apply(*flat, asked.flattened())
    return tuple(value.unflatten(0, (lanes, batch)) for value in found), (0,) * len(found)
