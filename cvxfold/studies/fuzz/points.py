"""Points u of a product of cones, and with them complementary pairs s = Π(u), y = Π(u) − u.

- *generic*: inside of the cones, on their boundaries, or at their apex, strictly complementary;
- *kink*: some blocks where Π has no derivative, s and y both being too small there;
- *tie*: equal eigenvalues, equal entries, axes of cones: degenerate only to the eye;
- *vertex*: as many active rows as there are.
"""

import numpy as np
from numpy.random import Generator

from cvxfold.studies.fuzz.cones import Array, ReferenceCone, cones_of, triangle
from cvxfold.studies.fuzz.structure import Dims

POINTS = ("generic", "kink", "tie", "vertex")


def kinds_of(dims: Dims) -> list[str]:
    """The kind of each of :func:`cones_of`'s cones."""
    kinds = ["zero"] * bool(dims.zero) + ["nonneg"] * bool(dims.nonneg)
    kinds += ["soc"] * len(dims.soc) + ["psd"] * len(dims.psd)
    return kinds + ["exp"] * dims.exp + ["p3d"] * len(dims.p3d)


def draw_point(rng: Generator, dims: Dims, n: int, curved: bool, kind: str) -> Array:
    """A point u ``(m,)``.

    Args:
        n: variables; of the inequalities so many are active that the solution can be unique.
        curved: whether the objective is strictly convex; otherwise the constraints must hold x alone.
        kind: one of :data:`POINTS`.
    """
    u = np.zeros(dims.m)
    inequalities: ReferenceCone | None = None
    held = bent = 0  # dimensions that the cones hold, and that their curvature may hold
    cones = list(zip(kinds_of(dims), cones_of(dims), strict=True))
    for name, cone in cones:
        if name == "nonneg":
            inequalities = cone
            continue
        # Where x is held already, more constraints would make its multipliers many.
        full = kind != "vertex" and held >= n and rng.random() < 0.95
        u[cone.rows] = _block(rng, name, cone, kind, inside=full)
        D = cone.project(u[cone.rows])[1]
        while not np.isfinite(D).all():  # a corner that the reference's formulas do not reach
            u[cone.rows] = _block(rng, name, cone, kind, inside=full)
            D = cone.project(u[cone.rows])[1]
        slopes = np.linalg.eigvalsh(D)
        if held + (slopes < 1e-6).sum() > n and kind != "vertex" and name != "zero":
            u[cone.rows] = _block(rng, name, cone, kind, inside=True)
            slopes = np.ones(1)
        held += int((slopes < 1e-6).sum())
        bent += int(((slopes >= 1e-6) & (slopes < 1 - 1e-6)).sum())
    if inequalities is not None:
        rows = inequalities.rows
        room, count = max(0, n - held), rows.stop - rows.start
        fewest = 0 if curved else max(0, room - bent)
        active = min(count, int(rng.integers(fewest, room + 1)))
        if kind == "vertex":
            active = count
        size = rng.lognormal(0, 0.5, count) if kind != "tie" else np.ones(count)
        u[rows] = size * np.where(rng.permutation(count) < active, -1.0, 1.0)
    kinked = [(name, cone) for name, cone in cones if name != "zero"] if kind == "kink" else []
    for index in rng.permutation(len(kinked))[: rng.integers(1, 3)]:
        name, cone = kinked[index]
        u[cone.rows] = _kink(rng, name, cone, u[cone.rows])
    return u


def draw_dual(rng: Generator, dims: Dims) -> Array:
    """A point of the dual cone K* that is not zero, ``(m,)``; some of its blocks are."""
    while True:
        y = np.zeros(dims.m)
        for name, cone in zip(kinds_of(dims), cones_of(dims), strict=True):
            if rng.random() < 0.7:
                u = _block(rng, name, cone, "generic")
                y[cone.rows] = cone.project(u)[0] - u
        if np.linalg.norm(y) > 0.1:
            return y


def draw_direction(rng: Generator, dims: Dims) -> Array:
    """A point of K, ``(m,)``, on the boundary of some cones and inside of others."""
    r = np.zeros(dims.m)
    for name, cone in zip(kinds_of(dims), cones_of(dims), strict=True):
        if rng.random() < 0.7:
            u = _block(rng, name, cone, "generic")
            r[cone.rows] = cone.project(u)[0]
    return r


def _size(cone: ReferenceCone) -> int:
    return cone.rows.stop - cone.rows.start


def _block(rng: Generator, name: str, cone: ReferenceCone, kind: str, inside: bool = False) -> Array:
    """A point for one cone, no closer to a kink than a hundredth of its size."""
    size = _size(cone)
    if name in ("zero", "nonneg"):
        return rng.standard_normal(size)
    if kind == "tie" and not inside:
        return _tie(rng, name, size)
    place = 0.0 if inside else rng.random()
    while True:
        u = rng.standard_normal(size)
        if name == "soc":
            u[0] = rng.uniform(-0.7, 0.7) * np.linalg.norm(u[1:])
        if place < 0.25:
            u = _inside(name, size) + 0.2 * u
        elif place < 0.4:
            u = 0.2 * u - _dual_inside(name, size)
        if cone.project(u)[2] > 0.01 * np.linalg.norm(u):
            return u * rng.lognormal(0, 0.5)


def _inside(name: str, size: int) -> Array:
    """A point well inside of a cone."""
    if name == "exp":
        return np.array([-1.0, 1.0, 1.5])
    if name == "p3d":
        return np.array([1.5, 1.5, 0.0])
    if name == "psd":
        rows, columns = triangle(_order(size))
        return 2.0 * (rows == columns)
    return np.append(2.0, np.zeros(size - 1))


def _dual_inside(name: str, size: int) -> Array:
    """A point well inside of the dual cone."""
    return np.array([-1.0, 0.5, 1.5]) if name == "exp" else _inside(name, size)


def _tie(rng: Generator, name: str, size: int) -> Array:
    """A point of high symmetry that is on no kink."""
    if name == "psd":
        order = _order(size)
        Q, _ = np.linalg.qr(rng.standard_normal((order, order)))
        return _triangle((Q * np.where(rng.random(order) < 0.5, 1.0, -1.0)) @ Q.T)
    if name == "soc":
        return np.append(0.0, np.ones(size - 1))
    if name == "p3d":
        return np.array([1.0, 1.0, 2.0])
    return np.array([1.0, 1.0, 1.0])


def _kink(rng: Generator, name: str, cone: ReferenceCone, u: Array) -> Array:
    """A point near ``u`` where the projection has no derivative."""
    if name == "nonneg":
        zeros = rng.permutation(len(u)) < rng.integers(1, min(3, len(u)) + 1)
        return np.where(zeros, 0.0, u)
    if rng.random() < 0.3:
        return np.zeros_like(u)
    if name == "psd":
        order = _order(len(u))
        Q, _ = np.linalg.qr(rng.standard_normal((order, order)))
        values = rng.standard_normal(order)
        values[0] = 0.0
        return _triangle((Q * values) @ Q.T)
    while True:
        s = cone.project(rng.standard_normal(len(u)))[0]
        if cone.project(s)[2] < 1e-6 < np.linalg.norm(s):
            return s if rng.random() < 0.7 or name != "soc" else -np.append(s[0], s[1:])


def _order(size: int) -> int:
    return int((np.sqrt(8 * size + 1) - 1) / 2)


def _triangle(X: Array) -> Array:
    rows, columns = triangle(len(X))
    return X[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
