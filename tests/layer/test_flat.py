"""Gradients that are zero to rounding are said to be so, once, and what helps does."""

import warnings

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer

F64 = torch.float64


def knapsack(curvature: float) -> CvxpyLayer:
    """A relaxed knapsack of which the values are learned."""
    x, value = cp.Variable(6), cp.Parameter(6)
    weight = [3.0, 1.0, 2.0, 5.0, 4.0, 2.0]
    objective = cp.Maximize(value @ x - curvature * cp.sum_squares(x))
    return CvxpyLayer(cp.Problem(objective, [x >= 0, x <= 1, x @ weight <= 7]), [value], [x])


def step(layer: CvxpyLayer, batch: int = 4) -> torch.Tensor:
    """The gradient of one step of training, ``(batch, 6)``."""
    values = torch.rand(batch, 6, dtype=F64, generator=torch.Generator().manual_seed(3))
    values.requires_grad_()
    (x,) = layer(values)
    (gradient,) = torch.autograd.grad((x * torch.arange(6.0)).sum(), [values])
    return gradient


def test_a_vertex_is_flat_and_said_once(engine: str) -> None:
    layer = knapsack(0.0)
    with cvxfold.Monitor(layer) as monitor:
        with pytest.warns(cvxfold.FlatGradientWarning, match="quadratic term"):
            assert float(step(layer).norm()) < 1e-12
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            step(layer)
    report = layer.report
    assert report is not None
    assert report.backward is not None
    assert report.backward.flat.tolist() == [True] * 4
    assert report.backward.verdict == [cvxfold.Verdict.CONVERGED] * 4
    assert "4 flat" in str(report)
    assert report.to_dict()["backward/flat"] == 4
    assert monitor.to_dict()["backward/flat"] == 8
    assert "8 flat" in str(monitor)


def test_a_quadratic_term_helps(engine: str) -> None:
    layer = knapsack(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(step(layer).norm()) > 0.1
    report = layer.report
    assert report is not None
    assert report.backward is not None
    assert not report.backward.flat.all()


def test_a_loss_that_looks_at_nothing_is_not_called_flat(engine: str) -> None:
    layer = knapsack(0.0)
    values = torch.rand(2, 6, dtype=F64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (0.0 * layer(values)[0]).sum().backward()
    report = layer.report
    assert report is not None
    assert report.backward is not None
    assert not report.backward.flat.any()


@pytest.mark.parametrize(("curvature", "expected"), [(0.0, [True] * 2), (1.0, [False] * 2)])
def test_an_analysis_says_so(engine: str, curvature: float, expected: list[bool]) -> None:
    values = torch.rand(2, 6, dtype=F64, generator=torch.Generator().manual_seed(3))
    found = cvxfold.analyze(
        knapsack(curvature), values, loss=lambda x: (x * torch.arange(6.0)).sum(), costs=False
    )
    assert found.flat.tolist() == found.to_dict()["flat"] == expected
    assert ("2 flat" in str(found)) == ("nothing is learned" in " ".join(str(found).split())) == expected[0]


@pytest.mark.parametrize(("curvature", "expected"), [(0.0, [0, 1]), (1.0, [])])
def test_a_comparison_says_so(curvature: float, expected: list[int]) -> None:
    values = torch.rand(2, 6, dtype=F64, generator=torch.Generator().manual_seed(3))
    found = cvxfold.compare(knapsack(curvature), [values], methods=("auto",), upstream=())
    assert found.flat == expected
    assert ("are zero to rounding" in found.verdict) == bool(expected)
    assert found.to_dict()["rows"][0]["flat"] == [number in expected for number in range(2)]
