"""Infeasible and unbounded instances are named, by index, in an error that is also diffcp's."""

from typing import Any

import cvxpy as cp
import diffcp
import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.cases import said
from problems.families import minimize

pytestmark = pytest.mark.usefixtures("engine")

F64 = torch.float64


def _box() -> CvxpyLayer:
    """½‖x‖² with low ≤ x ≤ high."""
    x, low, high = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    return CvxpyLayer(minimize(0.5 * cp.sum_squares(x), x >= low, x <= high), [low, high], [x])


def _equations() -> CvxpyLayer:
    """½‖x‖² with two equations that agree only where their right sides do."""
    x, low, high = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    return CvxpyLayer(minimize(0.5 * cp.sum_squares(x), x == low, x == low + high - 1), [low, high], [x])


def _balls() -> CvxpyLayer:
    """½‖x‖² within 1 of low and of high."""
    x, low, high = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    balls = (cp.norm(x - low) <= 1, cp.norm(x - high) <= 1)
    return CvxpyLayer(minimize(0.5 * cp.sum_squares(x), *balls), [low, high], [x])


@pytest.mark.parametrize(("make", "bad"), [(_box, -1.0), (_equations, 2.0), (_balls, 9.0)])
def test_infeasible_instances_are_named(make: Any, bad: float) -> None:
    low, high = torch.zeros(5, 3, dtype=F64), torch.ones(5, 3, dtype=F64)
    high[1], high[3] = bad, bad
    with pytest.raises(cvxfold.InfeasibleError) as error:
        make()(low, high)
    assert error.value.indices == [1, 3]
    said(error, "1", "3")
    assert isinstance(error.value, cvxfold.SolverError)
    assert isinstance(error.value, diffcp.SolverError)


@pytest.mark.parametrize("quadratic", [False, True])
def test_unbounded_instances_are_named(quadratic: bool) -> None:
    x, c = cp.Variable(3), cp.Parameter(3)
    cost = c @ x + (0.5 * cp.square(x[0]) if quadratic else 0)
    layer = CvxpyLayer(minimize(cost, x >= -1), [c], [x])
    costs = torch.ones(4, 3, dtype=F64)
    costs[2, 1] = -1
    with pytest.raises(cvxfold.UnboundedError) as error:
        layer(costs)
    assert error.value.indices == [2]
    said(error, "2")
    assert isinstance(error.value, diffcp.SolverError)


def test_unbounded_without_constraints() -> None:
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(c @ x + 0.5 * cp.square(x[0])), [c], [x])
    with pytest.raises(cvxfold.UnboundedError) as error:
        layer(torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=F64))
    assert error.value.indices == [1]


def test_infeasible_and_unbounded_together() -> None:
    x, c, high = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    layer = CvxpyLayer(minimize(c @ x, x >= 0, x[0] <= high), [c, high], [x])
    costs, highs = torch.ones(4, 2, dtype=F64), torch.ones(4, dtype=F64)
    highs[0], costs[3] = -1, -1
    with pytest.raises(cvxfold.SolverError) as error:
        layer(costs, highs)
    said(error, "0", "3")


def test_an_error_leaves_the_layer_usable() -> None:
    layer = _box()
    low, high = torch.ones(2, 3, dtype=F64), torch.zeros(2, 3, dtype=F64)
    with pytest.raises(cvxfold.InfeasibleError):
        layer(low, high)
    (x,) = layer(low, high + 2)
    torch.testing.assert_close(x, low)


def test_report_of_a_failed_call_tells_the_status_of_every_instance() -> None:
    x, bound = cp.Variable(2), cp.Parameter()
    problem = minimize(cp.sum_squares(x), x >= bound, cp.sum(x) <= 1)
    layer = CvxpyLayer(problem, [bound], [x])
    with pytest.raises(cvxfold.InfeasibleError):
        layer(torch.tensor([0.0, 3.0, 0.2]))
    assert layer.report is not None
    assert [status.value for status in layer.report.forward.status] == ["solved", "infeasible", "solved"]


def semidefinite() -> Any:
    X, b = cp.Variable((2, 2), PSD=True), cp.Parameter()
    return minimize(cp.trace(X), X[0, 0] == b), [b], [X]


def exponential() -> Any:
    x, b = cp.Variable(), cp.Parameter()
    return minimize(cp.square(x), cp.exp(x) <= b), [b], [x]


def power() -> Any:
    x, b = cp.Variable(2), cp.Parameter()
    return minimize(cp.sum_squares(x), cp.PowCone3D(x[0], x[1], b, 0.3), cp.sum(x) <= -b), [b], [x]


@pytest.mark.parametrize(
    ("make", "good", "bad"), [(semidefinite, 1.0, -1.0), (exponential, 1.0, -1.0), (power, 0.0, 1.0)]
)
def test_infeasible_over_the_curved_cones(make: Any, good: float, bad: float) -> None:
    layer = CvxpyLayer(*make())
    with pytest.raises(cvxfold.InfeasibleError) as error:
        layer(torch.tensor([good, bad, good], dtype=F64))
    assert error.value.indices == [1]


def test_unbounded_over_the_curved_cones() -> None:
    X, C = cp.Variable((2, 2), PSD=True), cp.Parameter((2, 2))
    layer = CvxpyLayer(minimize(cp.trace(C @ X), X[0, 0] <= 1), [C], [X])
    C_values = torch.eye(2, dtype=F64).repeat(3, 1, 1)
    C_values[2, 1, 1] = -1
    with pytest.raises(cvxfold.UnboundedError) as error:
        layer(C_values)
    assert error.value.indices == [2]
