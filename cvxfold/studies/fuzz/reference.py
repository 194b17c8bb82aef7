"""The truth about an instance, in plain numpy: is its solution nondegenerate, and what is the gradient?

At the known solution, in (x, u) with s = Π(u), y = s − u and D = DΠ(u),

    E' = [[P, Aᵀ(D − I)], [A, D]],      E'ᵀ(p, v) = (x̄, 0),
    q̄ = −p    b̄ = v    Ā = −(v xᵀ + y pᵀ)    L̄ = −(L p xᵀ + L x pᵀ),

x̄ the loss's weight. E' is equilibrated, factored by its singular values, and the adjoint refined with
residuals in long double. Nothing here is shared with the rest of cvxfold.

The data were rounded after they had been made from the drawn solution; where the loss looks at what is small
that is felt. So the solution of the data as they are is found first, in long double.

An instance is *nondegenerate* where the condition number of the equilibrated E', times the inverse of u's
distance to a kink, is at most 1e10. Elsewhere there may be no gradient, and what is right is decided so:

- On a kink, and next to one, E' is taken at several points around u. The data b and q can move u to each of
  them, so a gradient is right only if it is that of all of these sides.
- Where E' is singular, and all its left null vectors belong to dependent equations, right-hand sides can move
  consistently only: gradients are compared along such movements, that is, orthogonally to these vectors.
  The same holds for rows 0ᵀx ≤ 0, and alike ones in other cones: their right-hand sides can grow only, and
  that has no effect. And where a row without a multiplier (on a kink) is tied to dependent equations, data
  that have a solution move to one side only.
- Where E' is singular otherwise, a solution or a multiplier is not unique, and movements of b or q (which are
  parameters in all of these programs) tell them apart: no gradient is right.
"""

from dataclasses import dataclass

import numpy as np

from cvxfold.studies.fuzz.cones import Array, ReferenceCone, Wide, complementary, cones_of, project_product
from cvxfold.studies.fuzz.structure import Dims

WORST_CONDITION = 1e10
_NULL = 1e-12  # singular values below this times the largest are none
_SIDES = 6
_NEWTON_STEPS = 6
_KINK = 1e-6  # a margin below this, relative to u


@dataclass(frozen=True)
class ReferenceAdjoint:
    """A gradient in few numbers: p ``(n,)`` and v ``(m,)``, or why there is none.

    Args:
        condition: of E', without its null space.
        null: left null vectors of dependent equations, orthonormal, ``(m, k)``.
        unique: whether there are no other left null vectors.
    """

    p: Array
    v: Array
    condition: float
    null: Array
    unique: bool


@dataclass(frozen=True)
class Truth:
    """What is known of a solvable instance.

    Args:
        sides: the adjoint at the solution; on a kink, of several points around it.
        margin: distance of u to the nearest kink, relative to u's block.
        nondegenerate: whether the solution is unique and has a derivative, by a visible margin.
    """

    sides: list[ReferenceAdjoint]
    margin: float
    nondegenerate: bool

    @property
    def differentiable(self) -> bool:
        """Whether there may be a gradient at all."""
        return bool(self.sides) and all(side.unique for side in self.sides)


def examine(P: Array, A: Array, dims: Dims, u: Array, weight: Array) -> Truth:
    """The truth at u ``(m,)`` for the loss ⟨weight, x⟩."""
    cones = cones_of(dims)
    near = margin(cones, u)
    tied = _tied_rows(A, dims, u)
    D = slopes(cones, u)
    if near > _KINK and np.isfinite(D).all():
        side = adjoint(P, A, D, weight, tied)
        clear = side.condition * max(1.0, 1 / near) <= WORST_CONDITION
        return Truth([side], near, clear and side.unique and not side.null.size)
    rng = np.random.default_rng(len(u))
    sides = []
    for _ in range(_SIDES):
        around = u.copy()
        for cone in cones:
            size = _size(u[cone.rows])
            around[cone.rows] += max(1e-8, 10 * near) * size * rng.standard_normal(len(u[cone.rows]))
        D = slopes(cones, around)
        if np.isfinite(D).all():
            sides.append(adjoint(P, A, D, weight, tied))
    return Truth(sides, near, False)


def at_the_data(
    dims: Dims, data: tuple[Array, Array, Array, Array], x: Array, u: Array
) -> tuple[Array, Array]:
    """(x, u) that solve P x + q + Aᵀy = 0 and A x + s = b, P = LᵀL, in long double.

    By Newton's method with one E', which has to be regular.

    Args:
        data: L, A, q and b in long double, taken to be exact. x, u: near by, ``(n,)`` and ``(m,)``.
    """
    cones = cones_of(dims)
    L, A, q, b = data
    x, u = x.astype(Wide), u.astype(Wide)
    J = kkt_jacobian(L.T @ L, A, slopes(cones, u)).astype(float)
    R, C = _equilibration(J)
    inverse = np.linalg.pinv(R[:, None] * J * C)
    for _ in range(_NEWTON_STEPS):
        s = project_product(cones, u)
        left = np.append(L.T @ (L @ x) + q + A.T @ (s - u), A @ x + s - b)
        step = C * (inverse @ (R * left))
        x, u = x - step[: len(x)], u - step[len(x) :]
    return x, u


