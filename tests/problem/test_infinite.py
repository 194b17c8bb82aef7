"""Bounds at infinity bound nothing; other infinite constants are refused."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.families import minimize

F64 = torch.float64
INF = np.inf


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "bounds",
    [
        lambda x, p: [x <= np.array([INF, 0.3, INF]), x >= np.array([-INF, -INF, 1.0])],
        lambda x, p: [x[1] <= 0.3, x[2] >= 1, cp.multiply(p, x) <= INF, x + p >= -INF],
        lambda x, p: [x[1] <= 0.3, x[2] >= 1, cp.norm(x) <= INF, cp.sum(cp.exp(x)) <= INF],
    ],
)
def test_a_bound_at_infinity_is_none(bounds: Callable[..., list[Any]]) -> None:
    """The projection of c onto x₂ ≤ 0.3, x₃ ≥ 1, by clamping; the infinite bounds' multipliers are zero."""
    x, c, p = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    constraints = bounds(x, p)
    problem = minimize(0.5 * cp.sum_squares(x - c) + 0 * cp.sum(p), *constraints)
    layer = CvxpyLayer(problem, [c, p], [x, constraints[0].dual_variables[0]], on_unconverged="raise")
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 3, dtype=F64, generator=generator).requires_grad_()
    found, dual = layer(values, torch.ones(3, dtype=F64))
    low, high = torch.tensor([-INF, -INF, 1.0], dtype=F64), torch.tensor([INF, 0.3, INF], dtype=F64)
    expected = torch.minimum(torch.maximum(values, low), high)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn(5, 3, dtype=F64, generator=generator)
    (mine,) = torch.autograd.grad(found, values, weights, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, values, weights)
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
    if dual.shape[1:] == (3,):
        assert (dual[:, [0, 2]] == 0).all()
        torch.testing.assert_close(dual[:, 1], (values[:, 1] - 0.3).clamp_min(0), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "constraint",
    [
        lambda x: x == INF,
        lambda x: x <= -INF,
        lambda x: x >= np.nan,
        lambda x: cp.SOC(cp.Constant(INF), x),
    ],
)
def test_other_infinite_constants_are_refused(constraint: Callable[[cp.Variable], Any]) -> None:
    x, c = cp.Variable(3), cp.Parameter(3)
    problem = minimize(cp.sum_squares(x - c), constraint(x))
    with pytest.raises(ValueError, match=r"finite|NaN|inf"):
        CvxpyLayer(problem, [c], [x])
