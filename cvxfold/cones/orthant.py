"""The zero cone {0} and the nonnegative orthant: separable cones with a diagonal derivative."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones.base import SpectralFunction


@dataclass(frozen=True)
class DiagonalDerivative(Batched):
    """D = diag(d), ``d`` of shape ``(B, m)``."""

    d: Tensor

    def apply(self, f: SpectralFunction, v: Tensor) -> Tensor:
        """f(d) ∘ v."""
        weight = f(self.d)
        return weight * v if v.ndim == 2 else weight.unsqueeze(-1) * v

    def spread(self, f: SpectralFunction, terms: Tensor, signs: Tensor) -> Tensor:
        """signs ∘ f(d) ∘ terms."""
        return signs * f(self.d) * terms


@dataclass(frozen=True)
class Zero:
    """K = {0}ᵐ, the cone of equalities. K* = Rᵐ."""

    dim: int

    def project(self, u: Tensor) -> Tensor:
        """Zero, wherever u is."""
        return torch.zeros_like(u)

    def interior(self, u: Tensor) -> Tensor:
        """Zero."""
        return u.new_zeros(self.dim)

    def derivative(self, u: Tensor) -> DiagonalDerivative:
        """D = 0."""
        return DiagonalDerivative(torch.zeros_like(u))

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """Zero: Π is linear."""
        return torch.zeros_like(u)

    def margin(self, u: Tensor) -> Tensor:
        """Infinite: there is no kink."""
        return torch.where(u.isnan(), u, torch.inf)


@dataclass(frozen=True)
class Nonnegative:
    """K = {s : s ≥ 0}, its own dual."""

    dim: int

    def project(self, u: Tensor) -> Tensor:
        """max(u, 0)."""
        return u.clamp_min(0.0)

    def interior(self, u: Tensor) -> Tensor:
        """All ones."""
        return u.new_ones(self.dim)

    def derivative(self, u: Tensor) -> DiagonalDerivative:
        """1 where u > 0, else 0 (at the kink u = 0 as well)."""
        return DiagonalDerivative((u > 0).to(u.dtype))

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """Zero: Π is linear but for its kinks."""
        return torch.zeros_like(u)

    def margin(self, u: Tensor) -> Tensor:
        """|u|, row by row."""
        return u.abs()
