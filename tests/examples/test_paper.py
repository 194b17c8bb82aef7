"""The scripts of examples/paper, small: each shows what docs/fold.md says it shows."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from problems.marks import long

pytest.importorskip("matplotlib")

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "paper"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a script with --quick; what its main returns."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    picture = folder / f"{name}.png"
    found = import_module(name).main(["--quick", "--output", str(picture)])
    assert picture.stat().st_size > 5_000
    assert json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))["about"]["quick"]
    return found


@long
def test_updates_differ_in_their_rates_and_not_in_their_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run("which_update", tmp_path, monkeypatch)
    assert len(rows) == 7
    assert all(row["differs by"] < 1e-6 for row in rows)
    assert all(row["gmres"] < row["lfpi"] for row in rows)
    assert max(row["lfpi"] for row in rows) > 5 * min(row["lfpi"] for row in rows)


@long
def test_the_folded_step_trains_like_the_cone_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    courses = run("portfolio", tmp_path, monkeypatch)
    folded, layer = courses["folded SQP"], courses["cvxfold layer"]
    assert folded.gradient_error < 1e-4
    assert folded.regret[-1] < folded.regret[0]
    assert folded.regret[-1] == pytest.approx(layer.regret[-1], rel=1e-3)
    assert folded.bytes < courses["unrolled SQP"].bytes


@long
def test_folded_steps_have_the_gradient_that_unrolled_ones_tend_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    found = run("multilabel", tmp_path, monkeypatch)
    for name in ("cvxfold layer", "folded PGD, GMRES", "folded SQP, GMRES"):
        assert found[name].gradient_error < 1e-6, name
    assert found["folded PGD, LFPI"].gradient_error > 1e-3  # 50 steps of 1e-3
    assert found["unrolled PGD"].gradient_error == pytest.approx(
        found["folded PGD, LFPI"].gradient_error, rel=0.05
    )
    assert found["folded PGD, GMRES"].bytes < found["unrolled PGD"].bytes / 2
    assert found["folded PGD, GMRES"].accuracy[-1] > found["folded PGD, GMRES"].accuracy[0]
