"""Cholesky factors of symmetric positive (semi)definite matrices, batched.

Batched LU on CPU has been seen to return garbage beyond n = 150 or so; batched Cholesky is sound, and
every system of this package is reduced to one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched, SharedTensor

_SHIFT = 1e-10  # relative to the largest diagonal entry


@dataclass(frozen=True)
class Cholesky(Batched):
    """S = L Lᵀ, or S + σI = L Lᵀ for the instances where S is singular to working precision.

    Args:
        lower: L, ``(1|B, n, n)``.
        shift: σ, ``(1|B,)``.
    """

    lower: SharedTensor
    shift: SharedTensor

    @classmethod
    def factor(cls, S: Tensor, scale: Tensor | None = None) -> "Cholesky":
        """Factor ``S`` ``(1|B, n, n)``, adding a small multiple of I where that is needed.

        It is small beside the largest diagonal entry, or beside ``scale`` ``(1|B,)`` where that is larger.

        An instance whose entries are not finite yields NaN, and leaves the others as they are.
        """
        lower, info = torch.linalg.cholesky_ex(S)
        shift = S.new_zeros(S.shape[0])
        diagonal = S.diagonal(dim1=-2, dim2=-1)
        largest = diagonal.abs().amax(-1).clamp_min(torch.finfo(S.dtype).tiny) if S.shape[-1] else shift
        scale = largest if scale is None else torch.maximum(largest, scale)
        pivots = lower.diagonal(dim1=-2, dim2=-1).square()
        tiny = 4 * S.shape[-1] * torch.finfo(S.dtype).eps
        singular = (info != 0) | (pivots < tiny * diagonal).any(-1)
        sigma = _SHIFT
        while bool(singular.any()) and sigma < 1.0:
            shift = torch.where(singular, sigma * scale, shift)
            shifted = S + torch.diag_embed(shift.unsqueeze(-1).expand_as(diagonal))
            lower, info = torch.linalg.cholesky_ex(shifted)
            singular = info != 0
            sigma *= 100.0
        lower = torch.where(singular.view(-1, 1, 1), torch.nan, lower) if bool(singular.any()) else lower
        return cls(lower, shift)

    @property
    def shifted(self) -> bool:
        """Whether any instance needed σ > 0."""
        return bool((self.shift > 0).any())

    def solve(self, rhs: Tensor) -> Tensor:
        """(S + σI)⁻¹ rhs for ``rhs`` ``(1|B, n)``; returns ``(B, n)``."""
        if self.lower.shape[0] == 1:
            return torch.cholesky_solve(rhs.mT, self.lower[0]).mT
        return torch.cholesky_solve(rhs.unsqueeze(-1), self.lower).squeeze(-1)
