"""The penalty: data of very different size do it no harm, and what is remembered never misleads.

A layer that is called again is compared to a fresh one on the same values, by counts that do not depend on
the machine.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from cvxfold import Status
from cvxfold.batches.near import Later
from cvxfold.torch import CvxpyLayer
from problems.families import minimize

F64 = torch.float64
SCALES = (1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6, 1e8)


def half_plane(scale: float, **options: Any) -> Any:
    """A layer that projects scale · a onto x₁ + x₂ ≤ 10⁻³: the sum cancels where the point does not."""
    x, a = cp.Variable(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x - scale * a), cp.sum(x) <= 1e-3)
    return CvxpyLayer(problem, parameters=[a], variables=[x], **options)


def projected(points: Tensor) -> Tensor:
    """The projection of points ``(B, 2)`` onto x₁ + x₂ ≤ 10⁻³."""
    return points - ((points.sum(-1, keepdim=True) - 1e-3) / 2).clamp_min(0)


def equations(scale: float) -> Any:
    """Least squares with scale · aᵀx, under equations whose right-hand sides are of size one."""
    generator = torch.Generator().manual_seed(0)
    root, A = torch.randn(6, 6, generator=generator, dtype=F64), torch.randn(2, 6, generator=generator)
    x, a, b = cp.Variable(6), cp.Parameter(6), cp.Parameter(2)
    problem = minimize(cp.sum_squares(root.numpy() @ x) + scale * a @ x, A.double().numpy() @ x == b)
    return CvxpyLayer(problem, parameters=[a, b], variables=[x])


def cost(layer: Any, values: Sequence[Tensor]) -> tuple[int, int]:
    """Iterations and Newton steps of a call in which all are solved and none needs another solver."""
    layer(*values)
    forward = layer.report.forward
    assert all(status is Status.SOLVED for status in forward.status)
    assert not forward.rescued.any()
    return int(forward.iterations.sum()), int(forward.newton_steps.sum())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("batch", [1, 8])
def test_the_same_call_again_costs_no_more(scale: float, batch: int) -> None:
    layer = half_plane(scale)
    values = [0.1 + torch.rand(batch, 2, generator=torch.Generator().manual_seed(batch), dtype=F64)]
    first = cost(layer, values)
    assert first[0] <= 100 * batch
    for _ in range(4):
        iterations, steps = cost(layer, values)
        assert iterations <= first[0] + 25 * batch
        assert steps <= first[1] + batch


@pytest.mark.parametrize("scale", SCALES)
def test_other_values_cost_no_more_than_a_fresh_layer(scale: float) -> None:
    layer, generator = half_plane(scale), torch.Generator().manual_seed(0)
    for _ in range(5):
        values = 0.1 + torch.rand(8, 2, generator=generator, dtype=F64)
        fresh, used = cost(half_plane(scale), [values]), cost(layer, [values])
        assert used[0] <= 2 * fresh[0]
        assert used[1] <= 2 * fresh[1] + 8
        (x,) = layer(values)
        torch.testing.assert_close(x, projected(scale * values), rtol=1e-9, atol=1e-9 * max(1.0, scale))


@pytest.mark.parametrize("scale", [1e4, 1e6, 1e8])
def test_residuals_at_rounding_are_solved(scale: float) -> None:
    """With x of size 10⁸ rounding alone keeps Ax − b above the tolerance: nothing can make it smaller."""
    generator = torch.Generator().manual_seed(8)
    values = [torch.randn(8, k, generator=generator, dtype=F64) for k in (6, 2)]
    layer = equations(scale)
    for _ in range(3):
        assert cost(layer, values)[0] <= 100 * 8


@pytest.mark.parametrize("penalty", [1e-12, 1e12])
def test_a_penalty_that_misleads_is_dropped(penalty: float) -> None:
    """Whatever stands in memory, a call costs little more than a fresh layer's, and the next ones nothing."""
    layer, generator = half_plane(1e2), torch.Generator().manual_seed(0)
    values = [0.1 + torch.rand(8, 2, generator=generator, dtype=F64)]
    first = cost(layer, values)
    engine = layer.session.engine
    engine._memory = replace(engine._memory, numbers=Later(torch.full((4,), penalty)), late=0.0)
    assert cost(layer, values)[0] <= first[0] + 8 * 100
    assert cost(layer, values)[0] <= first[0] + 8 * 25


def test_nothing_is_remembered_of_what_did_not_converge() -> None:
    layer = half_plane(1e2, max_iters=25, refine=False, on_unconverged="ignore")
    layer(torch.tensor([[0.5, 1.0]], dtype=F64))
    assert layer.report.forward.status == [Status.UNCONVERGED]
    assert layer.session.engine._memory.penalty is None
