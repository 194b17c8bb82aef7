"""Rows of semidefinite cones that the kernels eliminate by themselves: answers, gradients, the factor."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.families import minimize
from problems.marks import needs_lanes

pytestmark = needs_lanes
Problem = tuple[cp.Problem, cp.Parameter, cp.Variable]


def symmetric(count: int, order: int, seed: int) -> list[np.ndarray]:
    """Matrices with all entries, ``(order, order)``."""
    drawn = np.random.default_rng(seed).normal(size=(count, order, order))
    return [0.5 * (one + one.T) for one in drawn]


def combination(x: cp.Variable, matrices: list[np.ndarray]) -> Any:
    """Of the matrices, by x."""
    return sum(x[i] * one for i, one in enumerate(matrices))


def spectral(rows: int = 4, columns: int = 5) -> Problem:
    """A matrix nearby of small spectral norm: each column of A has an entry or two on the cone's rows."""
    X, C = cp.Variable((rows, columns)), cp.Parameter((rows, columns))
    return minimize(0.5 * cp.sum_squares(X - C) + cp.norm(X, 2), cp.sum(X, axis=0) == 1), C, X


def inequality(n: int = 8, order: int = 5) -> Problem:
    """The nearest point with a linear matrix inequality, whose matrices have all entries."""
    x, q = cp.Variable(n), cp.Parameter(n)
    inside = combination(x, symmetric(n, order, 1)) << np.eye(order)
    return minimize(cp.sum_squares(x - q), inside), q, x


def linear(n: int = 8, order: int = 6) -> Problem:
    """A linear cost with such an inequality and bounds: vertices, which the interior-point method finds."""
    x, q = cp.Variable(n), cp.Parameter(n)
    inside = combination(x, symmetric(n, order, 2)) << np.eye(order)
    return minimize(q @ x + 1e-2 * cp.sum_squares(x), inside, cp.norm_inf(x) <= 2), q, x


def beside_other_cones(n: int = 6, order: int = 4) -> Problem:
    """Two such inequalities, a norm, an exponential."""
    x, q = cp.Variable(n), cp.Parameter(n)
    first, second = (combination(x, symmetric(n, order, seed)) for seed in (3, 4))
    cost = cp.sum_squares(x - q) + 0.3 * cp.norm(x[:4]) + 0.1 * cp.exp(x[0]) + cp.lambda_max(first)
    return minimize(cost, second << np.eye(order)), q, x


PROBLEMS = [spectral, inequality, linear, beside_other_cones]


def drawn(parameter: cp.Parameter, batch: int) -> torch.Tensor:
    return 2 * torch.randn(
        batch, *parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("make", PROBLEMS)
def test_solutions_meet_another_solvers(make: Callable[[], Problem]) -> None:
    program, parameter, variable = make()
    layer = CvxpyLayer(program, [parameter], [variable], engine="lanes", on_unconverged="raise")
    values = drawn(parameter, 6)
    (found,) = layer(values)
    for value, point in zip(values.numpy(), found.numpy(), strict=True):
        parameter.value = value
        best = program.solve(cp.CLARABEL)
        assert variable.value is not None
        np.testing.assert_allclose(point, variable.value, atol=1e-4)
        variable.value = point
        assert program.objective.value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("make", PROBLEMS)
def test_gradients_are_slopes(make: Callable[[], Problem]) -> None:
    """By central differences of the solutions."""
    program, parameter, variable = make()
    layer = CvxpyLayer(program, [parameter], [variable], engine="lanes", on_unconverged="raise")
    values = drawn(parameter, 6).requires_grad_()
    (found,) = layer(values)
    weights = torch.cos(torch.arange(found[0].numel(), dtype=torch.float64)).reshape(found[0].shape)
    (gradient,) = torch.autograd.grad((found * weights).sum(), values)
    direction, step = drawn(parameter, 7)[1:], 1e-5
    ends = [(layer(values.detach() + side * step * direction)[0] * weights) for side in (1, -1)]
    slopes = (ends[0] - ends[1]).flatten(1).sum(1) / (2 * step)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slopes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", PROBLEMS)
def test_equal_bits_in_a_batch_and_alone(make: Callable[[], Problem]) -> None:
    program, parameter, variable = make()
    layer = CvxpyLayer(program, [parameter], [variable], engine="lanes")
    values = drawn(parameter, 5).requires_grad_()
    (whole,) = layer(values)
    (gradient,) = torch.autograd.grad(whole.sin().sum(), values)
    for row in (0, 4):
        one = values[row].detach().requires_grad_()
        (alone,) = layer(one)
        assert torch.equal(alone, whole[row])
        assert torch.equal(torch.autograd.grad(alone.sin().sum(), one)[0], gradient[row])


def test_the_factor_has_no_entries_for_such_rows() -> None:
    """A matrix of order 2n and n² + 1 columns: 2n² + n rows, each of which the columns would share."""
    n = 8
    X, C = cp.Variable((n, n)), cp.Parameter((n, n))
    cost: Any = cp.sum(cp.multiply(C, X)) + cp.norm(X, 2)
    program = minimize(cost, X >= 0, cp.sum(X, axis=0) == 1, cp.sum(X, axis=1) == 1)
    layer: Any = CvxpyLayer(program, [C], [X], engine="lanes")
    layer(torch.zeros(n, n, dtype=torch.float64))
    entries, _ = layer.session.engine._batches.on(torch.device("cpu")).counts
    columns, rest = n * n + 1, n * n + 2 * n
    assert entries <= columns * (columns + 1) / 2 + rest * columns
