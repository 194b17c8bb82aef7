"""The least-norm least-squares adjoint by singular values, where I − Φ is a small matrix.

With I − Φᵀ = UΣVᵀ it is w = V Σ⁺ Uᵀ ū, singular values below a part of the largest being none (Golub and Van
Loan, "Matrix Computations", 2013, section 5.5).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.methods.adjoint import AdjointSettings, Attempt
from cvxfold.methods.history import History, relative_norm
from cvxfold.methods.linearization import HasMatrix, Linearization

_NONE = 1e-10  # of the largest singular value: what divides by less is no adjoint
_REFINEMENTS = 2  # where the matrix is ill-conditioned the first adjoint leaves some


@dataclass(frozen=True)
class PseudoInverse:
    """Singular values of a linearization that :class:`cvxfold.methods.linearization.HasMatrix`."""

    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Solve each instance's system, as far as it has a solution."""
        assert isinstance(phi, HasMatrix)
        matrix = phi.matrix
        unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        U, sizes, Vh = torch.linalg.svd(unit - matrix.mT)
        inverses = torch.where(sizes > _NONE * sizes[..., :1], 1 / sizes, 0.0)
        w, r, history = torch.zeros_like(rhs), rhs, History(rhs.shape[0])
        everyone = torch.arange(rhs.shape[0], device=rhs.device)
        for _ in range(1 + _REFINEMENTS):
            w = w + (Vh.mT @ (inverses.unsqueeze(-1) * (U.mT @ r.unsqueeze(-1)))).squeeze(-1)
            r = rhs - (w - phi.vjp(w))
            history.append(relative_norm(r, rhs), everyone)
        done = torch.zeros(len(rhs), dtype=torch.bool, device=rhs.device)
        return Attempt(w, history.stack(rhs), "least squares", done)
