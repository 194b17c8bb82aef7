"""Where the kernels' entries are: they stand for the program's P, A and b, and the order is one."""

from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from torch import Tensor

from cvxfold.cones.dims import ConeDims
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.pattern import Pattern
from cvxfold.problem.canonical import canonicalize
from cvxfold.problem.structure import Canonical
from problems import programs
from problems.layers import family_of
from problems.programs import dense, draw, values_of

NAMES = ["dense_qp5_duals", "mpc_absolute", "many_cones_duals", "log_sum_exp", "powers", "quadratic_form"]


def canonical_of(name: str) -> tuple[Canonical, list[Tensor]]:
    family = family_of(name)
    return canonicalize(family.problem, family.parameters, family.variables), list(family.sample(3, 0))


def own(canonical: Canonical) -> Pattern:
    return Pattern.of(canonical.structure)


def assembled(pattern: Pattern, P: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense P and A of the kernels' entries: those of P above the diagonal stand for both sides."""
    full, rows = np.zeros((pattern.n, pattern.n)), np.zeros((pattern.m, pattern.n))
    full[tuple(pattern.P)] = P
    rows[pattern.A_row, pattern.A_column] = A
    return full + np.triu(full, 1).T, rows


@pytest.mark.parametrize("name", NAMES)
def test_entries_stand_for_the_programs_data(name: str) -> None:
    canonical, tensors = canonical_of(name)
    pattern, values = own(canonical), values_of(canonical, tensors)
    for i in range(3):
        P, q, A, b = dense(canonical, values, i)
        stored = [value[i if len(value) > 1 else 0].numpy() for value in values]
        found_P, found_A = assembled(
            pattern, pattern.P_from_stored @ stored[0], pattern.A_from_stored @ stored[2]
        )
        np.testing.assert_allclose(found_P, 0.5 * (P + P.T), rtol=1e-14, atol=1e-14)
        np.testing.assert_array_equal(found_A, A)
        np.testing.assert_array_equal(pattern.b_from_stored @ stored[3], b)
        np.testing.assert_array_equal(stored[1], q)


@pytest.mark.parametrize("name", NAMES)
def test_entries_are_in_order_and_those_above_the_diagonal(name: str) -> None:
    pattern = own(canonical_of(name)[0])
    assert (pattern.P[0] <= pattern.P[1]).all()
    assert len(np.unique(pattern.P[0] * pattern.n + pattern.P[1])) == pattern.P.shape[1]
    assert pattern.A_start[0] == 0
    assert pattern.A_start[-1] == len(pattern.A_column) == len(pattern.A_row)
    for first, last in zip(pattern.A_start[:-1], pattern.A_start[1:], strict=True):
        assert (np.diff(pattern.A_column[first:last]) > 0).all()


def test_the_rows_of_a_cone_share_one_pattern() -> None:
    pattern = own(canonical_of("many_cones_duals")[0])
    start = pattern.cones.separable
    assert pattern.cones.blocks
    for size in pattern.cones.blocks:
        bounds = pattern.A_start[start : start + size + 1]
        columns = [pattern.A_column[a:b].tolist() for a, b in pairwise(bounds)]
        assert columns == columns[:1] * size
        start += size


@pytest.mark.parametrize("name", [*NAMES, "no_rows", "linear_program"])
def test_the_order_is_a_permutation(name: str) -> None:
    pattern = own(canonical_of(name)[0])
    assert sorted(pattern.order().tolist()) == list(range(pattern.n + pattern.m))


def filled(pattern: Pattern, order: np.ndarray) -> int:
    """Entries below the diagonal of L when K is eliminated in an order, by sets of neighbours."""
    size = pattern.n + pattern.m
    place = np.empty(size, dtype=int)
    place[order] = np.arange(size)
    pairs = [*zip(*pattern.P, strict=True), *zip(pattern.n + pattern.A_row, pattern.A_column, strict=True)]
    later: list[set[int]] = [set() for _ in range(size)]
    for i, j in pairs:
        low, high = sorted((int(place[i]), int(place[j])))
        if low != high:
            later[low].add(high)
    for k in range(size):
        if later[k]:
            first = min(later[k])
            later[first] |= later[k] - {first}
    return sum(map(len, later))


@pytest.mark.parametrize("name", ["mpc_absolute", "portfolio", "robust_portfolio"])
def test_the_order_leaves_less_than_others(name: str) -> None:
    pattern = own(canonical_of(name)[0])
    rng, size = np.random.default_rng(0), pattern.n + pattern.m
    others = [np.arange(size), *(rng.permutation(size) for _ in range(3))]
    assert filled(pattern, pattern.order()) <= min(filled(pattern, order) for order in others)


def test_a_program_without_entries() -> None:
    x = cp.Variable(3)
    c = cp.Parameter(3)
    canonical = canonicalize(cp.Problem(cp.Minimize(c @ x), [x >= 0]), [c], [x])
    pattern = own(canonical)
    assert pattern.P.shape == (2, 0)
    assert pattern.cones == ConeDims(0, 3)
    assert sorted(pattern.order().tolist()) == list(range(6))


def test_the_map_from_parameters_is_that_of_the_general_way() -> None:
    """Parameters that enter one to one, through a matrix, twice, symmetric, and as a scalar."""
    problem, parameters, x = programs.problem()
    canonical = canonicalize(problem, parameters, [x])
    pattern, tensors = own(canonical), draw(parameters, 3)
    maps, values = Maps.of_parameters(pattern, canonical), values_of(canonical, tensors)
    for i in range(3):
        flat = np.concatenate([t[i].numpy().ravel() for t in tensors])
        P, q, A, b = (data.matrix @ flat + data.constant for data in (maps.P, maps.q, maps.A, maps.b))
        expected = dense(canonical, values, i)
        found_P, found_A = assembled(pattern, P, A)
        np.testing.assert_allclose(found_P, 0.5 * (expected[0] + expected[0].T), rtol=1e-13, atol=1e-13)
        for found, exact in ((q, expected[1]), (found_A, expected[2]), (b, expected[3])):
            np.testing.assert_allclose(found, exact, rtol=1e-13, atol=1e-13)
    for data in (maps.P, maps.q, maps.A, maps.b):
        reached = np.asarray(abs(sp.csr_array(data.matrix)).sum(axis=1)).ravel() > 0
        assert (data.moving >= reached).all()
