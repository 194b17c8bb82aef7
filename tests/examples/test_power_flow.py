"""Optimal power flow: the equations and the solver against pypower, gradients against finite differences."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from problems.marks import long, sliced

api = pytest.importorskip("pypower.api")
pytest.importorskip("matplotlib")

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "paper"
OPTIMA = {"case14": 8081.526, "case57": 41737.786}  # dollars an hour
CASES = sliced(OPTIMA, lambda name: name == "case57")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the scripts is on the path."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    with torch.random.fork_rng():
        yield


def network_of(name: str) -> Any:
    return import_module("power.network").Network.of(getattr(api, name)())


def dispatch_of(name: str) -> Any:
    return import_module("optimal_power_flow").Dispatch(network_of(name))


def points(network: Any) -> torch.Tensor:
    """Two states inside of the bounds."""
    generator = torch.Generator().manual_seed(3)
    share = torch.rand(2, len(network.low), dtype=torch.float64, generator=generator)
    low, high = (bound.clamp(-0.5, 2.0) for bound in (network.low, network.high))
    return low + share * (high - low)


@pytest.mark.parametrize("name", ["case9", "case14", "case57"])
def test_a_power_flow_of_pypower_is_in_balance(name: str) -> None:
    case = getattr(api, name)()
    case["branch"][:, 5] = 9900.0  # case9 has limits, which are far away
    case["gen"] = case["gen"].astype(float)  # in case9 these are integers, and so would be what is found
    network = import_module("power.network").Network.of(case)
    solved, success = api.runpf(case, api.ppoption(VERBOSE=0, OUT_ALL=0, PF_TOL=1e-12))
    assert success
    bus, gen = solved["bus"], solved["gen"]
    angles = np.deg2rad(bus[:, 8])[network.free.numpy()]
    x = torch.tensor(np.concatenate([angles, bus[:, 7], gen[:, 1] / 100, gen[:, 2] / 100]))
    assert float(network.mismatch(x, network.load).abs().max()) < 1e-9
    assert float(network.mismatch(x, 1.1 * network.load).abs().max()) > 1e-2


def test_what_is_not_modelled_is_refused() -> None:
    network = import_module("power.network").Network
    with pytest.raises(ValueError, match=r"expected lines without limits, got limits of 150\.0 MVA"):
        network.of(api.case9())
    case = api.case14()
    case["gencost"][0, 0] = 1
    with pytest.raises(ValueError, match="expected quadratic costs"):
        network.of(case)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_in_closed_form_are_those_of_autograd(name: str) -> None:
    network = network_of(name)
    x = points(network)
    multipliers = torch.randn(
        2, 2 * network.buses, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    for one, m, J, H in zip(
        x, multipliers, network.jacobian(x), network.curvature(x, multipliers), strict=True
    ):
        exact = torch.autograd.functional.jacobian(
            lambda v: network.mismatch(v, network.load), one, vectorize=True
        )
        bent = torch.autograd.functional.hessian(
            lambda v, m=m: network.mismatch(v, network.load) @ m, one, vectorize=True
        )
        torch.testing.assert_close(J, exact, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(H, bent, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_the_optimum_is_that_of_pypower(name: str) -> None:
    cost = OPTIMA[name]
    dispatch, network = dispatch_of(name), network_of(name)
    costs, loads = network.cost[None, :2], network.load.unsqueeze(0)
    point = dispatch.solve(costs, loads)
    assert float(dispatch.cost(point.x, costs)) * 1e4 == pytest.approx(cost, rel=1e-6)
    tight = dict.fromkeys((f"PDIPM_{one}TOL" for one in ("FEAS", "GRAD", "COMP", "COST")), 1e-9)
    solved = api.runopf(getattr(api, name)(), api.ppoption(VERBOSE=0, OUT_ALL=0, **tight))
    assert solved["f"] == pytest.approx(cost, rel=1e-5)
    p = point.x[0, dispatch.active].numpy()
    np.testing.assert_allclose(p, solved["gen"][:, 1] / 100, atol=1e-3)


def test_demand_that_cannot_be_served_is_told() -> None:
    dispatch = dispatch_of("case14")
    costs, loads = dispatch.network.cost[None, :2], dispatch.network.load.unsqueeze(0)
    both = torch.cat([loads, 10 * loads])
    assert dispatch.solve(costs.expand(2, -1, -1), both, strict=False).residual.isnan().tolist() == [
        False,
        True,
    ]
    with pytest.raises(RuntimeError, match="no optimal power flow was found for 1 of 2 instances"):
        dispatch.optimum(costs.expand(2, -1, -1), both)


@pytest.mark.parametrize("name", CASES)
def test_a_folded_step_has_the_gradient_of_finite_differences(name: str) -> None:
    dispatch = dispatch_of(name)
    days = import_module("optimal_power_flow").Days.drawn(dispatch, 2, 0)
    generator = torch.Generator().manual_seed(5)
    shape = (2, *days.costs.shape[1:])
    guess, direction = (
        dispatch.network.cost[:2] * (0.8 + 0.4 * torch.rand(shape, dtype=torch.float64, generator=generator))
        for _ in range(2)
    )

    def lost(layer: Any, costs: torch.Tensor) -> torch.Tensor:
        return dispatch.cost(layer(costs, days.loads), days.costs).sum()

    up, down = (lost(dispatch.optimum, guess + s * 1e-5 * direction) for s in (1, -1))
    layers = dispatch.layers(1)
    for layer in ("folded SQP", "implicit, KKT"):
        at = guess.clone().requires_grad_()
        (found,) = torch.autograd.grad(lost(layers[layer], at), at)
        assert float((found * direction).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-5), layer
    assert layers["folded SQP"].report.backward.residual.max() < 1e-9


@long
def test_the_dispatch_learns(tmp_path: Path) -> None:
    picture = tmp_path / "flow.png"
    courses = import_module("optimal_power_flow").main(["--quick", "--output", str(picture)])
    assert picture.stat().st_size > 5_000
    folded, implicit = courses["folded SQP"], courses["implicit, KKT"]
    assert folded.gradient_error < 1e-5
    assert implicit.gradient_error < 1e-5
    assert 1e-4 < courses["unrolled SQP"].gradient_error < 0.1  # of five steps
    assert folded.bytes < courses["unrolled SQP"].bytes / 3
    assert folded.score[-1] < folded.score[0] / 2
    assert folded.score[-1] == pytest.approx(implicit.score[-1], rel=0.2)
