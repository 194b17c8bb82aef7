"""Entries of x that are small beside the rest, against closed forms."""

import cvxpy as cp
import pytest
import torch

from cvxfold import Status
from cvxfold.torch import CvxpyLayer

F64 = torch.float64


@pytest.mark.parametrize("c", [1e3, 1e4, 1e5, 1e6])
def test_what_a_logarithm_leaves_small(c: float) -> None:
    """c x − log x: x = 1/c, beside log c and 1 in its cone; among instances of another size."""
    x, costs = cp.Variable(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(costs * x - cp.log(x)))
    layer = CvxpyLayer(problem, [costs], [x], engine="tensors", on_unconverged="ignore")
    given = torch.tensor([1.5, 1.37 * c, 0.7], dtype=F64, requires_grad=True)
    (found,) = layer(given)
    assert layer.report.forward.status == [Status.SOLVED] * 3
    torch.testing.assert_close(found.detach(), 1 / given.detach(), rtol=1e-11, atol=0)
    (gradient,) = torch.autograd.grad(found.sum(), given)
    torch.testing.assert_close(gradient, -1 / given.detach() ** 2, rtol=1e-8, atol=0)


def test_what_a_logarithm_leaves_small_beside_another() -> None:
    """The same of two variables at once, c₁ = 1.2 and c₂ = 10⁵."""
    x, costs = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(costs @ x - cp.sum(cp.log(x))))
    layer = CvxpyLayer(problem, [costs], [x], engine="tensors")
    given = torch.tensor([1.2, 1e5], dtype=F64)
    (found,) = layer(given)
    torch.testing.assert_close(found, 1 / given, rtol=1e-11, atol=0)
