"""Instances of cone programs whose answers are known because they were made from them.

    solvable     u is drawn, s = Π(u), y = s − u, x is drawn; b = A x + s, q = −P x − Aᵀy
    infeasible   y₀ ∈ K* is drawn, A is made to satisfy Aᵀy₀ = 0, b to satisfy bᵀy₀ < 0
    unbounded    d is drawn, A is made to satisfy −A d ∈ K, P d = 0, q to satisfy qᵀd < 0; b = A x + s

All is drawn at a natural scale and scaled afterwards: rows by E (one number in each cone that is no product
of half-lines), columns by C, the objective by c. All are powers of two, so that a scaled program and its
answer are exactly those of the natural one, which the reference works on.

    A ← E A C    b ← E b    q ← c C q    P ← c C P C        x ← C⁻¹x    s ← E s    y ← c E⁻¹y
"""

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.random import Generator

from cvxfold.studies.fuzz.cones import Array, complementary, cones_of
from cvxfold.studies.fuzz.points import POINTS, draw_direction, draw_dual, draw_point, kinds_of
from cvxfold.studies.fuzz.reference import condition
from cvxfold.studies.fuzz.structure import Defect, Quadratic, RandomStructure, powers_of_two

SLIGHTLY = 1e-3  # the relative margin of the smallest infeasibility and unboundedness
_TRIES = 6
_NOTHING = 1e-13  # of the largest entry


class Ending(Enum):
    """What the right answer is."""

    SOLUTION = "solution"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    BAD_VALUE = "bad value"


@dataclass(frozen=True)
class Units:
    """Powers of two: ``rows`` E ``(m,)``, ``columns`` C ``(n,)``, ``objective`` c (a power of four)."""

    rows: Array
    columns: Array
    objective: float


@dataclass(frozen=True)
class RandomProgram:
    """One program at its natural scale, with its answer.

    Args:
        ending: what the right answer is; the next fields hold for the program without its bad value.
        kind: what is special about it, for the table.
        L: factor of P, ``(r, n)``; with r = 0 there is no quadratic term.
        A, q, b: ``(m, n)``, ``(n,)``, ``(m,)``.
        x, u: the solution ``(n,)`` and s − y ``(m,)``; NaN where there is none.
        proof: y₀ ``(m,)`` or d ``(n,)`` where there is no solution.
        twofold: whether an infeasible one may lack a dual feasible point as well.
        weight: of the loss ⟨weight, x⟩, ``(n,)``.
        scaling: from the natural to the given scale.
        bad: parameter ("q", "b", "A" or "L"), flat position and value of what is not finite.
    """

    ending: Ending
    kind: str
    L: Array
    A: Array
    q: Array
    b: Array
    x: Array
    u: Array
    proof: Array
    twofold: bool
    weight: Array
    scaling: Units
    bad: tuple[str, float, float] | None = None

    @property
    def P(self) -> Array:
        """The quadratic term, ``(n, n)``."""
        return self.L.T @ self.L


def draw_instances(structure: RandomStructure, batch: int) -> list[RandomProgram]:
    """The first instances of a structure; the same whatever the batch's size."""
    rng = structure.rng()
    y0, d = draw_dual(rng, structure.dims) if structure.m else np.zeros(0), rng.standard_normal(structure.n)
    shared = _matrices(structure, rng)
    infeasible, unbounded, _ = structure.endings
    if structure.matrix_is_constant:
        A = shared[1]
        if infeasible:
            A = _orthogonal_rows(A, y0)
        if unbounded:
            A = _receding(A, d, draw_direction(rng, structure.dims))
        shared = shared[0], A
    if structure.quadratic.constant and unbounded:
        shared = _flat_along(shared[0], d), shared[1]
    scaling = _scaling(structure, rng)
    return [_draw(structure, structure.rng(i), shared, y0, d, scaling) for i in range(batch)]


def _draw(
    structure: RandomStructure,
    rng: Generator,
    shared: tuple[Array, Array],
    y0: Array,
    d: Array,
    scaling: Units,
) -> RandomProgram:
    infeasible, unbounded, bad = structure.endings
    luck = rng.random()
    ending = (
        Ending.INFEASIBLE if luck < infeasible
        else Ending.UNBOUNDED if luck < infeasible + unbounded
        else Ending.SOLUTION
    )  # fmt: skip
    L, A = _matrices(structure, rng)
    if structure.quadratic.constant:
        L = shared[0]
    if structure.matrix_is_constant:
        A = shared[1]
    if not structure.shared_scaling:
        scaling = _scaling(structure, rng)
    if ending is Ending.INFEASIBLE and not structure.matrix_is_constant:
        y0 = draw_dual(rng, structure.dims)
        A = _orthogonal_rows(A, y0)
    if ending is Ending.UNBOUNDED:
        if not structure.quadratic.constant:
            d = d if structure.matrix_is_constant else rng.standard_normal(structure.n)
            L = _flat_along(L, d)
        if not structure.matrix_is_constant:
            A = _receding(A, d, draw_direction(rng, structure.dims))

    instance = _solvable(structure, rng, L, A, scaling)
    if ending is Ending.INFEASIBLE:
        return _made_infeasible(rng, instance, y0)
    if ending is Ending.UNBOUNDED:
        return _made_unbounded(rng, instance, d)
    if rng.random() < bad:
        present = {
            "q": True,
            "b": structure.m > 0,
            "A": structure.m > 0 and not structure.matrix_is_constant,
            "L": structure.quadratic is Quadratic.FACTOR,
        }
        name = str(rng.choice([name for name, has in present.items() if has]))
        value = float(rng.choice([np.nan, np.inf, -np.inf]))
        return replace(
            instance, ending=Ending.BAD_VALUE, kind="bad value", bad=(name, float(rng.random()), value)
        )
    return instance


