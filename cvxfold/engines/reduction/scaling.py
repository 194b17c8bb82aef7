"""Equilibration: diagonal D and E that make the rows and columns of the KKT matrix alike in size.

Ruiz, "A scaling algorithm to equilibrate both rows and columns norms in matrices", 2001, applied to
[P Aᵀ; A 0], here with Euclidean norms, which are matrix products. E is constant on the rows of a
non-separable cone, so E maps K onto K.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched, SharedTensor
from cvxfold.engines.linear.matrix import Matrix

_SWEEPS = 8
LARGEST = 1e5
"""Of entries of D and E, and of their inverses."""


@dataclass(frozen=True)
class Scaling(Batched):
    """The equilibrated program has data D P D, D q/σ, E A D, E b/σ and the point D⁻¹x/σ, E s/σ, E⁻¹y/σ.

    σ is the size of an instance's q and b: a cone program is homogeneous in the two together.

    Args:
        columns: the diagonal of D, ``(1|B, n)``, shared where P and A are.
        rows: the diagonal of E, ``(1|B, m)``.
        size: σ, ``(B,)``.
    """

    columns: SharedTensor
    rows: SharedTensor
    size: Tensor

    def original(self, x: Tensor, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x ``(B, n)``, s and y ``(B, m)`` in the units of the original program."""
        size = self.size.unsqueeze(-1)
        return x * self.columns * size, s / self.rows * size, y * self.rows * size

    def equilibrated(self, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """s and y ``(B, m)`` of the original program in the units of the equilibrated one."""
        size = self.size.unsqueeze(-1)
        return s * self.rows / size, y / self.rows / size


def data_size(q: Tensor, b: Tensor) -> Tensor:
    """The largest entry of q and b by instance, ``(B,)``; 1 where both are zero."""
    both = torch.cat([q, b], dim=1)
    size = both.abs().amax(-1) if both.shape[1] else both.new_zeros(len(both))
    return torch.where(size > 0, size, torch.ones_like(size))


def equilibrate(P: Matrix, A: Matrix, blocks: Tensor | None, limit: float = LARGEST) -> tuple[Tensor, Tensor]:
    """Ruiz's scaling of a batch of programs: the diagonals of D and E, shared where both P and A are.

    Args:
        P: n × n. A: m × n.
        blocks: the number of the block that each row belongs to, ``(m,)``, on their device: rows of a block
            scale alike. None where each row is one of its own.
        limit: of entries of D and E, and of their inverses.
    """
    P_squared, A_squared = Matrix(P.values.square()), Matrix(A.values.square())
    batch = max(P.values.shape[0], A.values.shape[0])
    columns = P.values.new_ones(batch, P.values.shape[-1])
    rows = A.values.new_ones(batch, A.values.shape[-2])
    for _ in range(_SWEEPS):
        squared_columns, squared_rows = columns.square(), rows.square()
        by_column = P_squared.mv(squared_columns) + A_squared.rmv(squared_rows)
        by_row = squared_rows * A_squared.mv(squared_columns)
        columns = (columns / _root(squared_columns * by_column)).clamp(1 / limit, limit)
        rows = (rows / _root(_block_mean(by_row, blocks))).clamp(1 / limit, limit)
    return columns, rows


def _root(squared_norm: Tensor) -> Tensor:
    """The square root of the norm; 1 where that is zero."""
    return torch.where(squared_norm > 0, squared_norm, torch.ones_like(squared_norm)) ** 0.25


def _block_mean(norm: Tensor, blocks: Tensor | None) -> Tensor:
    if blocks is None or norm.shape[-1] == 0:
        return norm
    total = torch.zeros_like(norm).index_add_(1, blocks, norm)  # there are as many rows as blocks, or more
    size = norm.new_zeros(norm.shape[1]).index_add_(0, blocks, torch.ones_like(blocks, dtype=norm.dtype))
    return (total / size)[:, blocks]
