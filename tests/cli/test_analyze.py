"""``cvxfold analyze``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cvxfold.cli.app import app
from problems.marks import long


def test_the_table(file: Path) -> None:
    done = CliRunner().invoke(app, ["analyze", f"{file}:portfolio", "--batch", "3"])
    assert done.exit_code == 0, done.output
    for text in ("spectral radius", "3 converged", "unrolled", "gmres", "recommended"):
        assert text in done.stdout


def test_json_and_plot(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["--batch", "4", "--tol", "1e-8", "--seed", "3", "--no-costs", "--json"]
    plot = tmp_path / "rates.png"
    done = CliRunner().invoke(app, ["analyze", f"{file}:portfolio", *arguments, "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["tol"] == 1e-8
    assert len(record["spectral_radius"]) == 4
    assert record["forecasts"]["lfpi"]["seconds"] is None
    loose = CliRunner().invoke(app, ["analyze", f"{file}:portfolio", *arguments, "--tol", "1e-2"])
    deeper, shallower = (r["recommended"]["unroll_depth"] for r in (record, json.loads(loose.stdout)))
    assert deeper > 2 * shallower
    assert plot.stat().st_size > 5_000


def test_degenerate_problems_are_told(file: Path) -> None:
    done = CliRunner().invoke(app, ["analyze", f"{file}:kink", "--batch", "2", "--no-costs"])
    assert done.exit_code == 0
    assert "2 degenerate" in done.stdout


def test_errors(file: Path) -> None:
    done = CliRunner().invoke(app, ["analyze", f"{file}:infeasible", "--batch", "2"])
    assert done.exit_code == 1
    assert "[0, 1] are infeasible" in done.output
    assert "--seed" in done.output
    assert "on_unsolvable" not in done.output
    for arguments, words in (
        ([f"{file}:nothing"], "nothing"),
        ([f"{file}:portfolio", "--dtype", "int8"], "--dtype"),
        ([f"{file}:portfolio", "--device", "abacus"], "abacus"),
        ([f"{file}:portfolio", "--tol", "2"], "--tol"),
    ):
        done = CliRunner().invoke(app, ["analyze", *arguments])
        assert done.exit_code == 2, arguments
        assert words in done.output


@long
def test_the_current_directory_is_importable(file: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cvxfold",
        "analyze",
        "my_problems:portfolio",
        "--batch",
        "2",
        "--no-costs",
    ]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "spectral radius" in done.stdout


def test_help() -> None:
    done = CliRunner().invoke(app, ["analyze", "--help"], terminal_width=200)
    assert done.exit_code == 0
    for text in ("--batch", "--device", "--dtype", "--json", "--plot", "--tol", "MODULE:FUNCTION", "Example"):
        assert text in done.stdout
