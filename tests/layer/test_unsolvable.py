"""Infeasible and unbounded instances are named, by index, in an error that is also diffcp's."""

from typing import Any

import cvxpy as cp
import diffcp
import pytest
import torch

import cvxfold
from cases import said
from cvxfold.forward.certificates import infeasibility
from cvxfold.fuzz.programs import Ending
from cvxfold.fuzz.solve import replay
from cvxfold.torch import CvxpyLayer
from families import minimize

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


def test_a_proof_is_more_than_what_rounding_leaves() -> None:
    """Aᵀδy = 0 and bᵀδy = −6e-17, of terms of size 0.1 that cancel: this proved the program infeasible."""
    x, b = cp.Variable(), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.square(x), x <= b[0], -x <= b[1]), [b], [x])
    bounds = torch.tensor([[0.1, -0.1], [0.1, -0.2]], dtype=F64)
    _, values, _ = layer.program(bounds)
    prepared = layer.core.prepare(values, layer.options.forward)
    program, scaling = prepared.program(values.q, layer.core.right_hand_side(values), 2)
    zero = program.A.values[..., 0].abs()
    multiplier = (zero.flip(-1) / zero.amax(-1, keepdim=True)).expand(2, -1).clone()
    support = program.b * multiplier
    multiplier[0, 0] *= -float(support[0, 1] / support[0, 0]) * (1 - 2.0**-52)
    proofs = infeasibility(program, scaling, multiplier)
    assert float((program.b * multiplier).sum(-1)[1]) < -1e-3
    assert proofs.isinf().tolist() == [True, False]
    assert [str(status) for status in _statuses(layer, [[0.1, -0.1], [0.1, -0.2]])] == [
        "solved",
        "infeasible",
    ]


def _statuses(layer: CvxpyLayer, values: list[list[float]]) -> list[Any]:
    with pytest.raises(cvxfold.InfeasibleError):
        layer(torch.tensor(values, dtype=F64))
    assert layer.report is not None
    return layer.report.forward.status


def test_an_unbounded_program_that_was_called_infeasible() -> None:
    """One variable, two second-order cones and an exponential one; the objective falls by 1e-6 a unit."""
    case = replay(0, 772)
    layer = case.layer()
    layer(*case.values)
    assert layer.report is not None
    for status, instance in zip(layer.report.forward.status, case.instances, strict=True):
        expected = {Ending.SOLUTION: "solved", Ending.UNBOUNDED: "unbounded"}[instance.ending]
        assert str(status) == expected
