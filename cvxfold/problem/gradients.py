"""Loss gradients on the stored data, from the adjoint of the optimality conditions.

    q̄ = −p     b̄ = v     Ā = −(v xᵀ + y pᵀ)       P̄ = −½ (p xᵀ + x pᵀ)

Only the stored entries are ever formed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.problem.index import Index, at
from cvxfold.problem.program import Entries


@dataclass(frozen=True)
class DataGradients:
    """Loss gradients on the data of each instance, as the vectors they are made of, in original units.

    Args:
        p: of the adjoint of the optimality conditions, ``(B, n)``.
        v: of the same, ``(B, m)``.
        x: of the solution, ``(B, n)``.
        y: of the same, ``(B, m)``.
        entries: where the stored data are.
    """

    p: Tensor
    v: Tensor
    x: Tensor
    y: Tensor
    entries: Entries

    def on_q(self, shared: bool) -> Tensor:
        """q̄ ``(1|B, n)``; summed over the batch where q is shared."""
        return _summed(-self.p, shared)

    def on_b(self, shared: bool) -> Tensor:
        """The stored entries of b̄, ``(1|B, nnz b)``."""
        return _summed(at(self.v, self.entries.b.on(self.v.device)), shared)

    def on_A(self, shared: bool) -> Tensor:
        """The stored entries of Ā = −(v xᵀ + y pᵀ), ``(1|B, nnz A)``."""
        rows, columns = self.entries.A.on(self.p.device)
        if shared:
            return -(self.v.mT @ self.x + self.y.mT @ self.p)[rows, columns].unsqueeze(0)
        by_x = at(-self.v, rows) * at(self.x, columns)  # of millions of entries each pass counts
        return torch.addcmul(by_x, at(-self.y, rows), at(self.p, columns))

    def on_P(self, shared: bool) -> Tensor:
        """The stored entries of P̄ = −½ (p xᵀ + x pᵀ), ``(1|B, nnz P)``."""
        rows, columns = self.entries.P.on(self.p.device)
        terms = at(self.p, rows) * at(self.x, columns) + at(self.x, rows) * at(self.p, columns)
        return _summed(-0.5 * terms, shared)

    def on_moving(self) -> Tensor:
        """All that a parameter reaches, side by side, ``(B, ·)``."""
        parts = (self.on_P, self.on_q, self.on_A, self.on_b)
        kept = [
            _some(part(False), index)
            for part, index in zip(parts, self.entries.moving, strict=True)
            if len(index)
        ]
        return torch.cat(kept, dim=1) if kept else self.p.new_empty(len(self.p), 0)


def _some(entries: Tensor, index: Index) -> Tensor:
    """Those of ``entries`` ``(B, k)`` at an ascending ``index``."""
    return entries if len(index) == entries.shape[1] else at(entries, index.on(entries.device))


def _summed(gradient: Tensor, shared: bool) -> Tensor:
    return gradient.sum(0, keepdim=True) if shared else gradient
