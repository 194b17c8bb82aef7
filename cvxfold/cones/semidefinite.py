"""The semidefinite cone, many matrices of one order at a time.

A symmetric matrix X of order k stands as its lower triangle, column by column, off-diagonals times √2
(SCS's svec), so that inner products agree. With X = Q diag(ω) Qᵀ the projection is Q diag(ω⁺) Qᵀ, and the
derivative has the eigenvectors Q (eᵢeⱼᵀ + eⱼeᵢᵀ) Qᵀ with the eigenvalues

    Ωᵢⱼ = (ωᵢ⁺ − ωⱼ⁺) / (ωᵢ − ωⱼ)

between 0 and 1 (Löwner's theorem; Sun and Sun, "Semismooth matrix-valued functions", 2002), so
f(D) V = Q (f(Ω) ∘ QᵀVQ) Qᵀ. The second derivative is (Daleckii and Krein; Higham, "Functions of
Matrices", 2008, chapter 3), with Ṽ = QᵀVQ, G̃ = QᵀGQ and the second divided differences of max(·, 0),

    D²Π(X)[V, G] = Q Z Qᵀ,      Zᵢⱼ = Σₖ [ωᵢ, ωₖ, ωⱼ] (Ṽᵢₖ G̃ₖⱼ + G̃ᵢₖ Ṽₖⱼ)
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones.base import SpectralFunction


@dataclass(frozen=True)
class SemidefiniteDerivative(Batched):
    """D by its eigenvectors and eigenvalues.

    Args:
        Q: eigenvectors of the matrices as columns, ``(B, cones, k, k)``.
        eigenvalues: Ω, ``(B, cones, k, k)``.
    """

    Q: Tensor
    eigenvalues: Tensor

    def apply(self, f: SpectralFunction, v: Tensor) -> Tensor:
        """f(D) v for ``v`` of shape ``(B, rows)`` or ``(B, rows, l)``."""
        batch, cones, order, _ = self.Q.shape
        columns = v if v.ndim == 3 else v.unsqueeze(-1)
        entries = order * (order + 1) // 2
        V = _matrices(columns.mT.reshape(v.shape[0], columns.shape[2], cones, entries), order)
        Q = self.Q.unsqueeze(1)
        rotated = f(self.eigenvalues).unsqueeze(1) * (Q.mT @ V @ Q)
        out = _triangles(Q @ rotated @ Q.mT).reshape(batch, columns.shape[2], cones * entries).mT
        return out.reshape(batch, *v.shape[1:])

    def spread(self, f: SpectralFunction, terms: Tensor, signs: Tensor) -> Tensor:
        """f(D) v with the largest of each matrix's ``terms`` ``(B, rows)`` for all of its entries of v."""
        blocks = terms.reshape(len(terms), self.Q.shape[1], -1)
        most = blocks.amax(-1, keepdim=True).expand_as(blocks)
        return self.apply(f, signs * most.reshape(terms.shape))


