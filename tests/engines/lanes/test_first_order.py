"""``refine=False``: the accelerated iteration alone, in the kernels, to its tolerance."""

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate, make_layer
from problems.families import minimize
from problems.marks import needs_lanes

pytestmark = [needs_lanes, pytest.mark.filterwarnings("ignore::cvxfold.ConvergenceWarning")]
NAMES = ["dense_qp20", "portfolio", "many_cones", "log_sum_exp"]
FINEST = {"log_sum_exp": 1e-8}
"""Where the iteration's own rounding, 1e-14 in equilibrated units, is 1e-9 in those of the problem."""


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_as_near_as_the_tolerance_says(name: str) -> None:
    c = case(name, 9)
    rough, fine = [], []
    for tol, found in ((1e-3, rough), (FINEST.get(name, 1e-9), fine)):
        layer = make_layer(c, engine="lanes", refine=False, tol=tol)
        found += [errors(evaluate(layer, c)[0], c.values).max(), int(layer.report.forward.iterations.max())]
        assert layer.report.engine == "lanes"
        assert layer.report.forward.newton_steps.max() == 0
        assert layer.report.forward.primal_residual.max() > 0
        assert layer.report.forward.residual.max() <= 2 * tol
    assert rough[0] < 1
    assert fine[0] < 1e-6
    assert rough[1] <= fine[1] < 2_000


def test_acceleration_helps_and_memory_0_is_the_iteration_itself() -> None:
    c = case("least_absolute", 5)
    counts = []
    for memory in (8, 0):
        layer = make_layer(c, engine="lanes", refine=False, tol=1e-8, acceleration=memory)
        evaluate(layer, c)
        counts.append(layer.report.forward.iterations.double().mean())
    assert counts[0] < 0.5 * counts[1]


def test_no_more_iterations_than_were_asked_for() -> None:
    """The second pass goes on from where the first one ended."""
    c = case("linear_program", 8)
    layer = make_layer(c, engine="lanes", refine=False, max_iters=400, on_unconverged="ignore")
    evaluate(layer, c)
    report = layer.report.forward
    unsolved = torch.tensor([status is cvxfold.Status.UNCONVERGED for status in report.status])
    assert 0 < unsolved.sum() < 8
    assert (report.iterations[unsolved] == 400).all()
    assert (report.iterations[~unsolved] <= 400).all()


def test_what_has_no_solution_is_told() -> None:
    x, b = cp.Variable(2), cp.Parameter(2)
    infeasible = CvxpyLayer(
        minimize(cp.sum_squares(x), x >= b, cp.sum(x) <= 1), [b], [x], engine="lanes", refine=False
    )
    (found,) = infeasible(torch.tensor([[0.1, 0.2], [0.0, -1.0]], dtype=torch.float64))
    torch.testing.assert_close(
        found, torch.tensor([[0.1, 0.2], [0.0, 0.0]], dtype=torch.float64), atol=1e-6, rtol=0
    )
    with pytest.raises(cvxfold.InfeasibleError, match=r"instances? \[?1"):
        infeasible(torch.tensor([[0.1, 0.2], [3.0, 1.0]], dtype=torch.float64))
    unbounded = CvxpyLayer(minimize(b @ x, x >= 0), [b], [x], engine="lanes", refine=False)
    with pytest.raises(cvxfold.UnboundedError):
        unbounded(torch.tensor([1.0, -1.0], dtype=torch.float64))
