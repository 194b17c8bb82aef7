"""What the presolve takes out, and that solutions and adjoints survive it; against plain computations."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.engines.reduction.elimination import find_auxiliaries, find_fixed
from cvxfold.engines.reduction.presolve import Presolve
from cvxfold.problem.canonical import canonicalize
from problems.programs import dense, draw, problem, values_of, with_fixed


def test_only_free_auxiliaries_are_substituted_out() -> None:
    """t of sum_squares goes; w, which the user asked for and the bounds hold, stays."""
    w, L = cp.Variable(5), cp.Parameter((3, 5))
    budget: Any = cp.sum(w) == 1
    given = cp.Problem(cp.Minimize(cp.sum_squares(L @ w)), [budget, w >= 0])
    structure = canonicalize(given, [L], [w]).structure
    elimination = find_auxiliaries(structure)
    assert (structure.n, structure.cones.zero) == (8, 4)
    assert len(elimination.columns) == 3
    assert len(elimination.kept_rows) == structure.m - 3


def test_variables_with_parametric_coefficients_stay() -> None:
    """A pivot that a parameter could make zero is no pivot."""
    z, a = cp.Variable(3), cp.Parameter(3)
    given = cp.Problem(cp.Minimize(cp.sum_squares(z[0]) + z[1]), [a @ z == 1, z[1:] >= 0])
    columns = find_auxiliaries(canonicalize(given, [a], [z]).structure).columns
    structure = canonicalize(given, [a], [z]).structure
    for column in columns:
        entries = structure.A_entries[1] == column
        assert np.isfinite(structure.A_constants[entries]).all()


def test_variables_that_are_set_to_a_number_are_found() -> None:
    x, start = cp.Variable(3), cp.Parameter(2)
    twice: Any = x[0] == start[0]
    given = cp.Problem(
        cp.Minimize(cp.sum_squares(x)), [twice, 3 * x[0] == 1, 2 * x[1] == start[1], x[2] >= 0]
    )
    structure = canonicalize(given, [start], [x]).structure
    fixed = find_fixed(structure)
    assert len(fixed) == 2  # one of the two rows of x₀ stays, to be checked
    assert set(np.abs(fixed.pivots)) <= {1.0, 2.0, 3.0}
    assert fixed.reduced(structure).cones.zero == structure.cones.zero - 2


@pytest.mark.parametrize("make", [problem, with_fixed])
def test_presolve_keeps_solutions_and_adjoints(make: Any) -> None:
    """Lifted points satisfy the original KKT rows that the presolve took out, and the reduced ones map."""
    given, parameters, x = make()
    canonical = canonicalize(given, parameters, [x])
    structure = canonical.structure
    values = values_of(canonical, draw(parameters, 2))
    presolve = Presolve(structure)
    fixed, auxiliary = presolve.eliminations
    assert len(auxiliary)
    assert len(fixed) == (2 if make is with_fixed else 0)
    kept = fixed.kept_columns[auxiliary.kept_columns]
    kept_rows = fixed.kept_rows[auxiliary.kept_rows]
    e_columns = np.setdiff1d(np.arange(structure.n), kept)
    e_rows = np.setdiff1d(np.arange(structure.m), kept_rows)
    reduced = presolve.reduce(values.P, values.A)
    generator = torch.Generator().manual_seed(1)
    n, m = structure.n, structure.m
    k, r = len(kept), len(kept_rows)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    b = torch.zeros(values.b.shape[0], m, dtype=torch.float64)
    b[:, torch.as_tensor(structure.b_entries)] = values.b
    x_k, y_r = rand(2, k), rand(2, r)
    x_full, y_full = reduced.lift(x_k, y_r, values.q, b)
    q_reduced, b_reduced = reduced.vectors(values.q, b)
    x_bar, y_bar = rand(2, n), rand(2, m)
    x_bar_reduced, y_bar_reduced = reduced.restrict(x_bar, y_bar)
    p_k, v_r = rand(2, k), rand(2, r)
    p, v = reduced.lift_adjoint(p_k, v_r, x_bar, y_bar)
    for i in range(2):
        P, q, A, rhs = dense(canonical, values, i)
        P_, A_ = (
            reduced.P.values[min(i, len(reduced.P.values) - 1)],
            reduced.A.values[min(i, len(reduced.A.values) - 1)],
        )
        X, Y = x_full[i].numpy(), y_full[i].numpy()
        stationarity = P @ X + q + A.T @ Y
        np.testing.assert_allclose(stationarity[e_columns], 0, atol=1e-12)
        np.testing.assert_allclose((A @ X - rhs)[e_rows], 0, atol=1e-12)
        mine = P_ @ x_k[i] + q_reduced[min(i, len(q_reduced) - 1)] + A_.T @ y_r[i]
        np.testing.assert_allclose(stationarity[kept], mine.numpy(), atol=1e-11)
        b_i = b_reduced[min(i, len(b_reduced) - 1)]
        np.testing.assert_allclose((A @ X - rhs)[kept_rows], (A_ @ x_k[i] - b_i).numpy(), atol=1e-12)
        first = P @ p[i].numpy() + A.T @ v[i].numpy() - x_bar[i].numpy()
        np.testing.assert_allclose(first[e_columns], 0, atol=1e-11)
        np.testing.assert_allclose((A @ p[i].numpy() - y_bar[i].numpy())[e_rows], 0, atol=1e-12)
        np.testing.assert_allclose(
            first[kept], (P_ @ p_k[i] + A_.T @ v_r[i] - x_bar_reduced[i]).numpy(), atol=1e-11
        )
        rest = (A @ p[i].numpy() - y_bar[i].numpy())[kept_rows]
        np.testing.assert_allclose(rest, (A_ @ p_k[i] - y_bar_reduced[i]).numpy(), atol=1e-12)