@dataclass(frozen=True)
class Semidefinite:
    """A product of ``cones`` cones of positive semidefinite matrices of one ``order``, its own dual."""

    cones: int
    order: int

    @property
    def dim(self) -> int:
        """Rows of the product."""
        return self.cones * (self.order * (self.order + 1) // 2)

    def project(self, u: Tensor) -> Tensor:
        """The projection of ``u`` ``(B, rows)``, by an eigendecomposition of each matrix."""
        triangles = u.reshape(len(u), self.cones, -1)
        omega, Q = _eigh(_matrices(triangles, self.order))
        s = _triangles((Q * omega.clamp_min(0).unsqueeze(-2)) @ Q.mT)
        inside = (omega >= 0).all(-1, keepdim=True)  # leave these as they are, to the last bit
        return torch.where(inside, triangles, s).reshape(u.shape)

    def interior(self, u: Tensor) -> Tensor:
        """The identity."""
        return _triangles(torch.eye(self.order, dtype=u.dtype, device=u.device)).repeat(self.cones)

    def derivative(self, u: Tensor) -> SemidefiniteDerivative:
        """DΠ_K(u); the eigenvalue 0 counts as negative where it stands alone."""
        omega, Q = _eigh(_matrices(u.reshape(len(u), self.cones, -1), self.order))
        positive = omega.clamp_min(0)
        gap = omega.unsqueeze(-1) - omega.unsqueeze(-2)
        rise = positive.unsqueeze(-1) - positive.unsqueeze(-2)
        same_sign = (omega > 0).unsqueeze(-1) == (omega > 0).unsqueeze(-2)
        both = (omega > 0).unsqueeze(-1).expand_as(gap).to(u.dtype)
        return SemidefiniteDerivative(
            Q, torch.where(same_sign, both, rise / torch.where(same_sign, torch.ones_like(gap), gap))
        )

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """D²Π_K(u)[v, w] for ``(B, rows)`` each, with k³ divided differences for each matrix."""
        X, V, G = (_matrices(x.reshape(len(x), self.cones, -1), self.order) for x in (u, v, w))
        omega, Q = _eigh(X)
        V, G = Q.mT @ V @ Q, Q.mT @ G @ Q
        products = V.unsqueeze(-1) * G.unsqueeze(-3) + G.unsqueeze(-1) * V.unsqueeze(-3)
        Z = (_second_differences(omega) * products).sum(-2)
        return _triangles(Q @ Z @ Q.mT).reshape(u.shape)

    def margin(self, u: Tensor) -> Tensor:
        """The smallest |ωᵢ| of each matrix, which is its distance to the singular ones."""
        triangles = u.reshape(len(u), self.cones, -1)
        omega, _ = _eigh(_matrices(triangles, self.order))
        return omega.abs().amin(-1, keepdim=True).expand_as(triangles).reshape(u.shape)


def _second_differences(omega: Tensor) -> Tensor:
    """[ωᵢ, ωₖ, ωⱼ] of max(·, 0) for eigenvalues ``(..., k)``; ``(..., k, k, k)``.

    With h ≥ m ≥ l the three in order, (f[h, m] − f[m, l]) / (h − l) is, without its cancellation,

        −l / ((m − l) (h − l))   if m > 0 ≥ l        h / ((h − m) (h − l))   if h > 0 ≥ m

    and 0 if all have one sign. An eigenvalue that cannot be told from 0 counts as 0, as its sign is noise.
    """
    noise = omega.shape[-1] * torch.finfo(omega.dtype).eps * omega.abs().amax(-1, keepdim=True)
    omega = torch.where(omega.abs() <= noise, torch.zeros_like(omega), omega)
    i, k, j = omega[..., :, None, None], omega[..., None, :, None], omega[..., None, None, :]
    low, high = torch.minimum(i, k), torch.maximum(i, k)
    middle = torch.maximum(low, torch.minimum(high, j))
    low, high = torch.minimum(low, j), torch.maximum(high, j)
    one = torch.ones_like(middle)
    two_up = middle > 0
    mixed = (high > 0) & ~(low > 0)
    near = torch.where(mixed, torch.where(two_up, middle - low, high - middle), one)
    far = torch.where(mixed, high - low, one)
    return torch.where(mixed, torch.where(two_up, -low, high), 0 * omega[..., :, None, None]) / near / far


def _eigh(X: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors; NaN where the matrix is not finite."""
    finite = X.isfinite().all(-1).all(-1)
    omega, Q = torch.linalg.eigh(torch.where(finite[..., None, None], X, torch.zeros_like(X)))
    return torch.where(finite[..., None], omega, torch.nan), Q


@lru_cache(maxsize=64)
def _packing(order: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each entry of the matrix its place in the triangle and factor, and the other way round."""
    with torch.inference_mode(False):  # made under it they could not serve a backward pass later
        columns, rows = torch.triu_indices(order, order, device=device)
        place = torch.zeros(order, order, dtype=torch.long, device=device)
        place[rows, columns] = place[columns, rows] = torch.arange(len(rows), device=device)
        factor = torch.full((order, order), 0.5**0.5, dtype=dtype, device=device).fill_diagonal_(1.0)
        return place.flatten(), factor, rows * order + columns, 1 / factor[rows, columns]


def _matrices(v: Tensor, order: int) -> Tensor:
    """Symmetric matrices ``(..., order, order)`` for scaled triangles ``(..., order (order + 1)/2)``."""
    place, factor, _, _ = _packing(order, v.dtype, v.device)
    return v.index_select(-1, place).unflatten(-1, (order, order)) * factor


def _triangles(X: Tensor) -> Tensor:
    """The scaled triangles of symmetric matrices."""
    _, _, flat, factor = _packing(X.shape[-1], X.dtype, X.device)
    return X.flatten(-2).index_select(-1, flat) * factor
