"""``cvxfold fuzz``."""

import json

from typer.testing import CliRunner

from cvxfold.cli.app import app


def test_the_command() -> None:
    done = CliRunner().invoke(app, ["fuzz", "--count", "10", "--seed", "2", "--time-limit", "5", "--json"])
    record = json.loads(done.stdout)
    assert done.exit_code == (1 if record["wrong"] else 0)
    assert record["instances"] == 10 == sum(record["results"].values())
    shown = CliRunner().invoke(app, ["fuzz", "--count", "3", "--seed", "2", "--time-limit", "5"])
    for text in ("3 random cone programs", "wrong", "error estimate"):
        assert text in shown.stdout


def test_more_processes_than_any_machine_has() -> None:
    done = CliRunner().invoke(app, ["fuzz", "--workers", "100000"])
    assert done.exit_code == 2
    assert "--workers" in done.output
