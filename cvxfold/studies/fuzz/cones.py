"""Projections for the references, one cone at a time, in plain numpy: Π(u), its Jacobian, and its kinks.

The roots are bisected in long double and the Jacobians come from the optimality conditions of the projection
problem, so nothing here is shared with the rest of cvxfold. What is given in long double is answered in long
double, to its precision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from typing import Protocol

import numpy as np

Array = np.ndarray
Projection = tuple[Array, Array, float]  # Π(u), DΠ(u), about how far u is from a kink
Wide = np.longdouble


def project_zero(u: Array) -> Projection:
    """{0}."""
    return np.zeros_like(u), np.zeros((len(u), len(u))), np.inf


def project_orthant(u: Array) -> Projection:
    """{s ≥ 0}."""
    return np.maximum(u, 0), np.diag((u > 0).astype(float)), float(np.abs(u).min(initial=np.inf))


def project_second_order(u: Array) -> Projection:
    """{(t, z) : ‖z‖ ≤ t}."""
    t, z, n = u[0], u[1:], len(u)
    r = np.linalg.norm(z)
    margin = float(min(abs(t - r), abs(t + r)) / np.sqrt(2))
    if r <= t:
        return u, np.eye(n), margin
    if r <= -t:
        return np.zeros_like(u), np.zeros((n, n)), margin
    e = z / r
    D = np.empty((n, n), u.dtype)
    D[0, 0], D[0, 1:], D[1:, 0] = 1.0, e, e
    D[1:, 1:] = (1 + t / r) * np.eye(n - 1) - (t / r) * np.outer(e, e)
    return 0.5 * (t + r) * np.append(1.0, e), 0.5 * D, margin


def triangle(order: int) -> tuple[Array, Array]:
    """Rows and columns of the lower triangle, column by column."""
    columns, rows = np.triu_indices(order)
    return rows, columns


def project_semidefinite(u: Array) -> Projection:
    """Symmetric matrices ⪰ 0 as lower triangles, column by column, off-diagonals times √2."""
    order = int((np.sqrt(8 * len(u) + 1) - 1) / 2)
    rows, columns = triangle(order)
    scale = np.where(rows == columns, 1, np.sqrt(u.dtype.type(2)))
    basis = np.zeros((len(u), order, order), u.dtype)
    basis[np.arange(len(u)), rows, columns] = basis[np.arange(len(u)), columns, rows] = 1 / scale
    X = np.tensordot(u, basis, 1)
    values, Q = _eigh(X)
    plus = np.maximum(values, 0)
    s = (Q * plus) @ Q.T
    parts = list(zip(values, plus, strict=True))
    ratio = np.array(
        [[(b - a) / (j - i) if (i > 0) != (j > 0) else float(i > 0) for j, b in parts] for i, a in parts]
    )
    turned = Q.T @ basis @ Q
    D = np.einsum("aij,ij,bij->ab", turned, ratio, turned)
    return s[rows, columns] * scale, D, float(np.abs(values).min())


def _eigh(X: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of a symmetric matrix.

    In long double Jacobi's rotations take those found in double to the end: two sweeps, as each squares what
    is left.
    """
    values, Q = np.linalg.eigh(X.astype(float))
    if X.dtype != Wide:
        return values, Q
    Q = Q.astype(Wide)
    for _ in range(2):  # Newton's method for QᵀQ = I
        Q = 1.5 * Q - 0.5 * Q @ (Q.T @ Q)
    S = Q.T @ X @ Q
    for _ in range(2):
        for i, j in combinations(range(len(S)), 2):
            if S[i, j] != 0:
                tau = (S[j, j] - S[i, i]) / (2 * S[i, j])
                tangent = (1 if tau >= 0 else -1) / (abs(tau) + np.hypot(Wide(1), tau))
                turn = np.array([[1, tangent], [-tangent, 1]]) / np.hypot(Wide(1), tangent)
                S[[i, j]] = turn.T @ S[[i, j]]
                S[:, [i, j]] = S[:, [i, j]] @ turn
                Q[:, [i, j]] = Q[:, [i, j]] @ turn
    return np.diag(S).copy(), Q


