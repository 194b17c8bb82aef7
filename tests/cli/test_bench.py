"""``cvxfold bench``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cvxfold.cli.app import app

TINY = [
    "bench",
    "--family",
    "portfolio",
    "--size",
    "5",
    "--batch",
    "2",
    "--rounds",
    "2",
    "--peer",
    "cvxpylayers",
]


def test_the_json_holds_what_the_table_says(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    done = CliRunner().invoke(app, [*TINY, "--json", str(file)])
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    (cell,) = found["cells"]
    assert (cell["family"], cell["size"], cell["batch"], cell["checked"]) == ("portfolio", 5, 2, 2)
    assert "portfolio 5, batch 2" in done.output
    for one in cell["measurements"]:
        (line,) = [line for line in done.output.splitlines() if line.startswith(f"  {one['peer']} ")]
        assert f"{1e3 * one['total_seconds']:.3g}" in line
        assert f"{one['gradient_error']:.0e}" in line
        assert ("wrong" in line) is (one["correct"] is False)
        assert len(one["rounds"]["forward"]) == 2
    ours, theirs = cell["measurements"]
    assert cell["against_theirs"] == theirs["total_seconds"] / ours["total_seconds"]
    assert found["machine"]["versions"]["cvxpylayers"]
    assert found["settings"]["rounds"] == 2


def test_training() -> None:
    done = CliRunner().invoke(app, [*TINY, "--training", "2"])
    assert done.exit_code == 0, done.output
    assert "portfolio 5, batch 2, cvxfold" in done.output


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--family", "none"], "--family"),
        (["--peer", "none"], "--peer"),
        (["--device", "nowhere"], "--device"),
        (["--json", "/no/such/folder/x.json"], "--json"),
    ],
)
def test_what_cannot_be_asked(asked: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["bench", *asked])
    assert done.exit_code == 2
    assert said in done.output
