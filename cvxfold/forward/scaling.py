"""Equilibration: diagonal D and E that make the rows and columns of the KKT matrix alike in size.

Ruiz, "A scaling algorithm to equilibrate both rows and columns norms in matrices", 2001, applied to
[P Aᵀ; A 0] as in OSQP and SCS. E is constant on the rows of a non-separable cone, so E maps K onto K.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.linear.matrix import Matrix
from cvxfold.program import ConeProgram

_SWEEPS = 10
_LIMIT = 1e4


@dataclass(frozen=True)
class Scaling:
    """The equilibrated program has data D P D, D q, E A D, E b and the point D⁻¹x, E s, E⁻¹y.

    Args:
        columns: the diagonal of D, ``(1|B, n)``, shared where P and A are.
        rows: the diagonal of E, ``(1|B, m)``.
    """

    columns: Tensor
    rows: Tensor

    def apply(self, program: ConeProgram) -> ConeProgram:
        """The equilibrated program."""
        return ConeProgram(
            program.P.scale(self.columns, self.columns),
            program.q * self.columns,
            program.A.scale(self.rows, self.columns),
            program.b * self.rows,
            program.cone,
        )

    def apply_vectors(self, program: ConeProgram, matrices: ConeProgram) -> ConeProgram:
        """The same where ``matrices`` already holds the equilibrated P and A."""
        return ConeProgram(
            matrices.P, program.q * self.columns, matrices.A, program.b * self.rows, program.cone
        )

    def take(self, index: Tensor) -> "Scaling":
        """Keep the instances ``index``; shared scalings stay as they are."""
        if self.columns.shape[0] == 1:
            return self
        return Scaling(self.columns[index], self.rows[index])


def equilibrate(program: ConeProgram) -> Scaling:
    """Ruiz's scaling of a batch of programs, shared where both P and A are."""
    P, A = program.P.values.abs(), program.A.values.abs()
    batch = max(P.shape[0], A.shape[0])
    columns = P.new_ones(batch, P.shape[-1])
    rows = P.new_ones(batch, A.shape[-2])
    blocks = program.cone.blocks().to(P.device)
    for _ in range(_SWEEPS):
        scaled_P = Matrix(P).scale(columns, columns).values
        scaled_A = Matrix(A).scale(rows, columns).values
        column_norm = torch.maximum(_amax(scaled_P, -2), _amax(scaled_A, -2))
        row_norm = _block_mean(_amax(scaled_A, -1), blocks)
        columns = (columns / _root(column_norm)).clamp(1 / _LIMIT, _LIMIT)
        rows = (rows / _root(row_norm)).clamp(1 / _LIMIT, _LIMIT)
    return Scaling(columns, rows)


def _amax(values: Tensor, dim: int) -> Tensor:
    if values.shape[dim] == 0:
        return values.new_zeros(values.sum(dim).shape)
    return values.amax(dim)


def _root(norm: Tensor) -> Tensor:
    return torch.where(norm > 0, norm, torch.ones_like(norm)).sqrt()


def _block_mean(norm: Tensor, blocks: Tensor) -> Tensor:
    if norm.shape[-1] == 0:
        return norm
    count = int(blocks[-1]) + 1
    total = norm.new_zeros(norm.shape[0], count).index_add_(1, blocks, norm)
    size = norm.new_zeros(count).index_add_(0, blocks, torch.ones_like(blocks, dtype=norm.dtype))
    return (total / size)[:, blocks]
