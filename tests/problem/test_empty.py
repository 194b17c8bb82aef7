"""Parameters, variables and constraints without entries, as sizes that are counted often make them."""

from typing import Any

import cvxpy as cp
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.families import minimize

pytestmark = pytest.mark.usefixtures("engine")


def test_they_come_back_empty_and_change_nothing() -> None:
    """½‖x − c‖² with x ≥ l: the larger of both."""
    x, z = cp.Variable(3), cp.Variable((2, 0))
    G, h = cp.Parameter((0, 3)), cp.Parameter(0)
    c, lowest = cp.Parameter(3), cp.Parameter(3)
    none: Any = G @ x == h
    least: Any = x >= lowest
    problem = minimize(0.5 * cp.sum_squares(x - c) + cp.sum(z), none, z >= 1, least)
    variables = [z, x, none.dual_variables[0], least.dual_variables[0]]
    layer = CvxpyLayer(problem, [G, c, h, lowest], variables)
    c_value = torch.tensor([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], dtype=torch.float64, requires_grad=True)
    l_value = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    G_value = torch.zeros(2, 0, 3, dtype=torch.float64, requires_grad=True)
    found_z, found_x, found_none, found_least = layer(G_value, c_value, torch.zeros(0), l_value)
    assert found_z.shape == (2, 2, 0)
    assert found_none.shape == (2, 0)
    torch.testing.assert_close(found_x, c_value.clamp_min(0.0), rtol=0, atol=1e-9)
    torch.testing.assert_close(found_least, (-c_value).clamp_min(0.0), rtol=0, atol=1e-9)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    ((found_x * weights).sum() + found_z.sum()).backward()
    assert c_value.grad is not None
    assert l_value.grad is not None
    above = (c_value.detach() > 0).double()
    torch.testing.assert_close(c_value.grad, above * weights, rtol=0, atol=1e-9)
    torch.testing.assert_close(l_value.grad, ((1 - above) * weights).sum(0), rtol=0, atol=1e-9)
    assert G_value.grad is not None
    assert G_value.grad.shape == (2, 0, 3)


def test_unbatched() -> None:
    x, h = cp.Variable(2), cp.Parameter(0)
    c = cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), cp.multiply(h, x[:0]) <= 1), [h, c], [x])
    (found,) = layer(torch.zeros(0), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0]), rtol=0, atol=1e-6)
