"""How many iterations each method will need, from the projection H of Φᵀ on the Krylov space of ū.

With Φᵀ V = V H, V orthonormal and ū = ‖ū‖ V e₁, the iterates of a method that knows Φᵀ by its products alone
are V z, and z takes the same steps for H and e₁. So LFPI (and unrolling) leaves the residual

    ‖Hᵏ e₁‖        after k steps, which tends to ρ(Φ)ᵏ,

and any other method can be tried on H. This is exact where the space is invariant, and up to its dimension
where it was cut off.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.methods import METHODS, AdjointMethod, AdjointSettings, AdjointSolution
from cvxfold.studies.analysis.result import Forecast
from cvxfold.studies.analysis.spectrum import Krylov

_VISIBLE = 1e-9  # a mode with a smaller share of ū is below any tolerance before it shows
_SHOWN = 6  # leading eigenvalues
_PRODUCTS = {"anderson": 1, "gmres": 1, "bicgstab": 2}  # with Φᵀ, an iteration
_DOUBLINGS = 40  # 2⁴⁰ iterations are more than anybody will do
_CONTRACTING = 1 - 1e-12
_SINGULAR = 1e-12  # distance of an eigenvalue from 1
_TRIED = 600  # iterations that are tried; what is missing then is extrapolated
_PROGRESS = 1 - 1e-6  # of the residual over half of these, or it will not get there

Array = np.ndarray


def spectra_of(krylovs: Sequence[Sequence[Krylov]]) -> list[Array]:
    """The eigenvalues of each instance, the largest first, where there is a Krylov space for each loss."""
    by_loss = [[krylov.eigenvalues(_VISIBLE) for krylov in one] for one in krylovs]
    # A mode that one loss hardly excites another one may.
    return [max(found, key=_radius) for found in zip(*by_loss, strict=True)]


def radii_of(spectra: Sequence[Array]) -> Array:
    """The spectral radius of each instance, ``(B,)``."""
    return np.array([_radius(values) for values in spectra])


def leading(spectra: Sequence[Array], like: Tensor) -> Tensor:
    """The leading eigenvalues of each instance, ``(B, k)``, NaN where there are fewer."""
    count = min(_SHOWN, max((len(values) for values in spectra), default=0))
    out = np.full((len(spectra), count), complex(math.nan, math.nan))
    for row, values in zip(out, spectra, strict=True):
        row[: min(count, len(values))] = values[:count]
    return torch.as_tensor(out, device=like.device)


def forecasts(
    krylovs: Sequence[Sequence[Krylov]], spectra: Sequence[Array], usual: AdjointSolution, tol: float
) -> list[Forecast]:
    """Iterations of each method, by instance.

    Args:
        krylovs: for each loss one for each instance.
        spectra: the eigenvalues of each instance.
        usual: what the default method came to.
        tol: on the residual.
    """
    radii, distances = radii_of(spectra), _distances(spectra)
    lfpi = [
        np.median([lfpi_iterations(krylov, float(radius), tol) for krylov in of_losses])
        for of_losses, radius in zip(zip(*krylovs, strict=True), radii, strict=True)
    ]
    tried = {
        name: np.median(
            [tried_iterations(METHODS[name], each, one, distances, tol) for one in krylovs], axis=0
        )
        for name, each in _PRODUCTS.items()
    }
    return [
        Forecast("unrolled", as_tensor(lfpi, usual.w)),
        Forecast("lfpi", as_tensor(lfpi, usual.w)),
        *(Forecast(name, as_tensor(iterations, usual.w)) for name, iterations in tried.items()),
        Forecast("auto", torch.where(usual.converged, usual.iterations, math.inf).to(usual.w.dtype)),
    ]


def as_tensor(numbers: Sequence[float] | Array, like: Tensor) -> Tensor:
    """Numbers as a tensor of another one's type and device."""
    return torch.as_tensor(np.asarray(numbers, float), dtype=like.dtype, device=like.device)


def _distances(spectra: Sequence[Array]) -> Array:
    """How far the nearest eigenvalue of each instance is from 1, ``(B,)``."""
    return np.array([float(np.abs(1 - values).min()) if len(values) else 1.0 for values in spectra])


