"""The stored entries of a batch of cone programs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched, SharedTensor


@dataclass(frozen=True)
class ProgramValues(Batched):
    """Stored entries of a batch of cone programs; every leading dimension is 1 (shared) or B.

    Args:
        P: ``(1|B, nnz P)``. q: ``(1|B, n)``. A: ``(1|B, nnz A)``. b: ``(1|B, nnz b)``.
    """

    P: SharedTensor
    q: SharedTensor
    A: SharedTensor
    b: SharedTensor

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over P, q, A, b."""
        return iter((self.P, self.q, self.A, self.b))

    def same_as(self, other: "ProgramValues") -> bool:
        """Whether all numbers are equal, and on the same device."""
        return all(a.device == b.device and torch.equal(a, b) for a, b in zip(self, other, strict=True))

    def detached(self) -> "ProgramValues":
        """The same numbers, off the tape."""
        return ProgramValues(*(value.detach() for value in self))
