"""Outputs keep the signs that constraints of their own give them, to the last bit."""

from typing import Any

import cvxpy as cp
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.families import minimize

pytestmark = pytest.mark.usefixtures("engine")


def sharpe(**options: Any) -> CvxpyLayer:
    """Long positions, short positions and the multipliers of both signs, with a budget."""
    long, short = cp.Variable(6, nonneg=True), cp.Variable((2, 3), nonpos=True)
    mu, F = cp.Parameter(12), cp.Parameter((12, 12))
    least: Any = long[:3] >= 0.1
    both = cp.hstack([long, cp.vec(short, order="F")])
    problem = minimize(cp.sum_squares(F @ both) - mu @ both, cp.sum(long) == 1, least)
    return CvxpyLayer(problem, [mu, F], [long, short, least.dual_variables[0]], **options)


def draw(batch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in ((12,), (12, 12))
    ]


@pytest.mark.parametrize("options", [{}, {"refine": False, "tol": 1e-5}], ids=str)
def test_signs(options: dict[str, Any]) -> None:
    long, short, multiplier = sharpe(**options)(*draw(32))
    assert bool((long >= 0).all())
    assert bool((short <= 0).all())
    assert bool((multiplier >= 0).all())
    assert bool((long.log() > -torch.inf).any())


def test_gradients_do_not_feel_it() -> None:
    """Σ over the batch of c·x, against central differences along a random direction."""
    layer, (mu, F) = sharpe(), draw(8)
    way = torch.randn(mu.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss(step: float) -> torch.Tensor:
        return (layer(mu + step * way, F)[0] * weights).sum(1)

    leaf = mu.clone().requires_grad_()
    (layer(leaf, F)[0] * weights).sum().backward()
    assert leaf.grad is not None
    differences = (loss(1e-6) - loss(-1e-6)) / 2e-6
    torch.testing.assert_close((leaf.grad * way).sum(1), differences, rtol=1e-5, atol=1e-6)
