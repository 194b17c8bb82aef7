"""What the fuzzer compares with is exact to long double: projections, solutions, adjoints."""

import numpy as np
import pytest

from cvxfold.studies.fuzz.cones import (
    Wide,
    cones_of,
    project_exponential,
    project_power,
    project_product,
    project_second_order,
    project_semidefinite,
    triangle,
)
from cvxfold.studies.fuzz.judge import at_its_data
from cvxfold.studies.fuzz.programs import Ending
from cvxfold.studies.fuzz.reference import examine, kkt_jacobian, slopes
from cvxfold.studies.fuzz.solve import replay

EPS = float(np.finfo(Wide).eps)  # 1e-19 where long double is more than double


def rounding(size: float) -> float:
    """What some dozens of operations on numbers of that size may leave."""
    return 300 * EPS * size


def _semidefinite(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    Q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    rows, columns = triangle(len(values))
    return ((Q * values) @ Q.T)[rows, columns] * np.where(rows == columns, 1, np.sqrt(2))


CONES = {
    "second-order": (project_second_order, lambda rng: rng.standard_normal(5)),
    "semidefinite": (project_semidefinite, lambda rng: _semidefinite(rng, rng.standard_normal(4))),
    "semidefinite, a tie": (
        project_semidefinite,
        lambda rng: _semidefinite(rng, np.array([-1.5, -1.5, 0.7, 0.7, 0.7])),
    ),
    "exponential": (project_exponential, lambda rng: rng.standard_normal(3)),
    "power": (lambda u: project_power(u, 0.3), lambda rng: rng.standard_normal(3)),
}


@pytest.mark.parametrize("name", CONES)
def test_projections(name: str) -> None:
    """Moreau's ⟨s, y⟩ = 0 for u = s − y; D u = s, as Π is homogeneous; D s = s, as Π(u + s) is 2 s."""
    project, draw = CONES[name]
    rng = np.random.default_rng(len(name))
    for _ in range(40):
        u = draw(rng).astype(Wide)
        s, D, margin = project(u)
        if not margin > 1e-2:
            continue
        length = float(np.linalg.norm(u))
        assert abs(float(s @ (s - u))) <= rounding(length**2 / margin)
        assert np.abs(D @ u - s).max() <= rounding(length / margin**2)
        assert np.abs(D @ s - s).max() <= rounding(length / margin**2)
        np.testing.assert_allclose(s.astype(float), project(u.astype(float))[0], atol=1e-13 * length / margin)


def test_solutions_and_adjoints_are_those_of_the_data() -> None:
    """Both equations hold to rounding in long double; with what was drawn they hold to rounding in double."""
    checked = 0
    for number in range(40):
        case = replay(0, number, 1)
        drawn, structure = case.instances[0], case.structure
        if drawn.ending is not Ending.SOLUTION:
            continue
        truth = examine(drawn.P, drawn.A, structure.dims, drawn.u, drawn.weight)
        if not truth.nondegenerate or truth.sides[0].condition > 1e4 or truth.margin < 1e-2:
            continue
        one = at_its_data(structure, drawn)
        for part in ("L", "A", "q", "b"):
            assert (getattr(one, part) == getattr(drawn, part)).all()
        np.testing.assert_allclose(one.x.astype(float), drawn.x, atol=1e-10)
        cones = cones_of(structure.dims)
        s = project_product(cones, one.u)
        terms = [one.L.T @ (one.L @ one.x), one.q, one.A.T @ (s - one.u)], [one.A @ one.x, s, -one.b]
        for equation in terms:
            size = max(float(np.abs(term).max(initial=0)) for term in equation)
            assert float(np.abs(sum(equation)).max(initial=0)) <= rounding(size * truth.sides[0].condition)
        side = examine(one.P, one.A, structure.dims, one.u, one.weight).sides[0]
        J = kkt_jacobian(one.P, one.A, slopes(cones, one.u))
        z = np.append(side.p, side.v)
        off = J.T @ z - np.append(one.weight, 0 * side.v)
        assert float(np.abs(off).max()) <= rounding(float((np.abs(J.T) @ np.abs(z)).max()))
        checked += 1
    assert checked > 10
