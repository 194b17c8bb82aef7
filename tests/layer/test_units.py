"""The unit of the cost and that of x are the user's affair: cents or millions, x and gradients are the same.

min c (γ/2 xᵀΣx/a + μᵀx) over A x ≤ a b, x ≥ −a has the solution a x₀, and dx/dμ = (a/c) dx₀/dμ, dx/db = a
dx₀/db, whatever the units c and a are.
"""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.families import minimize
from problems.marks import sliced

F64 = torch.float64
BATCH, SIZE, ROWS, SEED = 4, 6, 4, 0
FACTOR = np.random.default_rng(SEED).normal(size=(SIZE, SIZE)) + 2 * np.eye(SIZE)
A = np.abs(np.random.default_rng(SEED + 1).normal(size=(ROWS, SIZE)))
KINDS = ["linear", "quadratic form", "sum of squares", "its factor a parameter", "with a norm"]
UNITS = [
    (1e-4, 1.0),
    (1e-12, 1.0),
    (1e8, 1.0),
    (1.0, 1e-8),
    (1.0, 1e9),
    (1e-8, 1e6),
    (1e-10, 1e7),
    (1e8, 1e-6),
]


def problem_of(kind: str, cost: float, amount: float) -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """In units: the problem, its parameters μ and b, perhaps a factor, and x."""
    x, mu, b, factor = cp.Variable(SIZE), cp.Parameter(SIZE), cp.Parameter(ROWS), cp.Parameter((SIZE, SIZE))
    risk = {
        "linear": 0,
        "quadratic form": cp.quad_form(x, cost / amount * FACTOR.T @ FACTOR) / 2,
        "sum of squares": cp.sum_squares((cost / amount) ** 0.5 * FACTOR @ x) / 2,
        "its factor a parameter": cp.sum_squares(factor @ x) / 2,
        "with a norm": cp.quad_form(x, cost / amount * FACTOR.T @ FACTOR) / 2 + 0.3 * cost * cp.norm(x),
    }[kind]
    problem = minimize(risk + mu @ x, A @ x <= b, x >= -amount)
    return problem, [mu, b, *([factor] if "parameter" in kind else [])], x


def values_of(cost: float, amount: float) -> tuple[Tensor, Tensor, Tensor]:
    """μ, b and the factor, in units."""
    generator = torch.Generator().manual_seed(SEED)
    mu = torch.randn(BATCH, SIZE, dtype=F64, generator=generator)
    b = 0.5 + torch.rand(BATCH, ROWS, dtype=F64, generator=generator)
    return cost * mu, amount * b, (cost / amount) ** 0.5 * torch.tensor(FACTOR)


def weights() -> Tensor:
    return torch.randn(BATCH, SIZE, dtype=F64, generator=torch.Generator().manual_seed(SEED + 2))


def by_clarabel(kind: str, mu: Tensor, b: Tensor, factor: Tensor) -> Tensor:
    """x at each of some μ and b, in plain units."""
    problem, parameters, x = problem_of(kind, 1.0, 1.0)
    found = []
    for values in zip(mu, b, strict=True):
        for parameter, value in zip(parameters, (*values, factor), strict=False):
            parameter.value = value.numpy()
        problem.solve(cp.CLARABEL, tol_feas=1e-10, tol_gap_abs=1e-10, tol_gap_rel=1e-10)
        found.append(torch.tensor(x.value, dtype=F64))
    return torch.stack(found)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("units", sliced(UNITS, lambda units: units != (1e-8, 1e6)))
@pytest.mark.parametrize("kind", KINDS)
def test_units_do_not_matter(kind: str, units: tuple[float, float]) -> None:
    """x against Clarabel in plain units; the gradient against central differences there."""
    cost, amount = units
    problem, parameters, x = problem_of(kind, cost, amount)
    layer = CvxpyLayer(problem, parameters, [x])
    values = [value.requires_grad_() for value in values_of(cost, amount)[: len(parameters)]]
    (found,) = layer(*values)
    assert layer.report is not None
    assert set(layer.report.forward.status) == {cvxfold.Status.SOLVED}
    on_mu, on_b = torch.autograd.grad((found * weights()).sum(), values[:2])
    assert layer.report.backward is not None
    assert set(layer.report.backward.verdict) == {cvxfold.Verdict.CONVERGED}
    mu, b, factor = values_of(1.0, 1.0)
    torch.testing.assert_close(
        found.detach() / amount, by_clarabel(kind, mu, b, factor), rtol=1e-6, atol=1e-6
    )
    by_mu, by_b = weights().flip(0), weights()[:, :ROWS].flip(1)
    along = (on_mu * cost / amount * by_mu).sum(1) + (on_b * by_b).sum(1)
    step = 1e-4
    ahead, behind = (by_clarabel(kind, mu + t * by_mu, b + t * by_b, factor) for t in (step, -step))
    slope = ((ahead - behind) * weights()).sum(1) / (2 * step)
    torch.testing.assert_close(along, slope, rtol=1e-4, atol=1e-4)


def test_one_in_other_units_beside_others(engine: str) -> None:
    """Alone, and in a batch that shares P and A: the others take no harm, and lanes give the same bits."""
    for kind in KINDS[:2]:
        problem, parameters, x = problem_of(kind, 1.0, 1.0)
        layer = CvxpyLayer(problem, parameters, [x])
        mu, b, _ = values_of(1.0, 1.0)
        if kind == "linear":
            small, tiny = mu * torch.tensor([[1.0], [1e-9], [1.0], [1.0]], dtype=F64), b
            (found,), (plain,) = layer(small, tiny), layer(mu, b)
            torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-11)
        else:  # where b is large the quadratic part decides, if q is as large
            scale = torch.tensor([[1.0], [1e-9], [1.0], [1.0]], dtype=F64)
            small, tiny = mu * scale, b
            (found,), (plain,) = layer(small, tiny), layer(mu, b)
            torch.testing.assert_close(found[[0, 2, 3]], plain[[0, 2, 3]], rtol=1e-9, atol=1e-11)
            free = -torch.linalg.solve(torch.tensor(FACTOR.T @ FACTOR), small[1])
            torch.testing.assert_close(found[1], free, rtol=1e-7, atol=0)
        (alone,) = layer(small[1], tiny[1])
        if engine == "lanes":
            assert torch.equal(alone, found[1])
        else:
            torch.testing.assert_close(alone, found[1], rtol=1e-9, atol=1e-11)
