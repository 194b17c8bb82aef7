"""An instance that cannot be solved is given up soon, and a limit on the time of a call is held."""

import time
import warnings
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.cones.product import ProductCone
from cvxfold.engines.tensors.multipliers import _zero_of_increasing
from cvxfold.torch import CvxpyLayer
from problems.families import minimize
from problems.marks import long

F64 = torch.float64
BAD = 7


def exponentials(**options: Any) -> CvxpyLayer:
    """min eˣ − c x, whose solution is log c."""
    x, c = cp.Variable(), cp.Parameter()
    return CvxpyLayer(minimize(cp.exp(x) - c * x), [c], [x], on_unconverged="ignore", **options)


def one_bad(value: float, batch: int = 64) -> Tensor:
    """Values of c of which one is far out of scale."""
    c = torch.linspace(0.5, 3, batch, dtype=F64)
    c[BAD] = value
    return c


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are projected in PyTorch: what a straggler's time goes to."""
    original, sizes = ProductCone.project, []

    def project(cone: ProductCone, u: Tensor, rough: bool = False) -> Tensor:
        sizes.append(len(u))
        return original(cone, u, rough)

    monkeypatch.setattr(ProductCone, "project", project)
    return sizes


def test_a_hopeless_instance_is_given_up(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took 6,000 projections behind lanes, and as many in the tensor engine."""
    sizes, layer, c = counted(monkeypatch), exponentials(), one_bad({"lanes": 1e45, "tensors": 1e10}[engine])
    (x,) = layer(c)
    good = [i for i in range(len(c)) if i != BAD]
    torch.testing.assert_close(x[good], c[good].log(), rtol=1e-9, atol=1e-9)
    assert layer.report is not None
    assert layer.report.forward.status[BAD] is cvxfold.Status.UNCONVERGED
    assert len(sizes) < {"lanes": 600, "tensors": 2_500}[engine]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("power", [6, 8])
def test_what_is_at_rounding_is_not_iterated_on(power: int) -> None:
    """min 1/x, x ≤ a: after finishes that leave rounding alone no thousands of iterations follow."""
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    layer = CvxpyLayer(minimize(cp.inv_pos(x), x <= a), [a], [x], on_unconverged="ignore")
    layer(torch.tensor([10.0**power], dtype=F64))
    assert layer.report is not None
    assert int(layer.report.forward.iterations.max()) < 700


def test_a_line_search_ends_where_the_slope_vanishes() -> None:
    """On increasing functions with known zeros, steep, flat, kinked, beyond the unit step or out of reach."""
    zeros = torch.tensor([0.9, 0.3, 1e-3, 0.77, 5.0, 40.0, 1e9], dtype=F64)
    powers = torch.tensor([1.0, 3.0, 1.0, 0.3, 1.0, 1.0, 1.0], dtype=F64)
    asked = []

    def slope(t: Tensor) -> Tensor:
        asked.append(t)
        return (t - zeros).sign() * ((t - zeros) / zeros).abs() ** powers

    found = _zero_of_increasing(slope, torch.ones_like(zeros))
    assert found[0] == 1.0  # near enough
    flat, near = slope(found).abs() <= 0.1, (found - zeros).abs() <= 1e-5 * zeros
    assert (flat | near)[1:6].all()
    assert found[6] == 64.0  # as far as it may go
    assert len(asked) < 20


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("limit", [0.3, pytest.param(1.0, marks=long)])
def test_a_limit_is_held_by_every_loop(limit: float) -> None:
    """Large and infeasible: balancing, finishes, certificates and their polish, each of which takes long."""
    n = 300
    x, A, b = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n)
    rows = [A @ x <= b, A @ x >= b + 1e-3]
    layer = CvxpyLayer(minimize(cp.sum_squares(x), *rows), [A, b], [x], on_unsolvable="nan", time_limit=limit)
    torch.manual_seed(0)
    values = [torch.randn(2, n, n, dtype=F64), torch.randn(2, n, dtype=F64)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer(*values)
        begun = time.perf_counter()
        layer(*values)
        spent = time.perf_counter() - begun
    assert spent < 1.2 * limit + 2.5  # and one step, on a machine that others use as well
