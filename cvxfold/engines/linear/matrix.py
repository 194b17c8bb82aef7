"""A matrix for every instance of a batch, or one that all of them share."""

from dataclasses import dataclass

from torch import Tensor

from cvxfold.batches.records import Batched, SharedTensor


@dataclass(frozen=True)
class Matrix(Batched):
    """Dense values ``(1, r, c)``, shared by the batch, or ``(B, r, c)``, one for each instance."""

    values: SharedTensor

    @property
    def shared(self) -> bool:
        """Whether all instances have the same values."""
        return self.values.shape[0] == 1

    def mv(self, v: Tensor) -> Tensor:
        """The product with ``v`` ``(1|B, c)``; returns ``(B, r)``."""
        if self.shared:
            return v @ self.values[0].mT
        return (self.values @ v.unsqueeze(-1)).squeeze(-1)

    def rmv(self, v: Tensor) -> Tensor:
        """The transposed product with ``v`` ``(1|B, r)``; returns ``(B, c)``."""
        if self.shared:
            return v @ self.values[0]
        return (v.unsqueeze(-2) @ self.values).squeeze(-2)

    def absolute(self) -> "Matrix":
        """|self|, entry by entry."""
        return Matrix(self.values.abs())

    def scale(self, left: Tensor, right: Tensor) -> "Matrix":
        """diag(left) · self · diag(right), for ``left`` ``(1|B, r)`` and ``right`` ``(1|B, c)``."""
        return Matrix(left.unsqueeze(-1) * self.values * right.unsqueeze(-2))
