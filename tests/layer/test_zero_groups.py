"""Groups that a norm makes zero: second-order cones at their apex, where nothing is left but rounding."""

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.families import minimize


@pytest.mark.parametrize("axis", [0, 1])
def test_the_proximal_map_of_a_sum_of_norms(engine: str, axis: int) -> None:
    """b (1 − 1/‖b‖)₊ for each group, and its gradient."""
    x, b = cp.Variable((3, 4)), cp.Parameter((3, 4))
    problem = minimize(cp.sum(cp.norm(x, 2, axis=axis)) + 0.5 * cp.sum_squares(x - b))
    layer = CvxpyLayer(problem, [b], [x])
    value = 0.8 * torch.randn(16, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given, true = (value.clone().requires_grad_() for value in (value, value))
    (found,) = layer(given)
    expected = true * (1 - 1 / true.norm(dim=axis + 1, keepdim=True)).clamp(min=0)
    assert (expected == 0).any()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn(16, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for outputs in (found, expected):
        (weights * outputs).sum().backward()
    torch.testing.assert_close(given.grad, true.grad, rtol=1e-7, atol=1e-7)
    report = layer.report
    assert report is not None
    assert set(report.forward.status) == {cvxfold.Status.SOLVED}
    assert not report.forward.rescued.any()
