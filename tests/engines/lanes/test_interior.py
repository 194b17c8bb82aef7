"""Degenerate programs, which Newton's method leaves: the interior-point method inside of the kernels."""

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
Problem = tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]
FIRST_ITERATIONS = 10  # of F before Newton's method; more would be rounds after the interior-point method


def matching(n: int = 4) -> Problem:
    """A linear cost of doubly stochastic matrices and a little of their spectral norm."""
    X, C = cp.Variable((n, n)), cp.Parameter((n, n))
    cost: Any = cp.sum(cp.multiply(C, X)) + 0.1 * cp.norm(X, 2)
    return minimize(cost, X >= 0, cp.sum(X, axis=0) == 1, cp.sum(X, axis=1) == 1), [C], [X]


def max_cut(n: int = 6) -> Problem:
    """The relaxation of Goemans and Williamson, whose solutions have low rank."""
    X, W = cp.Variable((n, n), PSD=True), cp.Parameter((n, n), symmetric=True)
    return minimize(cp.sum(cp.multiply(W, X)), cp.diag(X) == 1), [W], [X]


def least_trace(n: int = 4) -> Problem:
    """A matrix of least trace above two others, with a second-order cone and bounds beside it."""
    X, A, B = (
        cp.Variable((n, n), symmetric=True),
        np.diag(np.arange(n) - 1.0),
        cp.Parameter((n, n), symmetric=True),
    )
    return minimize(cp.trace(X) + cp.norm(X[0]), X >> A, X >> B, cp.diag(X) >= 0.1), [B], [X]


@pytest.mark.parametrize("make", [matching, max_cut, least_trace])
def test_semidefinite_programs_end_in_the_kernels_at_the_optimum(make: Callable[[], Problem]) -> None:
    problem, parameters, variables = make()
    layer = CvxpyLayer(problem, parameters, variables, engine="lanes", on_unconverged="raise")
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, *parameters[0].shape, dtype=torch.float64, generator=generator)
    if parameters[0].attributes["symmetric"]:
        values = 0.5 * (values + values.mT)
    (found,) = layer(values)
    assert layer.report is not None
    assert layer.report is not None
    assert layer.report.engine == "lanes"
    assert layer.report.forward.iterations.max() <= FIRST_ITERATIONS
    assert layer.report.forward.newton_steps.max() > 5  # and it is no easy problem
    for value, point in zip(values, found, strict=True):
        parameters[0].value = value.numpy()
        best = problem.solve(cp.CLARABEL)
        variables[0].value = point.numpy()
        worst = max(float(np.max(constraint.violation())) for constraint in problem.constraints)
        assert worst < 1e-8
        assert problem.objective.value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("n", [4, 8])
def test_newtons_method_gives_way_where_its_steps_stay_short(n: int) -> None:
    """Some 4 short steps, 10 or so of the other method and the last ones; 21 to 24 where both take longer."""
    problem, parameters, variables = matching(n)
    layer = CvxpyLayer(problem, parameters, variables, engine="lanes", on_unconverged="raise")
    layer(torch.randn(5, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert layer.report is not None
    assert layer.report.forward.newton_steps.max() <= 19


@pytest.mark.parametrize("make", [matching, least_trace])
def test_what_is_given_up_beside_it_changes_nothing(make: Callable[[], Problem]) -> None:
    """Equal bits in a batch of other instances and alone."""
    problem, parameters, variables = make()
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(5, *parameters[0].shape, dtype=torch.float64, generator=generator)
    values = 0.5 * (values + values.mT)
    layer = CvxpyLayer(problem, parameters, variables, engine="lanes")
    (whole,) = layer(values)
    for row in (0, 4):
        (alone,) = layer(values[row])
        assert torch.equal(alone, whole[row])
