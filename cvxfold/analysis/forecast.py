"""How many iterations each method will need, from the projection H of Φᵀ on the Krylov space of ū.

With Φᵀ V = V H and ū = ‖ū‖ V e₁:

    LFPI and unrolling   residual after k steps      ‖Hᵏ e₁‖                       tends to ρ(Φ)ᵏ
    GMRES                residual after k steps      min over z of ‖e₁ − (I − H)ₖ z‖

with (I − H)ₖ the leading (k + 1) × k part. Both are exact where the space is invariant.
"""

import math

import numpy as np

from cvxfold.analysis.spectrum import Krylov

_DOUBLINGS = 40  # 2⁴⁰ iterations are more than anybody will do
_CONTRACTING = 1 - 1e-12
_SINGULAR = 1e-11

Array = np.ndarray


def lfpi_iterations(krylov: Krylov, radius: float, tol: float) -> float:
    """Iterations until the residual is at most ``tol``; infinite where it will not be.

    By repeated squaring: 2ʲ steps are taken wherever the residual is still above ``tol`` after them. One
    more iteration is counted, as the residual of w is known when the next w is.
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
    return float(taken + 2)


def gmres_iterations(krylov: Krylov, restart: int, tol: float) -> float:
    """Iterations of GMRES with restarts; where a cycle is not enough the next ones gain as much as it did."""
    residuals = gmres_residuals(krylov)[: restart + 1]
    met = np.flatnonzero(residuals <= tol)
    if len(met):
        return float(max(met[0], 1))
    if len(residuals) <= restart and (krylov.complete or len(residuals) <= krylov.H.shape[1]):
        return math.inf  # the space is exhausted and the residual is still there: no solution
    gain = float(residuals[-1])
    if not 0 < gain < 1:
        return math.inf
    return float(math.ceil((len(residuals) - 1) * math.log(tol) / math.log(gain)))


def gmres_residuals(krylov: Krylov) -> Array:
    """The relative residual after k = 0, 1, … steps of one cycle, by Givens rotations."""
    H, size = krylov.H, krylov.H.shape[1]
    S = np.eye(size + 1, size) - H
    rhs = np.eye(size + 1, 1).ravel()
    found = [1.0]
    for k in range(size):
        length = math.hypot(S[k, k], S[k + 1, k])
        if length <= _SINGULAR:
            return np.array(found)  # nothing can be gained along this direction, or any later one
        c, s = S[k, k] / length, S[k + 1, k] / length
        rotation = np.array([[c, s], [-s, c]])
        S[k : k + 2] = rotation @ S[k : k + 2]
        rhs[k : k + 2] = rotation @ rhs[k : k + 2]
        found.append(abs(float(rhs[k + 1])))
    return np.array(found)
