"""``cvxfold compare``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cvxfold.cli.app import app
from problems.marks import long
from problems.targets import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")


def test_agreement_exits_with_0_and_disagreement_with_1(target: str) -> None:
    agreed = CliRunner().invoke(app, ["compare", target, "--batch", "2", "--rtol", "100"])
    assert agreed.exit_code == 0, agreed.output
    assert "cvxpylayers tight, dense" in agreed.stdout
    assert "agree to 1e+02" in " ".join(agreed.stdout.split())
    strict = ["compare", target, "--batch", "2", "--rtol", "1e-12", "--finite-differences", "2"]
    differing = CliRunner().invoke(app, strict)
    assert differing.exit_code == 1
    assert "differs from cvxfold auto" in " ".join(differing.stdout.split())


def test_modes_of_cvxpylayers_can_be_chosen(target: str) -> None:
    arguments = ["--batch", "2", "--rtol", "1e-5", "--upstream", "tight, dense", "--json"]
    done = CliRunner().invoke(app, ["compare", target, *arguments])
    assert done.exit_code == 0, done.output
    assert [row["name"] for row in json.loads(done.stdout)["rows"] if "cvxpylayers" in row["name"]] == [
        "cvxpylayers tight, dense"
    ]
    done = CliRunner().invoke(app, ["compare", target, "--batch", "2", "--upstream", "clarabel", "--json"])
    assert json.loads(done.stdout)["rows"][-1]["name"] == "cvxpylayers clarabel"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (
            "--upstream",
            "sparse",
            "['default', 'tight', 'dense', 'tight, dense', 'clarabel'], got 'sparse'",
        ),
        ("--rtol", "0", "rtol: expected a positive number, got 0.0"),
        ("--rtol", "nan", "rtol: expected a positive number, got nan"),
    ],
)
def test_a_bad_option_is_blamed_itself(option: str, value: str, words: str, target: str) -> None:
    done = CliRunner().invoke(app, ["compare", target, option, value], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert f"Invalid value for {option}" in done.output
    assert words in done.output
    assert "Invalid value for MODULE:FUNCTION" not in done.output


def test_values_without_solution_exit_with_1(target: str) -> None:
    done = CliRunner().invoke(app, ["compare", target.replace(":portfolio", ":infeasible"), "--batch", "2"])
    assert done.exit_code == 1
    assert "nothing to compare with" in " ".join(done.stdout.split())
    shown = CliRunner().invoke(app, ["compare", "--help"], env={"COLUMNS": "200"})
    assert "nothing to compare because the values have no solution" in " ".join(shown.stdout.split())


def test_an_error_of_the_users_has_a_place(target: str) -> None:
    failing = target.replace(":portfolio", ":failing")
    done = CliRunner().invoke(app, ["compare", failing], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    line = TARGETS.splitlines().index("    raise RuntimeError('on purpose')") + 1
    assert f"RuntimeError: on purpose (my_problems.py:{line})" in done.output


@long
def test_commands_do_without_the_demo() -> None:
    look = "assert not any('cvxfold.studies.demo' in name for name in sys.modules)"
    code = f"import sys, cvxfold.cli.commands.compare\n{look}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_json(target: str) -> None:
    arguments = ["--batch", "3", "--seed", "4", "--finite-differences", "2", "--json", "--dtype", "float32"]
    done = CliRunner().invoke(app, ["compare", target, *arguments])
    record = json.loads(done.stdout)
    assert record["batch"] == 3
    assert done.exit_code == (0 if record["agrees"] else 1)
    assert record["finite_differences"]["directions"] == 2
    assert set(record["rows"][0]["gradient_differences"]) == {"mu"}
    assert record["rows"][0]["finite_difference_error"] < 1e-5


def test_plot(target: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "bars.png"
    arguments = ["--batch", "2", "--rtol", "100", "--plot", str(plot), "--finite-differences", "1"]
    assert CliRunner().invoke(app, ["compare", target, *arguments]).exit_code == 0
    assert plot.stat().st_size > 10_000


def test_absent_matplotlib_is_named(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    done = CliRunner().invoke(app, ["compare", target, "--plot", str(tmp_path / "bars.png")])
    assert done.exit_code == 1
    assert "pip install 'cvxfold[examples]'" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere:f"], "no module 'nowhere'"),
        (["nowhere"], "module:function"),
        (["{}", "--dtype", "int8"], "--dtype"),
        (["{}", "--device", "abacus"], "--device"),
        (["{}", "--batch", "0"], "--batch"),
        (["{}", "--plot", "bars.xyz"], "--plot"),
        (["declared"], "nonnegative values"),
        ([], "Missing argument"),
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], words: str, target: str) -> None:
    if words == "--plot":
        pytest.importorskip("matplotlib")
    names = {"{}": target, "declared": target.replace(":portfolio", ":declared")}
    given = [names.get(argument, argument) for argument in arguments]
    done = CliRunner().invoke(app, ["compare", *given], terminal_width=200)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_help() -> None:
    done = CliRunner().invoke(app, ["compare", "--help"], terminal_width=200)
    assert done.exit_code == 0
    for text in ("--finite-differences", "--rtol", "--plot", "--json", "Example: cvxfold compare", "sampler"):
        assert text in done.stdout


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom cvxfold.cli.app import app\n"
        "try: app(['compare', '--help'])\nexcept SystemExit: assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@long
def test_module_in_the_current_directory_with_progress_on_stderr(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cvxfold", "compare", "my_problems:portfolio", "--batch", "2", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["batch"] == 2