def _matrices(structure: RandomStructure, rng: Generator) -> tuple[Array, Array]:
    """L ``(r, n)`` and A ``(m, n)`` with the structure's defect."""
    n, m, dims = structure.n, structure.m, structure.dims
    L = rng.standard_normal((structure.factor_rows, n)) / np.sqrt(n)
    A = rng.standard_normal((m, n)) * (rng.random((m, n)) < max(structure.density, 1.5 / n))
    first = dims.zero  # of the inequalities
    match structure.defect:
        case Defect.DUPLICATE_ROWS:
            A[first + 1] = A[first]
            A[first + dims.nonneg - 1] = 2 * A[first]
        case Defect.DEPENDENT_EQUATIONS:
            A[dims.zero - 1] = A[0] + (A[1] if dims.zero > 2 else 0.0)
        case Defect.ZERO_ROWS:
            A[rng.integers(m, size=1 + m // 10)] = 0.0
        case Defect.ZERO_COLUMNS:
            column = int(rng.integers(n))
            A[:, column] = 0.0
            if rng.random() < 0.5:
                L[:, column] = 0.0
    return L, A


def _solvable(
    structure: RandomStructure, rng: Generator, L: Array, A: Array, scaling: Units
) -> RandomProgram:
    """An instance around a drawn solution; generic ones are drawn again where they come out degenerate."""
    dims = structure.dims
    point = str(rng.choice(POINTS, p=[0.76, 0.1, 0.07, 0.07]))
    x, weight = rng.standard_normal(structure.n), rng.standard_normal(structure.n)
    curved = structure.factor_rows > structure.n
    P, u = L.T @ L, np.zeros(0)
    for _ in range(_TRIES):
        u = draw_point(rng, dims, structure.n, curved, point)
        defective = structure.defect is not Defect.NONE
        if point != "generic" or defective or condition(P, A, dims, u) < 1e6:
            break
    s, y = complementary(cones_of(dims), u)
    defect = structure.defect
    kind = point if defect is Defect.NONE else defect.value
    q, b = -P @ x - A.T @ y, A @ x + s
    return RandomProgram(Ending.SOLUTION, kind, L, A, q, b, x, u, np.zeros(0), False, weight, scaling)


def _made_infeasible(rng: Generator, instance: RandomProgram, y0: Array) -> RandomProgram:
    """Move b past the hyperplane of y₀."""
    slight, twofold = bool(rng.random() < 0.25), bool(rng.random() < 0.5)
    y0 = y0 / np.linalg.norm(y0)
    margin = SLIGHTLY if slight else float(rng.uniform(0.1, 1.0))
    b = instance.b - (instance.b @ y0) * y0
    b = b - margin * max(float(np.linalg.norm(b)), 1e-3) * y0
    q = rng.standard_normal(len(instance.q)) if twofold else instance.q
    return replace(
        instance, ending=Ending.INFEASIBLE, kind="slightly infeasible" if slight else "infeasible", b=b, q=q,
        proof=y0, twofold=twofold, x=instance.x * np.nan, u=instance.u * np.nan,
    )  # fmt: skip


def _made_unbounded(rng: Generator, instance: RandomProgram, d: Array) -> RandomProgram:
    """Tilt q against d."""
    slight = bool(rng.random() < 0.25)
    d = d / np.linalg.norm(d)
    margin = SLIGHTLY if slight else float(rng.uniform(0.1, 1.0))
    q = instance.q - (instance.q @ d) * d
    q = q - margin * max(float(np.linalg.norm(q)), 1e-3) * d
    return replace(
        instance, ending=Ending.UNBOUNDED, kind="slightly unbounded" if slight else "unbounded", q=q,
        proof=d, x=instance.x * np.nan, u=instance.u * np.nan,
    )  # fmt: skip


def _orthogonal_rows(A: Array, y0: Array) -> Array:
    """A with Aᵀy₀ = 0, twice for the rounding."""
    for _ in range(2):
        A = A - np.outer(y0, y0 @ A) / (y0 @ y0)
    return _beyond_rounding(A)


def _receding(A: Array, d: Array, r: Array) -> Array:
    """A with A d = −r."""
    for _ in range(2):
        A = A - np.outer(A @ d + r, d) / (d @ d)
    return _beyond_rounding(A)


def _flat_along(L: Array, d: Array) -> Array:
    """L with L d = 0."""
    for _ in range(2):
        L = L - np.outer(L @ d, d) / (d @ d)
    return _beyond_rounding(L)


def _beyond_rounding(entries: Array) -> Array:
    """With zeros for what is meant to be zero: an equation of rounding is one all the same."""
    return np.where(np.abs(entries) > _NOTHING * np.abs(entries).max(initial=0.0), entries, 0.0)


def _scaling(structure: RandomStructure, rng: Generator) -> Units:
    """Over the structure's powers of ten, for all rows or columns together and each one by itself."""
    rows, columns, objective = structure.spreads
    E = np.full(structure.m, rng.uniform(-1, 1) * rows / 2)
    for name, cone in zip(kinds_of(structure.dims), cones_of(structure.dims), strict=True):
        separable = name in ("zero", "nonneg")
        E[cone.rows] += rng.uniform(-1, 1, cone.rows.stop - cone.rows.start if separable else 1) * rows / 2
    C = (rng.uniform(-1, 1, structure.n) + rng.uniform(-1, 1)) * columns / 2
    c = float(powers_of_two(np.array(rng.uniform(-1, 1) * objective / 2))) ** 2
    return Units(powers_of_two(E), powers_of_two(C), c)
