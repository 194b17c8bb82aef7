"""deepdow's layers with the import swapped; skipped where it is not installed (cvxfold[deepdow])."""

import warnings
from typing import Any

import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.outside import check_against_clarabel

pytest.importorskip("deepdow.layers")
pytestmark = pytest.mark.usefixtures("engine")

N, BATCH = 5, 3


@pytest.fixture
def allocate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its module of allocations, on cvxfold's layer."""
    module: Any = pytest.importorskip("deepdow.layers.allocate")
    monkeypatch.setattr(module, "CvxpyLayer", CvxpyLayer)
    return module


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def checked(layer: CvxpyLayer, *values: torch.Tensor) -> None:
    source = layer.source
    assert source is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_against_clarabel(
            layer, source.problem, source.parameters, source.variables, values, of_differences=1e-3
        )


@pytest.mark.parametrize("most", [1.0, 0.4])
def test_markowitz(allocate: Any, most: float) -> None:
    module = allocate.NumericalMarkowitz(N, max_weight=most)
    rets, root = normal(0, BATCH, N), normal(1, BATCH, N, N)
    alpha = torch.full((BATCH,), 0.2, dtype=torch.float64)
    checked(module.cvxpylayer, rets, root, alpha)
    weights = module(rets, root, torch.ones(BATCH, dtype=torch.float64), -alpha)
    torch.testing.assert_close(weights, module.cvxpylayer(rets, root, alpha)[0], rtol=0, atol=1e-12)


def test_risk_budgeting(allocate: Any) -> None:
    module = allocate.NumericalRiskBudgeting(N)
    budget = torch.softmax(normal(3, BATCH, N), 1)
    checked(module.cvxpylayer, normal(2, BATCH, N, N), budget)


def test_softmax(allocate: Any) -> None:
    module, x = allocate.SoftmaxAllocator(formulation="variational", n_assets=N), normal(4, BATCH, N)
    torch.testing.assert_close(module(x), x.softmax(1), rtol=0, atol=1e-10)


def test_sparsemax(allocate: Any) -> None:
    """The projection onto the simplex, by sorting."""
    module, x = allocate.SparsemaxAllocator(N), normal(5, BATCH, N)
    sorted_x = x.sort(1, descending=True).values
    means = (sorted_x.cumsum(1) - 1) / torch.arange(1, N + 1)
    count = (sorted_x > means).sum(1, keepdim=True)
    expected = (x - means.gather(1, count - 1)).clamp_min(0.0)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)
    checked(module.layer, x)