def adjoint(P: Array, A: Array, D: Array, weight: Array, tied: Array) -> ReferenceAdjoint:
    """The adjoint of least norm, and what there is of a null space.

    Args:
        P, A, D: ``(n, n)``, ``(m, n)``, ``(m, m)``. weight: of the loss, ``(n,)``.
        tied: rows whose right-hand sides can move consistently only, ``(m,)`` of bool.
    """
    m, n = A.shape
    wide = kkt_jacobian(P, A, D).astype(Wide)
    J = wide.astype(float)
    R, C = _equilibration(J)
    U, S, Vt = np.linalg.svd(R[:, None] * J * C)
    largest = max(float(S[0]), 1e-300)
    kept = S / largest > _NULL
    rhs, z = np.append(weight, np.zeros(m)), np.zeros(n + m, Wide)
    for _ in range(4):
        residual = rhs - wide.T @ z
        z = z + R * (U[:, kept] @ ((Vt[kept] @ (C * residual)) / S[kept]))
    left = R[:, None] * U[:, ~kept]
    left, _ = np.linalg.qr(left)
    elsewhere = left[~np.append(np.zeros(n, bool), tied)]
    unique = bool(np.abs(elsewhere).max(initial=0.0) < 1e-8)
    # The system has no solution where the loss looks at what is not unique.
    unique = unique and bool(np.linalg.norm(rhs - J.T @ z) <= 1e-6 * np.linalg.norm(weight))
    condition = largest / float(S[kept].min(initial=largest))
    return ReferenceAdjoint(z[:n], z[n:], condition, left[n:] if unique else np.zeros((m, 0)), unique)


def condition(P: Array, A: Array, dims: Dims, u: Array) -> float:
    """Condition number of the equilibrated E'; infinite where it is singular."""
    J = kkt_jacobian(P, A, slopes(cones_of(dims), u))
    R, C = _equilibration(J)
    S = np.linalg.svd(R[:, None] * J * C, compute_uv=False)
    return float(S[0] / S[-1]) if S[-1] > 0 else np.inf


def kkt_jacobian(P: Array, A: Array, D: Array) -> Array:
    """E' ``(n + m, n + m)``."""
    return np.block([[P, A.T @ (D - np.eye(len(D)))], [A, D]])


def _tied_rows(A: Array, dims: Dims, u: Array) -> Array:
    """Equations, rows without a multiplier, rows of zeros that have all of their cone's; ``(m,)`` of bool."""
    rows = np.arange(len(u))
    polyhedral, empty = rows < dims.zero + dims.nonneg, np.asarray(~A.any(axis=1))
    cones = cones_of(dims)
    _, y = complementary(cones, u)
    tied: Array = (rows < dims.zero) | (polyhedral & (empty | (y <= 1e-12)))
    for cone in cones:
        if cone.rows.start >= dims.zero + dims.nonneg:
            multiplier = y[cone.rows]
            if not multiplier.any():
                tied[cone.rows] = True
            elif not multiplier[~empty[cone.rows]].any():
                tied[cone.rows] |= empty[cone.rows]
    return tied


def slopes(cones: list[ReferenceCone], u: Array) -> Array:
    """D = DΠ(u), ``(m, m)``."""
    D = np.zeros((len(u), len(u)), u.dtype)
    for cone in cones:
        D[cone.rows, cone.rows] = cone.project(u[cone.rows])[1]
    return D


def margin(cones: list[ReferenceCone], u: Array) -> float:
    """About how far u is from the nearest kink, relative to the size of its block there."""
    return min((cone.project(u[cone.rows])[2] / _size(u[cone.rows]) for cone in cones), default=np.inf)


def _size(block: Array) -> float:
    return max(float(np.linalg.norm(block)) / np.sqrt(len(block)), 1e-2)


def _equilibration(J: Array) -> tuple[Array, Array]:
    """Row and column factors that bring all largest entries near to one; rows of zeros keep theirs."""
    R, C = np.ones(len(J)), np.ones(len(J))
    for _ in range(5):
        M = np.abs(R[:, None] * J * C)
        rows, columns = M.max(axis=1), M.max(axis=0)
        R /= np.sqrt(np.where(rows > 1e-12, rows, 1.0))
        C /= np.sqrt(np.where(columns > 1e-12, columns, 1.0))
    return R, C
