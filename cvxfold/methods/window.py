"""The window of Anderson acceleration: the last differences of iterates and of their residuals.

With r the residual of w and ΔW, ΔR those differences, θ = argmin ‖r − ΔR θ‖, by regularized normal equations
of columns of unit length (Walker and Ni, "Anderson acceleration for fixed-point iterations", 2011).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched

_REGULARIZATION = 30  # of the normal equations of unit columns, in units of roundoff times their number
_CORRECTIONS = 2  # of θ, which undo what the regularization did to all but the smallest singular values


@dataclass
class Window(Batched):
    """The last differences, scaled so that those of the residuals have unit length.

    Args:
        dw: of the iterates, ``(b, p, m)``; zero where there is none yet.
        dr: of their residuals, ``(b, p, m)``.
        gram: ΔRᵀ ΔR, regularized, ``(b, p, p)``; its diagonal is the same where there is no difference.
        added: how many there have been.
    """

    dw: Tensor
    dr: Tensor
    gram: Tensor
    added: int = 0

    @classmethod
    def empty(cls, rhs: Tensor, size: int) -> "Window":
        """No differences, room for ``size``."""
        none = rhs.new_zeros(rhs.shape[0], size, rhs.shape[1])
        gram = torch.eye(size, dtype=rhs.dtype, device=rhs.device) * (1 + _ridge(none))
        gram = gram.repeat(rhs.shape[0], 1, 1)
        return cls(none, none.clone(), gram)

    def add(self, dw: Tensor, dr: Tensor) -> None:
        """Put a difference in the place of the oldest."""
        slot = self.added % self.dw.shape[1]
        norm = dr.norm(dim=-1, keepdim=True)
        scale = torch.where(norm > 0, 1 / norm, 0.0)
        self.dw[:, slot], self.dr[:, slot] = scale * dw, scale * dr
        overlaps = (self.dr @ self.dr[:, slot].unsqueeze(-1)).squeeze(-1)
        self.gram[:, slot], self.gram[:, :, slot] = overlaps, overlaps
        self.gram[:, slot, slot] = 1 + _ridge(self.dr)
        self.added += 1

    def forget(self, rows: Tensor) -> None:
        """Drop the differences of the instances that a mask ``(b,)`` names."""
        eye = torch.eye(self.gram.shape[-1], dtype=self.gram.dtype, device=self.gram.device)
        gone = rows.view(-1, 1, 1)
        self.dw, self.dr = torch.where(gone, 0.0, self.dw), torch.where(gone, 0.0, self.dr)
        self.gram = torch.where(gone, eye * (1 + _ridge(self.dr)), self.gram)

    def minimize(self, w: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """w − ΔW θ and its residual r − ΔR θ, the smallest there is."""
        factor, failed = torch.linalg.cholesky_ex(self.gram)
        for _ in range(1 + _CORRECTIONS):
            theta = torch.cholesky_solve(self.dr @ r.unsqueeze(-1), factor)
            theta = torch.where((failed > 0).view(-1, 1, 1), 0.0, theta).mT
            w, r = w - (theta @ self.dw).squeeze(-2), r - (theta @ self.dr).squeeze(-2)
        return w, r


def _ridge(differences: Tensor) -> float:
    return _REGULARIZATION * differences.shape[1] * torch.finfo(differences.dtype).eps