def _bisect(increasing: Callable[[Wide], Wide], low: Wide, high: Wide) -> Wide:
    for _ in range(300):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return (low + high) / 2


def _jacobian(gradient: Array, hessian: Array, multiplier: np.floating) -> Array:
    """dp/du from p + ν∇c(p) = u, c(p) = 0."""
    kkt = np.zeros((4, 4), gradient.dtype)
    kkt[:3, :3] = np.eye(3) + multiplier * hessian
    kkt[:3, 3] = kkt[3, :3] = gradient
    inverse = np.linalg.inv(kkt.astype(float))
    if kkt.dtype == Wide:
        for _ in range(2):  # Newton's method for the inverse
            inverse = inverse @ (2 * np.eye(4) - kkt @ inverse)
    return inverse[:3, :3]


@np.errstate(over="ignore", invalid="ignore")  # near the corner y = 0, where the Jacobian is lost
def project_exponential(u: Array) -> Projection:
    """cl{(x, y, z) : y > 0, y exp(x/y) ≤ z}."""
    r, s, t = (Wide(v) for v in u)
    if (s > 0 and s * np.exp(r / s) <= t) or (r <= 0 and s == 0 and t >= 0):
        return u, np.eye(3), float(0 if s == 0 else min(s, t - s * np.exp(r / s)))
    if (r > 0 and r * np.exp(s / r - 1) <= -t) or (r == 0 and s <= 0 and t <= 0):
        return np.zeros(3), np.zeros((3, 3)), float(np.linalg.norm(u))
    if r <= 0 and s <= 0:
        margin = float(min(abs(r), abs(s), abs(t)))
        return np.array([r, 0, max(t, Wide(0))]).astype(u.dtype), np.diag([1.0, 0.0, float(t > 0)]), margin

    def third(rho: Wide) -> Wide:
        """The last coordinate's equation, times something positive."""
        return ((rho - 1) * r + s) * np.exp(rho) - (r - rho * s) * np.exp(-rho) - t * (rho * rho - rho + 1)

    low = 1 - s / r if r > 0 else None
    high = r / s if s > 0 else None
    step = Wide(1)
    if low is None:
        assert high is not None
        while third(high - step) > 0:
            step *= 2
        low = high - step
    if high is None:
        while third(low + step) < 0:
            step *= 2
        high = low + step
    rho = _bisect(third, low, high)
    mu = (r - rho * s) / (rho * rho - rho + 1) * np.exp(-rho)
    if rho < 0:
        y = ((rho - 1) * r + s) / (rho * rho - rho + 1)
        z = y * np.exp(rho)
    else:
        z = t + mu
        y = z * np.exp(-rho)
    p = np.array([rho * y, y, z]).astype(u.dtype)
    rho, y, mu = (u.dtype.type(v) for v in (rho, y, mu))
    gradient = np.array([np.exp(rho), (1 - rho) * np.exp(rho), -1.0], u.dtype)
    bend = np.array([[1.0, -rho, 0], [-rho, rho * rho, 0], [0, 0, 0]])
    D = _jacobian(gradient, np.exp(rho) / y * bend, mu)
    return p, D, float(min(np.linalg.norm(p), np.linalg.norm(p - u)))


