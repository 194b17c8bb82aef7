"""The passes of several calls of one layer: what belongs to which, and what is kept for the next one."""

import weakref
from typing import Any

import cvxpy as cp
import pytest
import torch

from cvxfold.engines.tensors.engine import TensorEngine
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.torch import CvxpyLayer
from problems.families import minimize

F64 = torch.float64


def bounded(**options: Any) -> tuple[CvxpyLayer, torch.Tensor, torch.Tensor]:
    """‖x − c‖² over c₁ ≤ x ≤ h, of which the second of three instances has no solution."""
    x, c, h = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    problem = minimize(cp.sum_squares(x - 2 * c), x >= c[0], x <= h)
    layer = CvxpyLayer(problem, [c, h], [x], on_unsolvable="nan", **options)
    centres = torch.tensor([[0.5, 1.0], [3.0, 0.0], [0.2, 0.4]], dtype=F64, requires_grad=True)
    return layer, centres, torch.tensor([1.5, 1.0, 5.0], dtype=F64)


@pytest.fixture
def factored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Weak references to the factors that are made."""
    made: list[Any] = []
    original = FactoredJacobian.at

    def counted(*args: Any, **named: Any) -> FactoredJacobian:
        factor = original(*args, **named)
        made.append(weakref.ref(factor))
        return factor

    monkeypatch.setattr(FactoredJacobian, "at", counted)
    return made


@pytest.mark.usefixtures("engine")
def test_the_report_is_that_of_the_last_call_whichever_is_differentiated() -> None:
    layer, c, h = bounded()
    (first,), one = layer(c, h), layer.report
    (second,), other = layer(c, h + 1), layer.report
    seen = []
    layer.on_report(seen.append)
    first[0].sum().backward()
    assert layer.report is other
    assert seen == [one]
    assert one is not None
    assert other is not None
    assert one.backward is not None
    assert other.backward is None
    second[0].sum().backward()
    assert other.backward is not None


def test_rows_of_a_jacobian_share_a_factor_beside_an_instance_without_a_solution(factored: list[Any]) -> None:
    layer, c, h = bounded(engine="tensors")
    (x,) = layer(c, h)
    factored.clear()
    rows = [torch.autograd.grad(x[i, j], c, retain_graph=True)[0] for i in (0, 2) for j in (0, 1)]
    assert len(factored) == 1
    assert all(row.isfinite().all() for row in rows)


def test_what_is_kept_is_given_back_where_memory_is_short(
    factored: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the halves are tried: the factor of the whole would stand in their way."""
    layer, c, h = bounded(engine="tensors")
    (x,) = layer(c, h)
    (expected,) = torch.autograd.grad(x[[0, 2]].sum(), c, retain_graph=True)
    factor, alive = factored[-1], []
    original = TensorEngine.differentiate

    def limited(engine: TensorEngine, solution: Any, *args: Any) -> Any:
        alive.append(factor() is not None)
        if len(solution.x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(engine, solution, *args)

    monkeypatch.setattr(TensorEngine, "differentiate", limited)
    (found,) = torch.autograd.grad(x[[0, 2]].sum(), c)
    assert alive == [True, False, False]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("batched", [False, True])
def test_outputs_can_be_changed_in_place(batched: bool, dtype: torch.dtype) -> None:
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), x >= 0), [c], [x])
    value = torch.tensor([0.5, 2.0], dtype=dtype)
    value = value.expand(3, 2).clone() if batched else value
    (out,) = layer(value.requires_grad_())
    out.mul_(3)
    out[..., 0] = 0.0
    (gradient,) = torch.autograd.grad(out.sum(), value)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 3.0], dtype=dtype).expand_as(value))
    torch.testing.assert_close(layer(value)[0].detach(), value.detach())


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_tensors_made_in_inference_mode(dtype: torch.dtype) -> None:
    """They do not tell how often they were changed."""
    x, c, h = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), x <= h), [c, h], [x])
    with torch.inference_mode():
        limit = torch.tensor([1.0, 2.0], dtype=dtype)
        centres = torch.tensor([[0.5, 3.0], [0.2, 0.4]], dtype=dtype)
        (out,) = layer(centres, limit)
    torch.testing.assert_close(out.clone(), torch.tensor([[0.5, 1.0], [0.2, 0.4]], dtype=dtype))
    value = torch.ones(2, 2, dtype=dtype).mul(0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(value, limit)[0].sum(), value)
    torch.testing.assert_close(gradient, torch.ones(2, 2, dtype=dtype))
