"""The best iterate that each instance has seen: what a method whose residual goes up and down returns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.methods.history import relative_norm

_LARGEST_GROWTH = 1e14  # ‖w‖/‖ū‖ beyond this has no digits in float64, whatever its residual says


@dataclass
class Best(Batched):
    """The best iterate so far.

    Args:
        w: ``(b, m)``.
        r: ū − (I − Φᵀ) w, ``(b, m)``.
        residual: ‖r‖ / ‖ū‖, ``(b,)``.
        largest: ‖w‖ above which there is nothing in it but a null vector of I − Φᵀ, ``(b,)``.
    """

    w: Tensor
    r: Tensor
    residual: Tensor
    largest: Tensor

    @classmethod
    def zero(cls, rhs: Tensor) -> "Best":
        """w = 0, before anything was tried."""
        return cls(torch.zeros_like(rhs), rhs, relative_norm(rhs, rhs), _LARGEST_GROWTH * rhs.norm(dim=-1))

    def offer(self, w: Tensor, r: Tensor, residual: Tensor) -> None:
        """Take those that are better; NaN is not."""
        better = (residual < self.residual) & (w.norm(dim=-1) <= self.largest)
        self.w = torch.where(better.unsqueeze(-1), w, self.w)
        self.r = torch.where(better.unsqueeze(-1), r, self.r)
        self.residual = torch.where(better, residual, self.residual)
