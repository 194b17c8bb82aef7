"""The derivative of the projection onto cones in R³, by its eigenvectors.

Let u = p + d be the Moreau decomposition of a point outside K and its polar K°: p = Π_K(u) and
d = Π_K°(u) are orthogonal and not zero. Π_K is constant along d and linear along p, so D = DΠ_K(u) has the
eigenvectors p̂ with eigenvalue 1, d̂ with 0, and ê = p̂ × d̂ with an eigenvalue λ that the curvature of the
cone's boundary decides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.cones.base import SpectralFunction


@dataclass(frozen=True)
class FrameDerivative:
    """D of many cones in R³ by orthonormal eigenvectors.

    Args:
        frame: eigenvectors as columns, ``(B, cones, 3, 3)``.
        eigenvalues: ``(B, cones, 3)``.
    """

    frame: Tensor
    eigenvalues: Tensor

    def apply(self, f: SpectralFunction, v: Tensor) -> Tensor:
        """f(D) v for ``v`` of shape ``(B, 3·cones)`` or ``(B, 3·cones, k)``."""
        batch, cones = self.frame.shape[:2]
        w = v.reshape(v.shape[0], cones, 3, -1)
        out = self.frame @ (f(self.eigenvalues).unsqueeze(-1) * (self.frame.mT @ w))
        return out.reshape(batch, *v.shape[1:])

    def take(self, index: Tensor) -> "FrameDerivative":
        """Keep the instances ``index`` only."""
        return FrameDerivative(self.frame[index], self.eigenvalues[index])


def frame_derivative(
    p: Tensor, d: Tensor, curved: Tensor, flat: Tensor, diagonal: Tensor, dtype: torch.dtype
) -> FrameDerivative:
    """D between K and K° by its eigenvectors, and in the branches where it is diagonal.

    Args:
        p: any positive multiple of Π_K(u), ``(B, cones, 3)``. d: likewise of Π_K°(u).
        curved: λ, ``(B, cones)``.
        flat: where D is diagonal in the standard basis instead, ``(B, cones)``.
        diagonal: its diagonal there, ``(B, cones, 3)``.
        dtype: of the result.
    """
    p_hat, d_hat = p / p.norm(dim=-1, keepdim=True), d / d.norm(dim=-1, keepdim=True)
    frame = torch.stack([p_hat, torch.linalg.cross(p_hat, d_hat), d_hat], dim=-1)
    eigenvalues = torch.stack([torch.ones_like(curved), curved, torch.zeros_like(curved)], dim=-1)
    eye = torch.eye(3, dtype=p.dtype, device=p.device).expand_as(frame)
    return FrameDerivative(
        torch.where(flat[..., None, None], eye, frame).to(dtype),
        torch.where(flat[..., None], diagonal, eigenvalues).to(dtype),
    )
