"""Without Clarabel, with an old one or with one that fails, there is no rescue, and nothing else is lost."""

import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.engines.external import clarabel as adapter
from cvxfold.engines.external import rescuer
from cvxfold.torch import CvxpyLayer
from problems.families import minimize

F64 = torch.float64
BAD = 2


def needy(**options: Any) -> Any:
    """min eˣ − c x: with c = 1e200 that is for the rescue, as far as it comes."""
    x, c = cp.Variable(), cp.Parameter()
    return CvxpyLayer(minimize(cp.exp(x) - c * x), [c], [x], **options)


def solved_but_for_one(layer: Any) -> str:
    """The others' solutions and gradients are right; the complaint about the one."""
    c = torch.tensor([0.5, 1.0, 1e200, 3.0], dtype=F64, requires_grad=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (x,) = layer(c)
        (gradient,) = torch.autograd.grad(x.sum(), c)
    good = [i for i in range(4) if i != BAD]
    torch.testing.assert_close(x[good], c[good].log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient[good], 1 / c[good], rtol=1e-7, atol=1e-9)
    assert layer.report.forward.status[BAD] is cvxfold.Status.UNCONVERGED
    return str(said[0].message)


@pytest.fixture(autouse=True)
def _looked_for_anew() -> Iterator[None]:
    rescuer._rescuer.cache_clear()
    yield
    rescuer._rescuer.cache_clear()


def test_without_clarabel(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "cvxfold.engines.external.batch.find_spec", lambda name: None if name == "clarabel" else find(name)
    )
    monkeypatch.setattr("cvxfold.engines.external.batch._conic_solvers", list)
    layer = needy()
    assert "Clarabel is not installed: pip install" in solved_but_for_one(layer)
    assert not layer.report.forward.rescued.any()
    assert "Clarabel is not installed" in str(layer.report)
    assert "Clarabel" not in solved_but_for_one(needy(rescue=False))


def test_with_one_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "cvxfold.engines.external.clarabel"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("cvxfold.engines.external.clarabel")
    monkeypatch.setitem(sys.modules, "clarabel", types.ModuleType("clarabel"))  # it has nothing
    layer = needy()
    assert "Clarabel cannot be used" in solved_but_for_one(layer)
    assert not layer.report.forward.rescued.any()


def test_with_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As compiled solvers have it."""

    def fail(*_: Any) -> Any:
        raise Panic

    monkeypatch.setattr(adapter, "solve", fail)
    layer = needy()
    assert "Clarabel" not in solved_but_for_one(layer)  # it is there
    assert layer.report.forward.rescued.tolist() == [False, False, True, False]
