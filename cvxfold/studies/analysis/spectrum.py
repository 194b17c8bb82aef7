"""The spectrum of Φ on the subspace that a loss gradient reaches, by products with Φᵀ only.

Arnoldi's process from ū builds Φᵀ V = V H with orthonormal V; the Krylov space that it spans is the smallest
invariant subspace with ū in it, and what lies outside (redundant equalities, for instance, give eigenvalues
1 there) plays no part in any backward pass of this loss. Where the process ends by itself the eigenvalues of
H are exact; where it is cut off they are Ritz values, which find the outermost eigenvalues first (Saad,
"Numerical Methods for Large Eigenvalue Problems", 2011, chapter 6).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cvxfold.methods import Linearization
from cvxfold.methods.krylov import orthogonalized

MOST_STEPS = 400
_EXHAUSTED = 1e-11  # a new direction smaller than this, relatively, is rounding
_LOOK_EVERY = 20

Array = np.ndarray


@dataclass(frozen=True)
class Krylov:
    """What Arnoldi's process found for one instance.

    Args:
        H: the projection of Φᵀ, ``(k + 1, k)``; its last row is zero where the process ended by itself.
    """

    H: Array

    @property
    def square(self) -> Array:
        """Vᵀ Φᵀ V, ``(k, k)``."""
        return self.H[:-1]

    @property
    def complete(self) -> bool:
        """Whether the space is invariant."""
        return not self.H.size or not self.H[-1].any()

    def eigenvalues(self, tol: float) -> Array:
        """The eigenvalues with a share of ū of more than ``tol``, the largest first."""
        values, vectors = np.linalg.eig(self.square)
        if not len(values):
            return values
        first = np.eye(len(values), 1)
        try:
            shares = np.abs(np.linalg.solve(vectors, first)).ravel()
        except np.linalg.LinAlgError:  # a Jordan block: its eigenvectors are one
            shares = np.abs(np.linalg.lstsq(vectors, first, rcond=None)[0]).ravel()
        kept = values[shares > tol]
        return kept[np.argsort(-np.abs(kept), kind="stable")]


def arnoldi(phi: Linearization, start: Tensor, most: int = MOST_STEPS) -> list[Krylov]:
    """Arnoldi's process with Φᵀ for every instance of a batch.

    Args:
        phi: the linearization.
        start: ū, ``(B, m)``. Where it is zero the space is empty.
        most: steps at most.
    """
    batch, m = start.shape
    steps = min(most, m)
    norm = start.norm(dim=-1, keepdim=True)
    basis = start.new_zeros(batch, steps + 1, m)
    basis[:, 0] = torch.where(norm > 0, start / norm, 0.0)
    H = start.new_zeros(batch, steps + 1, steps)
    for k in range(steps):
        v = phi.vjp(basis[:, k])
        before = v.norm(dim=-1)
        v, H[:, : k + 1, k] = orthogonalized(v, basis[:, : k + 1])
        size = v.norm(dim=-1)
        # The whole space has no further direction; what is left then is rounding, however large it seems.
        going = (size > _EXHAUSTED * before.clamp_min(1.0)) & (k + 1 < m)
        H[:, k + 1, k] = torch.where(going, size, 0.0)
        basis[:, k + 1] = torch.where(going.unsqueeze(-1), v / size.unsqueeze(-1), 0.0)
        if k % _LOOK_EVERY == _LOOK_EVERY - 1 and not bool(going.any()):
            break
    return [_ended(matrix) for matrix in H.cpu().numpy()]


def _ended(H: Array) -> Krylov:
    """Up to the step at which the space was exhausted."""
    steps = H.shape[1]
    subdiagonal = H[np.arange(1, steps + 1), np.arange(steps)]
    stops = np.flatnonzero(subdiagonal == 0)
    size = int(stops[0]) + 1 if len(stops) else steps
    if size and not H[:, 0].any():
        size = 0  # ū = 0
    return Krylov(H[: size + 1, :size])
