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
