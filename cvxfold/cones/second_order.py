"""The second-order cone {(t, z) : ‖z‖ ≤ t}, many of one size at a time.

With ẑ = z/‖z‖ the projection has the orthonormal eigenvectors a = (1, ẑ)/√2 and c = (1, −ẑ)/√2 in the
plane of u, and every direction orthogonal to both. Their eigenvalues are

    inside (‖z‖ ≤ t)      1, 1, 1
    polar  (‖z‖ ≤ −t)     0, 0, 0
    between               1, 0, λ = (1 + t/‖z‖)/2

(the spectral decomposition of the Jordan algebra of the cone: Alizadeh and Goldfarb, "Second-order cone
programming", 2003, section 4), so f(D) = f(λ) I + (f(d_a) − f(λ)) aaᵀ + (f(d_c) − f(λ)) ccᵀ.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.cones.base import SpectralFunction

_SQRT_HALF = 0.5**0.5


@dataclass(frozen=True)
class SecondOrderDerivative:
    """D by its eigenvectors and eigenvalues.

    Args:
        direction: ẑ, ``(B, cones, size − 1)``; zero where z is.
        eigenvalues: those of a, of c and of the rest, ``(B, cones, 3)``.
    """

    direction: Tensor
    eigenvalues: Tensor

    def apply(self, f: SpectralFunction, v: Tensor) -> Tensor:
        """f(D) v for ``v`` of shape ``(B, cones·size)`` or ``(B, cones·size, k)``."""
        batch, cones, tail = self.direction.shape
        w = v.reshape(v.shape[0], cones, tail + 1, -1)
        on_a, on_c, rest = f(self.eigenvalues).unsqueeze(-1).unbind(-2)
        head, z = w[:, :, 0], w[:, :, 1:]
        along = (self.direction.unsqueeze(-1) * z).sum(-2)
        toward_a = (on_a - rest) * (head + along) * _SQRT_HALF
        toward_c = (on_c - rest) * (head - along) * _SQRT_HALF
        out = torch.empty(batch, *w.shape[1:], dtype=w.dtype, device=w.device)
        out[:, :, 0] = rest * head + _SQRT_HALF * (toward_a + toward_c)
        swing = _SQRT_HALF * (toward_a - toward_c)
        out[:, :, 1:] = rest.unsqueeze(-2) * z + self.direction.unsqueeze(-1) * swing.unsqueeze(-2)
        return out.reshape(batch, *v.shape[1:])

    def take(self, index: Tensor) -> "SecondOrderDerivative":
        """Keep the instances ``index`` only."""
        return SecondOrderDerivative(self.direction[index], self.eigenvalues[index])


@dataclass(frozen=True)
class SecondOrder:
    """A product of ``cones`` second-order cones of ``size`` each, its own dual."""

    cones: int
    size: int

    @property
    def dim(self) -> int:
        """Rows of the product."""
        return self.cones * self.size

    def project(self, u: Tensor) -> Tensor:
        """The projection of ``u`` ``(B, cones·size)`` in closed form, by its three branches."""
        blocks = u.reshape(u.shape[0], self.cones, self.size)
        t, z = blocks[..., :1], blocks[..., 1:]
        norm = z.norm(dim=-1, keepdim=True)
        half = 0.5 * (t + norm)
        between = torch.cat([half, half * (z / _nonzero(norm))], dim=-1)
        inside = norm <= t
        polar = norm <= -t
        s = torch.where(polar, torch.zeros_like(blocks), torch.where(inside, blocks, between))
        return s.reshape(u.shape)

    def derivative(self, u: Tensor) -> SecondOrderDerivative:
        """DΠ_K(u); at the apex and on the polar cone's boundary the zero matrix."""
        blocks = u.reshape(u.shape[0], self.cones, self.size)
        t, z = blocks[..., :1], blocks[..., 1:]
        norm = z.norm(dim=-1, keepdim=True)
        rest = 0.5 * (1.0 + t / _nonzero(norm))
        between = torch.cat([torch.ones_like(t), torch.zeros_like(t), rest], dim=-1)
        ones = torch.ones_like(between)
        eigenvalues = torch.where(norm <= t, ones, between)
        eigenvalues = torch.where(norm <= -t, torch.zeros_like(ones), eigenvalues)
        return SecondOrderDerivative(z / _nonzero(norm), eigenvalues)


def _nonzero(norm: Tensor) -> Tensor:
    return torch.where(norm > 0, norm, torch.ones_like(norm))
