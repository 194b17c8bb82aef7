"""Programs that ask for any point of a set: where nothing costs anything, multipliers of zero are right."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.families import minimize

BATCH, SIZE = 6, 5
SETS: dict[str, Callable[[Any, Any], list[Any]]] = {  # of x and a; all hold at x = a
    "balls": lambda x, a: [cp.norm(x - a) <= 1, cp.norm(x) <= 9],
    "a ball and a plane": lambda x, a: [cp.norm(x - a) <= 2, cp.sum(x) == cp.sum(a)],
    "a box": lambda x, a: [x >= a - 1, x <= a + 2],
    "exponentials": lambda x, a: [cp.log_sum_exp(x - a) <= 4, x >= a - 3],
    "powers": lambda x, a: [cp.geo_mean(x - a + 1) >= 0.5, x <= a + 5],
    "matrices": lambda x, a: [cp.lambda_max(cp.diag(x - a) + 0.1) <= 3, cp.norm(x - a, 1) <= 4],
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", list(SETS))
@pytest.mark.filterwarnings("ignore::cvxfold.ConvergenceWarning")  # any point is a solution
def test_any_point_of_a_set(name: str) -> None:
    x, a, c = cp.Variable(SIZE), cp.Parameter(SIZE), cp.Parameter(SIZE)
    problem = minimize(c @ x, *SETS[name](x, a))
    duals = [dual for constraint in problem.constraints for dual in constraint.dual_variables]
    layer = CvxpyLayer(problem, [a, c], [x, *duals])
    value = torch.randn(BATCH, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    found, *multipliers = layer(value, torch.zeros(SIZE, dtype=torch.float64))
    report = layer.report
    assert report is not None
    assert set(report.forward.status) == {cvxfold.Status.SOLVED}
    assert not report.forward.rescued.any()
    for at, point in zip(value, found, strict=True):
        a.value, x.value = at.numpy(), point.numpy()
        assert max(constraint.violation().max() for constraint in problem.constraints) < 1e-8
    assert all(multiplier.abs().max() < 1e-9 for multiplier in multipliers)
