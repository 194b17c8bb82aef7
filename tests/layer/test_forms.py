"""Calls of one layer with tensors of many shapes and dtypes, each beside the general way."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any, Literal

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from cvxfold.torch import CvxpyLayer


def _layer(engine: Literal["lanes", "tensors"]) -> CvxpyLayer:
    """A projection onto the simplex, scaled, and its multiplier: a nonnegative variable and a scalar one."""
    x, target, total = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    onto: Any = cp.sum(x) == total
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [onto, x >= 0])
    return CvxpyLayer(
        problem, parameters=[target, total], variables=[x, onto.dual_variables[0]], engine=engine
    )


TARGET, TOTAL = torch.tensor([0.9, 0.4, -2.0]), torch.tensor(1.0)
CALLS = {
    "no batch": (TARGET.double(), TOTAL.double()),
    "of one": (TARGET.double()[None], TOTAL.double()),
    "all": (torch.stack([TARGET, TARGET + 0.1]).double(), torch.tensor([1.0, 2.0], dtype=torch.float64)),
    "shared": (TARGET.double(), torch.tensor([1.0, 2.0, 1.5], dtype=torch.float64)),
    "single": (TARGET, TOTAL),
    "mixed": (torch.stack([TARGET, TARGET]), TOTAL.double()),
    "strided": (torch.stack([TARGET, TARGET + 1]).double().T.contiguous().T, TOTAL.double()),
}


def _gradients(layer: CvxpyLayer, given: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
    leaves = [value.clone().requires_grad_() for value in given]
    found = layer(*leaves)
    loss = sum(((k + 1.3) * (out * out).sum() for k, out in enumerate(found)), torch.zeros(()))
    return found, torch.autograd.grad(loss, leaves)


def test_forms_of_one_layer_are_told_apart() -> None:
    """Twice each, the second time from what the first has made, in the dtype of the call."""
    lanes, general = _layer("lanes"), _layer("tensors")
    for given in [*CALLS.values(), *CALLS.values()]:
        (found, gradients), (expected, others) = _gradients(lanes, given), _gradients(general, given)
        for one, other in zip((*found, *gradients), (*expected, *others), strict=True):
            assert one.shape == other.shape
            assert one.dtype is other.dtype
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert bool((found[0] >= 0).all())


def test_integers_count_as_the_default_dtype_of_the_day() -> None:
    """Nothing that was kept of a call says what they were then."""
    layer, given = _layer("lanes"), (torch.tensor([2, 1, 0]), torch.tensor(1))
    assert layer(*given)[0].dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert layer(*given)[0].dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", ["inference", "device"])
def test_a_first_call_in_a_mode_leaves_nothing_of_it(mode: str) -> None:
    """Neither inference tensors nor a default device are in what is kept for later calls."""
    layer = _layer("lanes")
    with torch.inference_mode() if mode == "inference" else torch.device("meta"):
        layer(*CALLS["all"])
    found, gradients = _gradients(layer, CALLS["all"])
    assert not found[0].is_inference()
    assert found[0].device == gradients[0].device == torch.device("cpu")


def test_a_layer_that_was_called_can_be_copied() -> None:
    """By copy and by pickle."""
    layer = _layer("lanes")
    (expected, *_) = layer(*CALLS["all"])
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(*CALLS["all"])[0], expected, rtol=0, atol=0)
