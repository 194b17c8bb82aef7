"""What the kernels solve by themselves: nobody is left to the tensor engine."""

from typing import Any

import cvxpy as cp
import pytest
import torch

from cvxfold.engines.outcome import Status
from cvxfold.torch import CvxpyLayer
from problems.marks import needs_lanes

F64 = torch.float64


@needs_lanes
@pytest.mark.parametrize("seed", [0, 1])
def test_filters_that_need_not_act(seed: int) -> None:
    """A quadratic program whose multipliers are all zero, or nearly: rounding is all there is in their rows.

    Where the wish u' is feasible it is the solution. Elsewhere the multipliers tell: of the rows whose slack
    is not zero they are, and 2 w² (u − u') + Gᵀ λ, G with all rows, is zero.
    """
    u, wish, G, h = cp.Variable(2), cp.Parameter(2), cp.Parameter((3, 2)), cp.Parameter(3)
    weights = torch.tensor([1.0, 0.2], dtype=F64)
    rows: list[Any] = [-G @ u <= h, u[0] <= 1, -u[0] <= 0.3, cp.abs(u[1]) <= 2.5]
    cost = cp.sum_squares(cp.multiply(weights.numpy(), u - wish))
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cost), rows), [wish, G, h], [u, rows[0].dual_variables[0]], engine="lanes"
    )
    generator, batch = torch.Generator().manual_seed(seed), 2000
    w = 2 * torch.randn(batch, 2, dtype=F64, generator=generator)
    of_G = torch.nn.functional.normalize(torch.randn(batch, 3, 2, dtype=F64, generator=generator), dim=2)
    of_h = torch.rand(batch, 3, dtype=F64, generator=generator)
    found, multipliers = layer(w, of_G, of_h)
    report = layer.report.forward
    assert set(report.status) == {Status.SOLVED}
    assert (report.iterations == 10).all()  # the tensor engine begins with more
    slack = torch.einsum("bij,bj->bi", of_G, w) + of_h
    fine = (slack >= 0).all(1) & (w[:, 0] <= 1) & (w[:, 0] >= -0.3) & (w[:, 1].abs() <= 2.5)
    assert fine.sum() > batch / 20
    assert (found - w)[fine].abs().max() < 1e-12
    slack = torch.einsum("bij,bj->bi", of_G, found) + of_h
    assert slack.min() > -1e-10
    assert (slack * multipliers).abs().max() < 1e-9
    inside = (found[:, 0] < 1 - 1e-6) & (found[:, 0] > -0.3 + 1e-6) & (found[:, 1].abs() < 2.5 - 1e-6)
    gradient = 2 * weights**2 * (found - w) - torch.einsum("bij,bi->bj", of_G, multipliers)
    assert gradient[inside].abs().max() < 1e-10
