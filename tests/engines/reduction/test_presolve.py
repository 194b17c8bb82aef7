"""The maps from parameters to data, the presolve and the Newton matrix, each against a plain computation."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.canonical import canonicalize
from cvxfold.cones import ConeDims, ProductCone
from cvxfold.forward.elimination import find_auxiliaries, find_fixed
from cvxfold.forward.prepare import Preparation
from cvxfold.forward.presolve import Presolve
from cvxfold.forward.scaling import equilibrate
from cvxfold.linear.gram import InequalityGram
from cvxfold.linear.matrix import Matrix
from cvxfold.parametrize import Parametrization, ProgramValues
from cvxfold.structure import Canonical


def problem() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """Parameters that enter one to one, through a dense matrix, twice, symmetric, and as a scalar."""
    rng = np.random.default_rng(0)
    x = cp.Variable(4)
    L, c, S, gamma = (
        cp.Parameter((3, 4), name="L"),
        cp.Parameter(6, name="c"),
        cp.Parameter((2, 2), symmetric=True, name="S"),
        cp.Parameter(nonneg=True, name="gamma"),
    )
    objective = cp.sum_squares(L @ x - 1) + gamma * cp.sum(x) + (rng.standard_normal((4, 6)) @ c) @ x
    constraints = [
        S @ x[:2] <= 1,
        cp.norm(L @ x) <= 3 + gamma,
        cp.sum(x) == 1,
        x >= rng.standard_normal((4, 6)) @ c - 5,
    ]
    return cp.Problem(cp.Minimize(objective), constraints), [gamma, S, c, L], x


def values_of(canonical: Canonical, tensors: list[Tensor]) -> ProgramValues:
    return Parametrization(canonical, torch.device("cpu"))(tensors)


def draw(parameters: list[cp.Parameter], batch: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.rand(batch, *p.shape, dtype=torch.float64, generator=generator) for p in parameters]
    return [
        t + t.mT if p.is_symmetric() and p.ndim == 2 else t for t, p in zip(tensors, parameters, strict=True)
    ]


def dense(canonical: Canonical, values: ProgramValues, instance: int) -> tuple[np.ndarray, ...]:
    """P, q, A, b of one instance as dense arrays."""
    structure = canonical.structure
    P, A = np.zeros((structure.n, structure.n)), np.zeros((structure.m, structure.n))
    b = np.zeros(structure.m)

    def pick(value: Tensor) -> np.ndarray:
        return value[instance if value.shape[0] > 1 else 0].numpy()

    P[tuple(structure.P_entries)] = pick(values.P)
    A[tuple(structure.A_entries)] = pick(values.A)
    b[structure.b_entries] = pick(values.b)
    return P, pick(values.q), A, b


def test_data_are_those_of_cvxpy() -> None:
    given, parameters, x = problem()
    canonical = canonicalize(given, parameters, [x])
    tensors = draw(parameters, 3)
    values = values_of(canonical, tensors)
    for i in range(3):
        for parameter, tensor in zip(parameters, tensors, strict=True):
            parameter.value = tensor[i].numpy()
        data = cp.Problem(given.objective, given.constraints).get_problem_data(cp.SCS)[0]
        P, q, A, b = dense(canonical, values, i)
        upper = np.triu(data["P"].toarray())
        np.testing.assert_allclose(np.triu(P), upper, atol=1e-14)
        np.testing.assert_allclose(q, data["c"], atol=1e-14)
        np.testing.assert_allclose(A, data["A"].toarray(), atol=1e-14)
        np.testing.assert_allclose(b, data["b"], atol=1e-14)


def test_data_that_no_batched_parameter_reaches_stay_shared() -> None:
    given, parameters, x = problem()
    canonical = canonicalize(given, parameters, [x])
    gamma, S, c, L = draw(parameters, 5)
    values = values_of(canonical, [gamma[:1], S[:1], c, L[:1]])
    assert [value.shape[0] for value in values] == [1, 5, 1, 5]  # c enters q and b
    full = values_of(canonical, [gamma[:1].expand(5), S[:1].expand(5, -1, -1), c, L[:1].expand(5, -1, -1)])
    for shared, batched in zip(values, full, strict=True):
        torch.testing.assert_close(shared.expand_as(batched), batched, rtol=0, atol=0)


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


def with_fixed() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """The same problem with two of its variables set by parameters, one with a coefficient."""
    given, parameters, x = problem()
    start = cp.Parameter(2)
    more: list[Any] = [x[0] == start[0], -2 * x[2] == start[1]]
    return cp.Problem(given.objective, given.constraints + more), [*parameters, start], x


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


def test_equilibration_evens_out_ten_orders_of_magnitude() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2, 9, 5, dtype=torch.float64, generator=generator)
    A = A * torch.logspace(-3, 3, 9, dtype=torch.float64).unsqueeze(-1)
    P = torch.diag_embed(torch.logspace(-2, 2, 5, dtype=torch.float64)).unsqueeze(0)
    dims = ConeDims(zero=2, nonnegative=3, second_order=(4,))
    D, E = equilibrate(Matrix(P), Matrix(A), ProductCone(dims).blocks())
    assert torch.equal(E[:, 5:], E[:, 5:6].expand(-1, 4))  # one factor for a second-order cone
    scaled_A, scaled_P = Matrix(A).scale(E, D).values, Matrix(P).scale(D, D).values
    columns = (scaled_A.square().sum(1) + scaled_P.square().sum(1)).sqrt()
    assert columns.max() / columns.min() < 3
    rows = scaled_A[:, :5].norm(dim=-1)
    assert rows.max() / rows.min() < 3


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_weighted_gram_matrix(density: float) -> None:
    rng = np.random.default_rng(1)
    dims = ConeDims(zero=2, nonnegative=12, second_order=(3, 3))
    n, m = 10, dims.rows
    mask = rng.random((m, n)) < density
    mask[5] = False  # an empty row
    mask[6] = True  # a full one
    A = torch.as_tensor(mask * rng.standard_normal((2, m, n)))
    D = ProductCone(dims).derivative(torch.as_tensor(rng.standard_normal((2, m))))
    gram = InequalityGram(np.stack(np.nonzero(mask)), dims, n)(A, D, lambda d: (1 - d) / (d + 0.5))
    weighted = D.apply(lambda d: (1 - d) / (d + 0.5), A)
    expected = A[:, 2:].mT @ weighted[:, 2:]
    torch.testing.assert_close(gram, expected, rtol=1e-12, atol=1e-12)


def test_preparation_knows_its_own_values() -> None:
    given, parameters, x = problem()
    canonical = canonicalize(given, parameters, [x])
    first, other = (values_of(canonical, draw(parameters, 2, seed)) for seed in (0, 1))
    prepared = Preparation(canonical.structure).prepare(first.P, first.A)
    assert prepared.fits(first.P.clone(), first.A.clone(), bare=False)
    assert not prepared.fits(other.P, other.A, bare=False)
    assert not prepared.fits(first.P, first.A[:1], bare=False)
    assert not prepared.fits(first.P, first.A, bare=True)
