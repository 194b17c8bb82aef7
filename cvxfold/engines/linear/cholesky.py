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
        shift: σ, ``(1|B,)``; NaN where it is unsettled.
        shifted: whether any instance was seen to need σ > 0, of those that were factored together.
    """

    lower: SharedTensor
    shift: SharedTensor
    shifted: bool = False

    @classmethod
    def factor(cls, S: Tensor, scale: Tensor | None = None, look: bool = True) -> "Cholesky":
        """Factor ``S`` ``(1|B, n, n)``, adding a small multiple of I where that is needed.

        It is small beside the largest diagonal entry, or beside ``scale`` ``(1|B,)`` where that is larger.

        An instance whose entries are not finite yields NaN, and leaves the others as they are. Without a
        ``look`` at the device none gets a multiple of I: what needs one yields NaN, and is ``unsettled``.
        """
        lower, info = torch.linalg.cholesky_ex(S)
        shift = S.new_zeros(S.shape[0])
        diagonal = S.diagonal(dim1=-2, dim2=-1)
        largest = diagonal.abs().amax(-1).clamp_min(torch.finfo(S.dtype).tiny) if S.shape[-1] else shift
        scale = largest if scale is None else torch.maximum(largest, scale)
        pivots = lower.diagonal(dim1=-2, dim2=-1).square()
        tiny = 4 * S.shape[-1] * torch.finfo(S.dtype).eps
        singular = (info != 0) | (pivots < tiny * diagonal).any(-1)
        if not look:
            shift = torch.where(singular, torch.nan, shift)
            return cls(torch.where(singular.view(-1, 1, 1), torch.nan, lower), shift)
        sigma, some = _SHIFT, bool(singular.any())
        shifted = some
        while some and sigma < 1.0:
            shift = torch.where(singular, sigma * scale, shift)
            moved = S + torch.diag_embed(shift.unsqueeze(-1).expand_as(diagonal))
            lower, info = torch.linalg.cholesky_ex(moved)
            singular = info != 0
            sigma, some = 100.0 * sigma, bool(singular.any())
        lower = torch.where(singular.view(-1, 1, 1), torch.nan, lower) if some else lower
        return cls(lower, shift, shifted)

    @property
    def unsettled(self) -> Tensor:
        """Which instances need a σ > 0 that nobody has looked for, ``(1|B,)``."""
        return self.shift.isnan()

    def solve(self, rhs: Tensor) -> Tensor:
        """(S + σI)⁻¹ rhs for ``rhs`` ``(1|B, n)``; returns ``(B, n)``."""
        if self.lower.shape[0] == 1:
            return torch.cholesky_solve(rhs.mT, self.lower[0]).mT
        return torch.cholesky_solve(rhs.unsqueeze(-1), self.lower).squeeze(-1)
