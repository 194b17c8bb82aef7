"""The reference is right: its data, its solutions and its gradients, each against something else."""

import warnings
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from cvxfold.studies.reference import linear, recovery
from problems.cases import Case, case, errors, evaluate
from problems.families import FAMILIES
from problems.layers import upstream_of
from problems.marks import long, sliced
from problems.reference import Reference

# diffcp warns about SCS's "inaccurate" at 1e-10, cvxpylayers about its use of __array__
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")

NO_CONES = ["dense_qp20", "dense_qp5_duals", "portfolio", "mpc", "mpc_absolute", "linear_program_duals"]
CONES = ["robust_portfolio", "ball_least_squares", "many_cones_duals"]
LossFunction = Callable[[list[np.ndarray], list[np.ndarray]], float]
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-13)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "dense_qp100"])
def test_conditions_hold_and_derivative_exists(name: str) -> None:
    for answer in case(name).answers:
        assert answer.kkt_residual < 1e-14
        assert answer.adjoint_residual < 1e-12
        assert answer.margin > 1e-6, "this seed gives a degenerate instance: choose another"


@pytest.mark.parametrize("name", ["dense_qp5", "ball_least_squares", "scalars", "constant_qp"])
def test_data_are_those_cvxpy_gives_to_scs(name: str) -> None:
    c = case(name)
    solver = Reference(c.family.problem, c.family.parameters, c.family.variables)
    problem = cp.Problem(c.family.problem.objective, c.family.problem.constraints)
    for i in range(2):
        values = [p[i].numpy() for p in c.params]
        _set(c, values)
        theirs = problem.get_problem_data(cp.SCS, solver_opts={"use_quad_obj": True})[0]
        ours = solver.data(values)
        np.testing.assert_allclose(ours.A.toarray(), theirs["A"].toarray(), atol=1e-14)
        np.testing.assert_allclose(ours.b, theirs["b"], atol=1e-14)
        np.testing.assert_allclose(ours.q, theirs["c"], atol=1e-14)
        np.testing.assert_allclose(ours.P.toarray(), theirs["P"].toarray(), atol=1e-14)


@pytest.mark.parametrize("name", NO_CONES)
def test_gradient_against_differences_of_clarabel(name: str) -> None:
    """Where Clarabel itself is accurate to 1e-12: polyhedral constraints."""
    c = case(name, batch=3, seed=1)

    def loss(values: list[np.ndarray], weights: list[np.ndarray]) -> float:
        _set(c, values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1e-13 is asked for, 1e-12 is reached and called inaccurate
            c.family.problem.solve(cp.CLARABEL, **TIGHT)
        found = zip(c.family.variables, weights, strict=True)
        return float(sum((np.asarray(v.value) * w).sum() for v, w in found))

    assert _difference_error(c, loss) < 1e-7


@pytest.mark.parametrize("name", CONES)
def test_gradient_against_differences_of_its_solutions(name: str) -> None:
    """With second-order cones Clarabel stops near 1e-5, so differentiate the finished solutions."""
    c = case(name, batch=3, seed=1)
    solver = Reference(c.family.problem, c.family.parameters, c.family.variables)

    def loss(values: list[np.ndarray], weights: list[np.ndarray]) -> float:
        return float(
            sum((v * w).sum() for v, w in zip(solver.solve(values, weights).values, weights, strict=True))
        )

    assert _difference_error(c, loss) < 1e-8


LARGE = ["dense_qp5_duals", "portfolio", "mpc", "ball_least_squares", "linear_program_duals", "constant_qp"]


@pytest.mark.parametrize("name", LARGE)
def test_sparse_factors_find_what_dense_ones_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large program: another factorization, and variables found by what cvxpy does with numbers."""
    c = case(name, batch=2)
    monkeypatch.setattr(linear, "DENSE", 0)
    monkeypatch.setattr(recovery, "DENSE", 0)
    solver = Reference(c.family.problem, c.family.parameters, c.family.variables)
    for i, dense in enumerate(c.answers):
        answer = solver.solve([p[i].numpy() for p in c.params], [w[i].numpy() for w in c.weights])
        for found, right in zip(
            [*answer.values, *answer.gradients], [*dense.values, *dense.gradients], strict=True
        ):
            np.testing.assert_allclose(found, right, atol=1e-9 * (1 + np.abs(right).max(initial=0)))


@pytest.mark.parametrize("rank", [8, 6])
def test_large_systems_are_solved_to_rounding(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Singular ones by the least solution in norm, which numpy's pseudoinverse finds as well."""
    monkeypatch.setattr(linear, "DENSE", 0)
    rng = np.random.default_rng(rank)
    M = rng.integers(-3, 4, (8, 8)).astype(float)
    M[rank:], M[:, rank:] = 0.0, 0.0
    M[rank:, :] = M[: 8 - rank, :]
    rhs = M @ rng.standard_normal(8)
    z = linear.accurate_solve(sp.csc_array(M), rhs)
    np.testing.assert_allclose(z, np.linalg.pinv(M) @ rhs, atol=1e-11)


ASKED = [n for n in FAMILIES if n not in ("dense_qp50", "dense_qp100")]


@pytest.mark.parametrize("name", sliced(ASKED, lambda name: ASKED.index(name) % 2 > 0))
def test_cvxpylayers_agrees_when_its_solver_is_exact(name: str) -> None:
    """SCS at 1e-10 and diffcp's dense adjoint: another solver, other formulas, the same answers."""
    c = case(name)
    values, gradients = evaluate(upstream_of(c.family), c, solver_args={"eps": 1e-10, "mode": "dense"})
    assert errors(values, c.values).max() < 1e-7
    assert errors(gradients, c.gradients).max() < 1e-7


@long
def test_cvxpylayers_own_gradients_are_worse() -> None:
    """As it comes, and even with an exact forward pass: LSQR stops early on dense QPs and says nothing.

    On which of them is up to rounding, and so to the machine.
    """
    with_defaults, with_exact_forward = [], []
    for seed in range(3):
        c = case("dense_qp50", batch=16, seed=seed)
        upstream = upstream_of(c.family)
        with_defaults.append(errors(evaluate(upstream, c)[1], c.gradients).max())
        found = evaluate(upstream, c, solver_args={"eps": 1e-10})[1]
        with_exact_forward.append(errors(found, c.gradients).max())
    assert max(with_defaults) > 1e-5
    assert max(with_exact_forward) > 1e-3


def _set(c: Case, values: list[np.ndarray]) -> None:
    for parameter, value in zip(c.family.parameters, values, strict=True):
        parameter.value = value


def _difference_error(c: Case, loss: LossFunction, step: float = 1e-4) -> float:
    """Largest difference to a fourth-order central difference along a random direction, relative to ‖g‖."""
    worst = 0.0
    for i in range(len(c.answers)):
        rng = np.random.default_rng(i)
        base, weights = [p[i].numpy() for p in c.params], [w[i].numpy() for w in c.weights]
        direction = [rng.standard_normal(v.shape) for v in base]
        length = np.sqrt(sum((d**2).sum() for d in direction))

        def along(t: float, base=base, direction=direction, length=length, weights=weights) -> float:
            moved = [v + t / length * d for v, d in zip(base, direction, strict=True)]
            return loss(moved, weights)

        slope = (8 * (along(step) - along(-step)) - (along(2 * step) - along(-2 * step))) / (12 * step)
        gradient = [g[i].numpy() for g in c.gradients]
        exact = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True)) / length
        norm = torch.cat([g[i].reshape(-1) for g in c.gradients]).norm().item()
        worst = max(worst, abs(slope - exact) / norm)
    return worst
