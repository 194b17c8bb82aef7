"""The scripts of examples/convergence, small: each shows what its page in the docs says it shows."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from problems.marks import long

pytest.importorskip("matplotlib")

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "convergence"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a script with --quick; what its main returns."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    picture = folder / f"{name}.png"
    found = import_module(name).main(["--quick", "--output", str(picture)])
    assert picture.stat().st_size > 5_000
    return found


@long
def test_the_gradient_lags_behind_and_falls_at_the_spectral_radius(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run("forward_and_backward", tmp_path, monkeypatch)
    for curves in found.values():
        for tol in (1e-3, 1e-6):
            forward, backward = (curves.depth(error, tol) for error in (curves.forward, curves.backward))
            assert (forward <= backward).all()
        assert (curves.behind(1e-3) > 1e-3).any()
    qp, soc = found["dense_qp20"], found["robust_portfolio"]
    assert (qp.slope(qp.backward) / qp.radius - 1).abs().median() < 0.03
    # On a curved cone the solution's error falls like ρᴷ and the gradient's like K ρᴷ.
    (middle,), (late,) = (torch.nonzero(soc.depths >= depth)[0] for depth in (120, 240))
    powers = soc.radius ** soc.depths.unsqueeze(1)
    grown = [(error / powers)[late] / (error / powers)[middle] for error in (soc.forward, soc.backward)]
    slow = soc.radius > 0.92  # the others are at the floor of the arithmetic by then
    assert slow.any()
    assert (grown[0][slow] - 1).abs().max() < 0.05
    assert (grown[1][slow] > 1.4).all()


@long
def test_unrolled_from_the_solution_is_lfpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pair in run("unrolled_is_lfpi", tmp_path, monkeypatch).values():
        assert pair.difference.max() < 1e-10
        assert pair.residuals < 1e-12
        assert pair.lfpi[0].min() > 1e-3  # and it is no comparison of two converged gradients
        assert (pair.lfpi[-1] < 1e-2 * pair.lfpi[0]).all()


@long
def test_the_slope_is_the_spectral_radius(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rates in run("slope_is_spectral_radius", tmp_path, monkeypatch).values():
        assert len(rates.radius) >= 8
        assert rates.deviation.max() < 0.02
        assert rates.iterations.median() < 0.02
        torch.testing.assert_close(rates.radius, rates.dense, rtol=1e-6, atol=0)  # two ways to compute it


@long
def test_the_backward_pass_wants_a_step_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, own = run("best_step", tmp_path, monkeypatch)
    assert all((swept.paid >= 1).all() for swept in found.values())
    assert max(float(swept.paid.max()) for swept in found.values()) > 1.2
    assert own.own < own.common / 1.2
    assert own.step != 1


@long
def test_shallow_unrolling_does_not_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: courses[0] for name, courses in run("shallow_training", tmp_path, monkeypatch).items()}
    folded = found["folded"].exact[-1]
    assert folded < 0.4 * found["folded"].exact[0]
    assert found["from the solution, K = 100"].exact[-1] < 1.1 * folded
    for shallow in ("cold, K = 5", "from the solution, K = 2"):
        assert found[shallow].exact[-1] > 1.5 * folded
    assert found["cold, K = 2"].seen[-1] < 0  # "better" than with perfect foresight: not a portfolio


@long
def test_memory_of_unrolling_grows_and_that_of_folding_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = run("time_and_memory", tmp_path, monkeypatch)
    unrolled, checkpointed, lfpi = (costs.megabytes[k] for k in ("unrolled", "checkpointed", "lfpi"))
    last, middle, first = unrolled[-1], unrolled[-2], unrolled[-3]
    assert (last - middle) / (middle - first) == pytest.approx(2, rel=0.1)
    assert max(lfpi) < 1.05 * min(lfpi)
    assert checkpointed[-1] - checkpointed[0] < 0.5 * (last - unrolled[0])
    left = [max(residual, 1e-14) for residual in costs.residual.values()]  # which the arithmetic leaves
    assert left == sorted(left, reverse=True)
    assert left[0] > 1e-8
