"""The second-order cone {(t, z) : ‖z‖ ≤ t}, many of one size at a time.

With ẑ = z/‖z‖ the projection has the orthonormal eigenvectors a = (1, ẑ)/√2 and c = (1, −ẑ)/√2 in the
plane of u, and every direction orthogonal to both. Their eigenvalues are

    inside (‖z‖ ≤ t)      1, 1, 1
    polar  (‖z‖ ≤ −t)     0, 0, 0
    between               1, 0, λ = (1 + t/‖z‖)/2

(the spectral decomposition of the Jordan algebra of the cone: Alizadeh and Goldfarb, "Second-order cone
programming", 2003, section 4), so f(D) = f(λ) I + (f(d_a) − f(λ)) aaᵀ + (f(d_c) − f(λ)) ccᵀ.

Between the branches Π(u) = ½ (t + n) (1, ẑ) with n = ‖z‖. For v = (τ, aẑ + ζ) and w = (σ, bẑ + ξ) with ζ
and ξ orthogonal to ẑ, differentiating twice leaves, with c = t/n,

    D²Π(u)[v, w] = (ζᵀξ,  (τ − ca) ξ + (σ − cb) ζ − c ζᵀξ ẑ) / 2n
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones.base import SpectralFunction

_SQRT_HALF = 0.5**0.5
_MOST = 0.5  # of a unit vector


@dataclass(frozen=True)
class SecondOrderDerivative(Batched):
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
        w = v.reshape(v.shape[0], cones, tail + 1, prod(v.shape[2:]))
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

    def spread(self, f: SpectralFunction, terms: Tensor, signs: Tensor) -> Tensor:
        """Along a and c by |a|ᵀ and |c|ᵀ of ``terms`` ``(B, cones·size)``; of the rest entry by entry."""
        size = self.direction.shape[-1] + 1
        blocks, signs = terms.reshape(len(terms), -1, size), signs.reshape(-1, size)
        on_a, on_c, rest = f(self.eigenvalues).unbind(-1)
        most = _SQRT_HALF * (blocks[..., 0] + (self.direction.abs() * blocks[..., 1:]).sum(-1))
        out = signs * rest.unsqueeze(-1) * blocks
        along = (self.direction * out[..., 1:]).sum(-1)
        toward_a = signs[:, 0] * on_a * most - _SQRT_HALF * (out[..., 0] + along)
        toward_c = signs[:, -1] * on_c * most - _SQRT_HALF * (out[..., 0] - along)
        out[..., 0] += _SQRT_HALF * (toward_a + toward_c)
        out[..., 1:] += self.direction * (_SQRT_HALF * (toward_a - toward_c)).unsqueeze(-1)
        return out.reshape(terms.shape)

    def change(self, other: "SecondOrderDerivative", v: Tensor) -> Tensor:
        """(D' − D) v for ``v`` ``(B, cones·size)`` by what turns a and c.

        Between the branches, with a' = a + δ and c' = c − δ, δ = (0, ẑ' − ẑ)/√2,

            D' − D = (λ' − λ)(I − aaᵀ − ccᵀ) + (1 − λ')(δaᵀ + a'δᵀ) + λ'(δcᵀ + c'δᵀ)

        in which nothing along c is the difference of numbers that are nearly equal. Where ẑ₁ is nearly all
        of ẑ its change is that of 1 − |ẑ₁|, which the rest of ẑ tells exactly.
        """
        size = self.direction.shape[-1] + 1
        w, here, there = v.reshape(len(v), -1, size), self.direction, other.direction
        head, z = w[..., :1], w[..., 1:]
        turned = _difference(here, there)
        along, beside = (here * z).sum(-1, keepdim=True), (turned * z).sum(-1, keepdim=True)
        on_a, on_c, by_turn = (_SQRT_HALF * part for part in (head + along, head - along, beside))
        before, after = self.eigenvalues[..., 2:], other.eigenvalues[..., 2:]
        swing = _SQRT_HALF * ((1 - after) * on_a + after * on_c)
        out = (after - before) * self._tangent(z, along)
        out = out + swing * turned + _SQRT_HALF * (1 - 2 * after) * by_turn * there
        out = torch.cat([_SQRT_HALF * by_turn, out], -1)
        plain = other.apply(_itself, v) - self.apply(_itself, v)
        both = (self.between & other.between).unsqueeze(-1)
        return torch.where(both, out, plain.reshape(w.shape)).reshape(v.shape)

    def violation(self, z: Tensor, v: Tensor) -> Tensor:
        """(I − D) z − D v of ``(B, cones·size)`` each, between the branches along each eigenvector alone.

        Along c that is cᵀz, of which v, however large, hides nothing; along a it is −aᵀv.
        """
        size = self.direction.shape[-1] + 1
        parts = [part.reshape(len(part), -1, size) for part in (z, v)]
        heads, tails = zip(*((part[..., :1], part[..., 1:]) for part in parts), strict=True)
        alongs = [(self.direction * tail).sum(-1, keepdim=True) for tail in tails]
        on_c, on_a = 0.5 * (heads[0] - alongs[0]), -0.5 * (heads[1] + alongs[1])
        of_z, of_v = (self._tangent(tail, along) for tail, along in zip(tails, alongs, strict=True))
        rest = self.eigenvalues[..., 2:]
        out = torch.cat([on_c + on_a, (1 - rest) * of_z - rest * of_v + (on_a - on_c) * self.direction], -1)
        plain = self.apply(_rest, z) - self.apply(_itself, v)
        return torch.where(self.between.unsqueeze(-1), out, plain.reshape(out.shape)).reshape(plain.shape)

    def _tangent(self, z: Tensor, along: Tensor) -> Tensor:
        """z − ẑẑᵀz for ẑᵀz; where ẑ₁ is most of ẑ, what is left of z₁ is told by the other entries."""
        tangent = z - along * self.direction
        if z.shape[-1] < 2:
            return torch.zeros_like(tangent)
        first, others = self.direction[..., :1], self.direction[..., 1:]
        most = first.abs() > _MOST
        by_rest = -(others * tangent[..., 1:]).sum(-1, keepdim=True) / torch.where(most, first, 1.0)
        return torch.cat([torch.where(most, by_rest, tangent[..., :1]), tangent[..., 1:]], -1)

    @property
    def between(self) -> Tensor:
        """The cones between the branches, ``(B, cones)``."""
        return (self.eigenvalues[..., 0] == 1) & (self.eigenvalues[..., 1] == 0)


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

    def interior(self, u: Tensor) -> Tensor:
        """The axis (1, 0)."""
        axis = u.new_zeros(self.cones, self.size)
        axis[:, 0] = 1.0
        return axis.flatten()

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

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """D²Π_K(u)[v, w] for ``(B, cones·size)`` each; zero inside K and its polar."""
        blocks, v, w = (x.reshape(len(x), self.cones, self.size) for x in (u, v, w))
        t, z = blocks[..., :1], blocks[..., 1:]
        norm = z.norm(dim=-1, keepdim=True)
        direction, c = z / _nonzero(norm), t / _nonzero(norm)
        a = (direction * v[..., 1:]).sum(-1, keepdim=True)
        b = (direction * w[..., 1:]).sum(-1, keepdim=True)
        zeta, xi = v[..., 1:] - a * direction, w[..., 1:] - b * direction
        inner = (zeta * xi).sum(-1, keepdim=True)
        tail = (v[..., :1] - c * a) * xi + (w[..., :1] - c * b) * zeta - c * inner * direction
        between = torch.cat([inner, tail], dim=-1) / (2 * _nonzero(norm))
        return torch.where(norm <= t.abs(), torch.zeros_like(between), between).reshape(u.shape)

    def margin(self, u: Tensor) -> Tensor:
        """The distance to the nearer of the boundaries ‖z‖ = t and ‖z‖ = −t of K and its polar."""
        blocks = u.reshape(u.shape[0], self.cones, self.size)
        t, norm = blocks[..., :1].abs(), blocks[..., 1:].norm(dim=-1, keepdim=True)
        nearest = (norm - t).abs() * _SQRT_HALF if self.size > 1 else t
        return nearest.expand_as(blocks).reshape(u.shape)


def _itself(d: Tensor) -> Tensor:
    return d


def _rest(d: Tensor) -> Tensor:
    return 1 - d


def _difference(here: Tensor, there: Tensor) -> Tensor:
    """ẑ' − ẑ of unit vectors ``(B, cones, k)``, the first entry by the others where its sign is the same."""
    turned = there - here
    if turned.shape[-1] < 2:
        return turned
    short = [
        direction[..., 1:].square().sum(-1) / (1 + direction[..., 0].abs()) for direction in (here, there)
    ]
    by_rest = (short[0] - short[1]) * there[..., 0].sign()
    same = here[..., 0] * there[..., 0] > 0
    turned[..., 0] = torch.where(same, by_rest, turned[..., 0])
    return turned


def _nonzero(norm: Tensor) -> Tensor:
    return torch.where(norm > 0, norm, torch.ones_like(norm))
