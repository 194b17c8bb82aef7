"""Warnings in training: in full once, then counts; all of it in the report."""

import warnings
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.families import minimize

pytestmark = pytest.mark.usefixtures("engine")


def tied(**options: Any) -> CvxpyLayer:
    """|x − a| + |x − b| with a ≠ b: every point between them is a solution."""
    x, a, b = cp.Variable(), cp.Parameter(), cp.Parameter()
    return CvxpyLayer(minimize(cp.abs(x - a) + cp.abs(x - b)), [a, b], [x], **options)


def step(layer: CvxpyLayer, number: int) -> None:
    a = torch.tensor([-1.0, -2.0 - number], dtype=torch.float64, requires_grad=True)
    layer(a, torch.ones(2, dtype=torch.float64))[0].sum().backward()


def test_in_full_once_and_then_by_growing_counts() -> None:
    layer = tied()
    said: list[tuple[int, str]] = []
    with cvxfold.Monitor(layer) as monitor:
        for number in range(1, 13):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step(layer, number)
            said += [(number, str(one.message)) for one in caught]
            assert layer.report is not None
            assert "instances [0, 1] are degenerate" in layer.report.complaints["backward pass: degenerate"]
    assert [number for number, _ in said] == [1, 10]
    assert "no unique derivative" in said[0][1]
    assert "degenerate for the 10th time" in said[1][1]
    count, text = monitor.complaints["backward pass: degenerate"]
    assert count == 12
    assert "no unique derivative" in text
    assert "backward pass: degenerate in 12 calls" in str(monitor)


@pytest.mark.parametrize("options", [
    {"on_unconverged": "ignore"},
    {"on_degenerate": "ignore"},
    {"on_unconverged": "ignore", "on_degenerate": "warn"},
], ids=str)  # fmt: skip
def test_the_monitor_counts_whatever_is_done_about_it(options: dict[str, Any]) -> None:
    layer = tied(**options)
    with cvxfold.Monitor(layer) as monitor, warnings.catch_warnings():
        warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)
        for number in range(3):
            step(layer, number)
    count, text = monitor.complaints["backward pass: degenerate"]
    assert count == 3
    assert "instances [0, 1] are degenerate" in text
    assert layer.report.complaints == {"backward pass: degenerate": text}
    assert "in 3 calls" in str(monitor)


def test_the_monitor_counts_ignored_forward_passes() -> None:
    x, b = cp.Variable(4), cp.Parameter(4)
    problem = minimize(cp.norm(x - b) + cp.sum_squares(x), cp.norm(x, 1) <= 1)
    layer = CvxpyLayer(problem, [b], [x], max_iters=1, refine=False, rescue=False, on_unconverged="ignore")
    with cvxfold.Monitor(layer) as monitor:
        for _ in range(2):
            layer(torch.arange(4, dtype=torch.float64))
    assert monitor.complaints["forward pass: unconverged"][0] == 2


def test_what_a_second_gradient_does_not_deserve_is_taken_back() -> None:
    """Of the same call: one loss looks at what is not unique, the other at what is."""
    x, c = cp.Variable(2), cp.Parameter()
    problem = minimize(c * x[0] + 0.5 * cp.square(x[0]), x >= -3, x <= 3)
    layer = CvxpyLayer(problem, [c], [x], on_unconverged="ignore")
    (found,) = layer(torch.tensor(1.0, dtype=torch.float64, requires_grad=True))
    found.sum().backward(retain_graph=True)
    assert set(layer.report.complaints) == {"backward pass: degenerate"}
    found[0].backward()
    assert layer.report.complaints == {}


def test_errors_are_in_full_each_time() -> None:
    layer = tied(on_unconverged="raise")
    for number in range(3):
        with pytest.raises(cvxfold.ConvergenceError, match=r"instances \[0, 1\] are degenerate"):
            step(layer, number)


def test_another_layer_says_it_anew() -> None:
    for _ in range(2):
        with pytest.warns(cvxfold.ConvergenceWarning, match="no unique derivative"):
            step(tied(), 1)


def test_a_forward_pass_that_falls_short() -> None:
    x, a = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - a), x >= 0), [a], [x], max_iters=1, refine=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(12):
            layer(torch.ones(3) + number)
    texts = [str(one.message) for one in caught]
    assert len(texts) == 2
    assert "did not reach the tolerance" in texts[0]
    assert "unconverged for the 10th time" in texts[1]
    assert layer.report is not None
    assert "did not reach" in layer.report.complaints["forward pass: unconverged"]
