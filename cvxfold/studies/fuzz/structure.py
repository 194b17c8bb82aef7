"""What the instances of one batch have in common: sizes, cones, what is a parameter, what is degenerate."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.random import Generator

from cvxfold.studies.fuzz.cones import Array

MOST_ROWS = 80
MOST_VARIABLES = 40


@dataclass(frozen=True)
class Dims:
    """Rows or cones of each kind, in SCS's order, under cvxpy's names."""

    zero: int
    nonneg: int
    soc: tuple[int, ...]
    psd: tuple[int, ...]
    exp: int
    p3d: tuple[float, ...]

    @property
    def m(self) -> int:
        """Rows in all."""
        curved = sum(self.soc) + sum(k * (k + 1) // 2 for k in self.psd)
        return self.zero + self.nonneg + curved + 3 * (self.exp + len(self.p3d))


class Quadratic(Enum):
    """How ½xᵀPx, P = LᵀL, stands in the CVXPY problem."""

    NONE = "none"
    FACTOR = "½‖Lx‖², L a parameter"
    CONSTANT_FACTOR = "½‖Lx‖², L constant"
    CONSTANT_FORM = "½xᵀPx, P constant"

    @property
    def constant(self) -> bool:
        """Whether the whole batch shares P."""
        return self in (Quadratic.CONSTANT_FACTOR, Quadratic.CONSTANT_FORM)


class Defect(Enum):
    """A degeneracy in A or P, of all instances of the batch."""

    NONE = "none"
    DUPLICATE_ROWS = "duplicate rows"
    DEPENDENT_EQUATIONS = "dependent equations"
    ZERO_ROWS = "zero rows"
    ZERO_COLUMNS = "zero columns"
    FLAT = "flat objective"


@dataclass(frozen=True)
class RandomStructure:
    """One cvxpy problem.

    Args:
        seed, number: what it depends on, alone.
        n: variables.
        dims: of the cones.
        quadratic: how the quadratic term is given; its factor L has ``factor_rows`` rows.
        matrix_is_constant: whether A is a constant of the problem, or a parameter.
        density: of A.
        defect: what is degenerate.
        endings: how likely instances are without a solution: infeasible, unbounded, with a value not finite.
        spreads: powers of ten over which rows, columns and the objective are scaled (up and down).
        shared_scaling: whether all instances have the same scaling.
    """

    seed: int
    number: int
    n: int
    dims: Dims
    quadratic: Quadratic
    factor_rows: int
    matrix_is_constant: bool
    density: float
    defect: Defect
    endings: tuple[float, float, float]
    spreads: tuple[float, float, float]
    shared_scaling: bool

    @property
    def m(self) -> int:
        """Rows of A."""
        return self.dims.m

    def rng(self, instance: int | None = None) -> Generator:
        """The random numbers of what the batch shares, or of one instance, whatever the batch's size."""
        return np.random.default_rng((self.seed, self.number, 1 if instance is None else instance + 2))


def draw_structure(seed: int, number: int) -> RandomStructure:
    """Structure ``number`` of a seed."""
    rng = np.random.default_rng((seed, number, 0))
    n = int(min(MOST_VARIABLES, rng.geometric(rng.choice([0.4, 0.15, 0.05]))))
    dims = _dims(rng, n)
    quadratic = Quadratic(rng.choice([kind.value for kind in Quadratic], p=[0.35, 0.3, 0.2, 0.15]))
    if quadratic is Quadratic.NONE and not dims.m:  # cvxpy takes no linear function on all of Rⁿ
        quadratic = Quadratic.FACTOR
    defect = Defect(rng.choice([kind.value for kind in Defect], p=[0.6, 0.08, 0.08, 0.08, 0.08, 0.08]))
    if (
        (defect is Defect.DUPLICATE_ROWS and dims.nonneg < 2)
        or (defect is Defect.DEPENDENT_EQUATIONS and dims.zero < 2)
        or (defect is Defect.ZERO_ROWS and not dims.m)
    ):
        defect = Defect.NONE
    if quadratic is Quadratic.NONE and rng.random() < 0.9:  # so few that the constraints can hold x
        n = min(n, max(1, dims.zero + dims.nonneg + (dims.m - dims.zero - dims.nonneg) // 3))
    low = defect is Defect.FLAT or rng.random() < 0.15
    factor_rows = 0 if quadratic is Quadratic.NONE else max(1, n // 2) if low else n + 2
    matrix_is_constant = bool(rng.random() < 0.35)
    infeasible, unbounded = rng.choice([[0, 0], [0.4, 0], [0, 0.4], [0.3, 0.3]], p=[0.5, 0.2, 0.2, 0.1])
    if (matrix_is_constant and infeasible and unbounded) or not dims.m:
        infeasible = 0.0
    if quadratic.constant and unbounded and rng.random() < 0.5:
        unbounded = 0.0
    bad = 0.1 if rng.random() < 0.2 else 0.0
    spreads = [0.0, 0.0, 0.0]
    if rng.random() < 0.5:
        spreads = [float(rng.choice([0.0, 1.0, 2.5, 5.0])) for _ in range(3)]
    shared_scaling = matrix_is_constant or quadratic.constant or bool(rng.random() < 0.5)
    density = float(rng.choice([1.0, 0.5, 0.2]))
    return RandomStructure(
        seed, number, n, dims, quadratic, factor_rows, matrix_is_constant, density, defect,
        (float(infeasible), float(unbounded), bad), (spreads[0], spreads[1], spreads[2]), shared_scaling,
    )  # fmt: skip


def _dims(rng: Generator, n: int) -> Dims:
    """Cones of all kinds, one to three kinds in most cases."""
    if rng.random() < 0.04:
        return Dims(0, 0, (), (), 0, ())
    while True:
        has = rng.random(6) < rng.choice([0.2, 0.4, 0.7])
        zero = int(rng.integers(1, max(2, n // 2 + 1))) if has[0] else 0
        nonneg = int(min(50, rng.geometric(rng.choice([0.3, 0.1, 0.05])))) if has[1] else 0
        soc = tuple(int(k) for k in rng.integers(2, 7, rng.integers(1, 4))) if has[2] else ()
        psd = tuple(int(k) for k in rng.integers(1, 5, rng.integers(1, 3))) if has[3] else ()
        exp = int(rng.integers(1, 4)) if has[4] else 0
        p3d = tuple(float(a) for a in rng.uniform(0.1, 0.9, rng.integers(1, 3))) if has[5] else ()
        dims = Dims(zero, nonneg, soc, psd, exp, p3d)
        if 0 < dims.m <= MOST_ROWS:
            return dims


def blocks_of(dims: Dims) -> list[tuple[str, slice]]:
    """The constraints of the CVXPY problem and the rows of each: all exponential cones are one, and so on."""
    sizes = [("zero", dims.zero), ("nonneg", dims.nonneg)]
    sizes += [("soc", size) for size in dims.soc]
    sizes += [("psd", k * (k + 1) // 2) for k in dims.psd]
    sizes += [("exp", 3 * dims.exp), ("p3d", 3 * len(dims.p3d))]
    found, start = [], 0
    for kind, size in sizes:
        if size:
            found.append((kind, slice(start, start + size)))
        start += size
    return found


def powers_of_two(exponents: Array) -> Array:
    """The powers of two next to 10^exponents: scaling by them is exact."""
    return 2.0 ** np.round(np.log2(10.0) * exponents)
