"""Dual variables of every class of constraint are stationary and complementary, in the user's terms."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.constraint_cases import (
    BY_AXIS,
    BY_SHAPE,
    SHAPES,
    STACKS,
    Given,
    exponential,
    is_optimal,
    power,
    powers,
    relative_entropy,
    second_order,
    semidefinite,
)
from problems.lagrangian import Optimum
from problems.marks import sliced


@pytest.mark.filterwarnings("ignore:.*NonPos")
@pytest.mark.parametrize("shape", sliced(SHAPES, lambda shape: len(shape) in (0, 3)), ids=str)
@pytest.mark.parametrize("make", BY_SHAPE)
def test_entry_by_entry(
    make: Callable[[tuple[int, ...], np.random.Generator], Given], shape: tuple[int, ...]
) -> None:
    is_optimal(*make(shape, np.random.default_rng(len(shape))))


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_approximate_relative_entropy(shape: tuple[int, ...]) -> None:
    """Which cvxpy has no dual of."""
    is_optimal(*relative_entropy(shape, np.random.default_rng(0)))


@pytest.mark.parametrize(("axis", "shape"), BY_AXIS, ids=str)
def test_second_order_cones(axis: int, shape: tuple[int, ...]) -> None:
    is_optimal(*second_order(axis, shape, np.random.default_rng(1)))


@pytest.mark.parametrize(("axis", "shape"), BY_AXIS[:3], ids=str)
def test_power_cones_of_any_dimension(axis: int, shape: tuple[int, ...]) -> None:
    is_optimal(*powers(axis, shape, np.random.default_rng(2)))


@pytest.mark.parametrize("attributes", [{}, {"symmetric": True}], ids=str)
@pytest.mark.parametrize("shape", sliced(STACKS, lambda shape: shape == (2, 2, 3, 3)), ids=str)
def test_semidefinite_matrices_and_stacks(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    """(4, 2, 2) is the shape whose first dimension could be taken for an order without an error."""
    is_optimal(*semidefinite(shape, np.random.default_rng(3), **attributes))


@pytest.mark.parametrize("make", [exponential, power])
def test_on_both_engines(engine: str, make: Callable[..., Given]) -> None:
    is_optimal(*make((2, 3), np.random.default_rng(4)))


def test_the_gradient_of_a_stack_of_duals(engine: str) -> None:
    """Of a stack of full matrices; against finite differences."""
    problem, parameters, values = semidefinite((2, 2, 2), np.random.default_rng(5))
    layer = CvxpyLayer(problem, parameters, [problem.constraints[0].dual_variables[0]], tol=1e-11)
    value = torch.as_tensor(values[0], dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (dual,) = layer(value)
    (gradient,) = torch.autograd.grad((weights * dual).sum(), value)
    way = torch.randn(2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ahead, behind = (((weights * layer(value + step * way)[0]).sum()) for step in (1e-5, -1e-5))
    assert float((gradient * way).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6)


def test_a_geometric_program() -> None:
    """min 1/(x y) with x y² ≤ b, x ≤ 1: in logarithms min −u − v, u + 2v ≤ log b, u ≤ 0: duals ½ and ½."""
    x, y, b = cp.Variable(pos=True), cp.Variable(pos=True), cp.Parameter(pos=True)
    constraints: list[Any] = [x * y**2 <= b, x <= 1]
    problem = cp.Problem(cp.Minimize(1 / (x * y)), constraints)
    duals = [constraint.dual_variables[0] for constraint in constraints]
    layer = CvxpyLayer(problem, [b], [x, y, *duals], gp=True, tol=1e-11)
    found = [float(each) for each in layer(torch.tensor(4.0, dtype=torch.float64))]
    assert found == pytest.approx([1.0, 2.0, 0.5, 0.5], abs=1e-8)


def test_duals_that_cvxpy_approximates_are_refused() -> None:
    X, Y, T = (cp.Variable((2, 2), symmetric=True) for _ in range(3))
    constraint = cp.OpRelEntrConeQuad(X, Y, T, 2, 2)
    problem = cp.Problem(cp.Minimize(cp.trace(T)), [constraint, np.eye(2) == X, np.eye(2) == Y])
    with pytest.raises(ValueError, match="OpRelEntrConeQuad"):
        CvxpyLayer(problem, [], [constraint.dual_variables[0]])


def test_the_check_of_stationarity_sees_a_transposed_dual() -> None:
    optimum = Optimum(*exponential((2, 2), np.random.default_rng(6)))
    dual = optimum.duals[id(optimum.dual_variables[0])]
    assert optimum.slope() < 1e-6
    optimum.duals = {**optimum.duals, id(optimum.dual_variables[0]): dual.T}
    assert optimum.slope() > 1e-2