def _radius(eigenvalues: Array) -> float:
    return float(abs(eigenvalues[0])) if len(eigenvalues) else 0.0


def lfpi_iterations(krylov: Krylov, radius: float, tol: float) -> float:
    """The first iteration with a residual of at most ``tol``; infinite where there will be none.

    By repeated squaring: 2ʲ steps are taken wherever the residual is still above ``tol`` after them. It may
    have been below before and risen again; where the steps are few that is looked for one by one.
    """
    H = krylov.square
    if not len(H):
        return 1.0
    if not radius < _CONTRACTING:
        return math.inf
    powers = [H]
    while len(powers) < _DOUBLINGS and np.linalg.norm(powers[-1][:, 0]) > tol:
        powers.append(powers[-1] @ powers[-1])
    v, taken = np.eye(len(H), 1).ravel(), 0
    for j in range(len(powers) - 1, -1, -1):
        ahead = powers[j] @ v
        if np.linalg.norm(ahead) > tol:
            v, taken = ahead, taken + 2**j
    v = np.eye(len(H), 1).ravel()
    for k in range(1, min(taken, _TRIED) + 1):
        v = H @ v
        if np.linalg.norm(v) <= tol:
            return float(k)
    return float(taken + 1)


def tried_iterations(
    method: AdjointMethod, products: int, krylovs: Sequence[Krylov], distances: Array, tol: float
) -> Array:
    """The same for a method that is tried on the projections, ``(B,)``.

    Args:
        method: one that needs no approximate inverse.
        products: with Φᵀ that it takes an iteration.
        krylovs: one for each instance.
        distances: of the eigenvalue next to 1, from 1, ``(B,)``; at 0 the system is singular and has no
            solution.
        tol: on the residual.
    """
    size = max((len(krylov.square) for krylov in krylovs), default=0)
    if not size:
        return np.ones(len(krylovs))
    H = torch.zeros(len(krylovs), size, size, dtype=torch.float64, device="cpu")
    start = torch.zeros(len(krylovs), size, dtype=torch.float64, device="cpu")
    for own, first, krylov in zip(H, start, krylovs, strict=True):
        reach = len(krylov.square)
        own[:reach, :reach] = torch.from_numpy(krylov.square)
        first[:1] = float(reach > 0)
    history = method.solve(_Projection(H), start, AdjointSettings(tol, _TRIED)).history.numpy()
    found = np.ones(len(krylovs))
    for i, (krylov, distance) in enumerate(zip(krylovs, distances, strict=True)):
        reach = len(krylov.square)
        if not distance > _SINGULAR:
            found[i] = math.inf
        elif reach:
            known = _TRIED if krylov.complete else max(1, (reach - 1) // products)
            found[i] = _extended(history[:, i], min(known, _TRIED), tol)
    return found


def _extended(history: Array, known: int, tol: float) -> float:
    """The first step that meets ``tol``; after those that are ``known`` at the pace of their second half."""
    residuals = np.minimum.accumulate(history[np.isfinite(history)][:known])
    met = np.flatnonzero(residuals <= tol)
    if len(met):
        return float(met[0] + 1)
    half = len(residuals) // 2
    if len(residuals) < known or not residuals[-1] < _PROGRESS * residuals[half]:
        return math.inf  # the method has given up, or stands still
    pace = math.log(residuals[-1] / residuals[half]) / (len(residuals) - 1 - half)
    return float(len(residuals) + math.ceil(math.log(tol / residuals[-1]) / pace))


@dataclass(frozen=True)
class _Projection(Batched):
    """Φᵀ on the Krylov spaces of a batch: H ``(B, k, k)``, zero beyond each one's space."""

    H: Tensor

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀ w for ``w`` ``(B, k)``."""
        return (self.H @ w.unsqueeze(-1)).squeeze(-1)

    def jvp(self, v: Tensor) -> Tensor:
        """Not to be had: what Φ v is outside of the space is not known."""
        raise NotImplementedError("a projection of Φᵀ knows no products with Φ")

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """Not to be had."""
        raise NotImplementedError("a projection of Φᵀ has no approximate inverse")