def project_power(u: Array, alpha: float) -> Projection:
    """{(x, y, z) : x^α y^(1−α) ≥ |z|, x, y ≥ 0}."""
    beta = 1 - alpha
    a, b, c = (Wide(v) for v in u)
    length = abs(c)
    if a >= 0 and b >= 0 and a**alpha * b**beta >= length:
        return u, np.eye(3), float(a**alpha * b**beta - length)
    if a <= 0 and b <= 0 and (-a / alpha) ** alpha * (-b / beta) ** beta >= length:
        return np.zeros(3), np.zeros((3, 3)), float(np.linalg.norm(u))
    if length == 0:  # by symmetry in z, on the face of the quadrant, where the derivative is not looked for
        return np.array([max(a, 0), max(b, 0), 0]).astype(u.dtype), np.full((3, 3), np.nan), 0.0

    def root(v: Wide, k: Wide) -> Wide:
        square = np.sqrt(v * v + 4 * k)
        return (v + square) / 2 if v >= 0 else 2 * k / (square - v)

    def point(r: Wide) -> tuple[Wide, Wide]:
        k = r * (length - r)
        return root(a, alpha * k), root(b, beta * k)

    def excess(r: Wide) -> Wide:
        x, y = point(r)
        return r - x**alpha * y**beta

    r = _bisect(excess, Wide(0), length)
    x, y = (u.dtype.type(v) for v in point(r))
    sign = u.dtype.type(np.sign(c))
    height = u.dtype.type(r)
    p = np.array([x, y, sign * height])
    if min(x, y) == 0:
        return p, np.full((3, 3), np.nan), 0.0
    gradient = np.array([-alpha * height / x, -beta * height / y, sign])
    bend = np.array([[1 / x**2, -1 / (x * y), 0], [-1 / (x * y), 1 / y**2, 0], [0, 0, 0]])
    D = _jacobian(gradient, alpha * beta * height * bend, u.dtype.type(length - r))
    return p, D, float(min(np.linalg.norm(p), np.linalg.norm(p - u)))


@dataclass(frozen=True)
class ReferenceCone:
    """One cone of a product: its rows and its projection."""

    rows: slice
    project: Callable[[Array], Projection]


class Dimensions(Protocol):
    """How many rows or cones of each kind, in SCS's order; cvxpy's own record of them fits."""

    @property
    def zero(self) -> int: ...  # noqa: D102
    @property
    def nonneg(self) -> int: ...  # noqa: D102
    @property
    def soc(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def psd(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def exp(self) -> int: ...  # noqa: D102
    @property
    def p3d(self) -> Sequence[float]: ...  # noqa: D102


def cones_of(dims: Dimensions) -> list[ReferenceCone]:
    """The cones of a product in SCS's order; its rows end with the last one's."""
    kinds: list[tuple[int, Callable[[Array], Projection]]] = []
    if dims.zero:
        kinds.append((dims.zero, project_zero))
    if dims.nonneg:
        kinds.append((dims.nonneg, project_orthant))
    kinds += [(size, project_second_order) for size in dims.soc]
    kinds += [(order * (order + 1) // 2, project_semidefinite) for order in dims.psd]
    kinds += [(3, project_exponential)] * dims.exp
    kinds += [(3, partial(project_power, alpha=float(alpha))) for alpha in dims.p3d]
    ends = np.cumsum([0, *(size for size, _ in kinds)])
    return [
        ReferenceCone(slice(int(start), int(stop)), project)
        for (start, stop), (_, project) in zip(pairwise(ends), kinds, strict=True)
    ]


def complementary(cones: Sequence[ReferenceCone], u: Array) -> tuple[Array, Array]:
    """S = Π(u) and y = s − u, each ``(m,)``; what is zero but for rounding in a block is zero."""
    s = project_product(cones, u)
    y = s - u
    for cone in cones:
        small = 1e-14 * np.linalg.norm(u[cone.rows])
        for part in (s, y):
            if np.linalg.norm(part[cone.rows]) <= small:
                part[cone.rows] = 0.0
    return s, y


def project_product(cones: Sequence[ReferenceCone], u: Array) -> Array:
    """Π(u) on a product of cones, ``(m,)``."""
    s = np.zeros_like(u)
    for cone in cones:
        s[cone.rows] = cone.project(u[cone.rows])[0]
    return s
