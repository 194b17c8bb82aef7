"""The best iterate that each instance has seen: what a method whose residual goes up and down returns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.fold.adjoint import relative_norm


@dataclass
class Best:
    """The best iterate so far.

    Args:
        w: ``(b, m)``.
        r: ū − (I − Φᵀ) w, ``(b, m)``.
        residual: ‖r‖ / ‖ū‖, ``(b,)``.
    """

    w: Tensor
    r: Tensor
    residual: Tensor

    @classmethod
    def zero(cls, rhs: Tensor) -> "Best":
        """w = 0, before anything was tried."""
        return cls(torch.zeros_like(rhs), rhs, relative_norm(rhs, rhs))

    def offer(self, w: Tensor, r: Tensor, residual: Tensor) -> None:
        """Take those that are better; NaN is not."""
        better = residual < self.residual
        self.w = torch.where(better.unsqueeze(-1), w, self.w)
        self.r = torch.where(better.unsqueeze(-1), r, self.r)
        self.residual = torch.where(better, residual, self.residual)

    def take(self, index: Tensor) -> "Best":
        """Keep the instances ``index`` ``(b,)``."""
        return Best(self.w[index], self.r[index], self.residual[index])
