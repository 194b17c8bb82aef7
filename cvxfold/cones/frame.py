"""The derivative of the projection onto cones in R³, by its eigenvectors.

Let u = p + d be the Moreau decomposition of a point outside K and its polar K°: p = Π_K(u) and
d = Π_K°(u) are orthogonal and not zero. Π_K is constant along d and linear along p, so D = DΠ_K(u) has the
eigenvectors p̂ with eigenvalue 1, d̂ with 0, and ê = p̂ × d̂ with an eigenvalue λ that the curvature of the
cone's boundary decides.

Along p̂ and d̂ only the lengths of p and d change, to which λ/(1 − λ) and its inverse are proportional.
Along ê, ṗ = λê and ḋ = (1 − λ)ê turn the frame. So T(z, v, w) = ⟨z, D²Π_K(u)[v, w]⟩, which is fully
symmetric, has in the frame the components

    T(ê, ê, p̂) = λ(1 − λ)/‖p‖        T(ê, ê, d̂) = −λ(1 − λ)/‖d‖        T(ê, ê, ê) = κ

and no others, κ being the derivative of λ along ê.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones.base import SpectralFunction


@dataclass(frozen=True)
class FrameDerivative(Batched):
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
        w = v.reshape(v.shape[0], cones, 3, prod(v.shape[2:]))
        out = self.frame @ (f(self.eigenvalues).unsqueeze(-1) * (self.frame.mT @ w))
        return out.reshape(batch, *v.shape[1:])

    def spread(self, f: SpectralFunction, terms: Tensor, signs: Tensor) -> Tensor:
        """Q (signs ∘ f(Λ) |Q|ᵀ terms) for ``terms`` ``(B, 3·cones)``."""
        parts = (self.frame.abs().mT @ terms.reshape(len(terms), -1, 3, 1)).squeeze(-1)
        parts = signs.reshape(-1, 3) * f(self.eigenvalues) * parts
        return (self.frame @ parts.unsqueeze(-1)).reshape(terms.shape)


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
    frame = _frame(p, d)
    eigenvalues = torch.stack([torch.ones_like(curved), curved, torch.zeros_like(curved)], dim=-1)
    eye = torch.eye(3, dtype=p.dtype, device=p.device).expand_as(frame)
    return FrameDerivative(
        torch.where(flat[..., None, None], eye, frame).to(dtype),
        torch.where(flat[..., None], diagonal, eigenvalues).to(dtype),
    )


def frame_second_derivative(
    p: Tensor, d: Tensor, bend: tuple[Tensor, Tensor, Tensor], v: Tensor, w: Tensor
) -> Tensor:
    """D²Π_K(u)[v, w] by its components in the frame.

    Args:
        p: any positive multiple of Π_K(u), ``(B, cones, 3)``. d: likewise of Π_K°(u).
        bend: λ(1 − λ)/‖p‖, λ(1 − λ)/‖d‖ and κ, ``(B, cones)`` each; zero where Π_K is linear.
        v, w: ``(B, 3·cones)``.

    Returns:
        ``(B, 3·cones)``.
    """
    frame = _frame(p, d)
    on_p, on_e, on_d = (frame.mT @ v.reshape(len(v), -1, 3, 1).to(p.dtype)).squeeze(-1).unbind(-1)
    to_p, to_e, to_d = (frame.mT @ w.reshape(len(w), -1, 3, 1).to(p.dtype)).squeeze(-1).unbind(-1)
    at_p, at_d, kappa = bend
    both = on_e * to_e
    turn = at_p * (on_e * to_p + on_p * to_e) - at_d * (on_e * to_d + on_d * to_e)
    out = frame @ torch.stack([at_p * both, turn + kappa * both, -at_d * both], dim=-1).unsqueeze(-1)
    return out.reshape(v.shape).to(v.dtype)


def _frame(p: Tensor, d: Tensor) -> Tensor:
    """p̂, ê and d̂ as columns, ``(B, cones, 3, 3)``."""
    p_hat, d_hat = p / p.norm(dim=-1, keepdim=True), d / d.norm(dim=-1, keepdim=True)
    return torch.stack([p_hat, torch.linalg.cross(p_hat, d_hat), d_hat], dim=-1)
