"""``cvxfold doctor``."""

import json

import pytest
from typer.testing import CliRunner

from cvxfold import __version__
from cvxfold.cli.app import app
from cvxfold.cli.commands import doctor
from cvxfold.engines.choose import CompiledPart, compiled

COMPILED = CompiledPart("v3", 4, None)
MISSING = CompiledPart(None, 1, "there is no compiled part in this installation")


def test_what_is_here() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0
    found, part = json.loads(done.stdout), compiled()
    assert found["cvxfold"] == __version__
    assert found["engine"] == ("lanes" if part.instruction_set else "tensors")
    assert (found["engine"] == "lanes") == (found["why_not_lanes"] is None)
    assert found["instruction_set"] == part.instruction_set
    assert found["pack_width"] == part.width >= 1
    assert found["threads"] >= 1
    assert list(found["versions"]) == ["python", "torch", "cvxpy", "cvxpylayers", "diffcp", "scs", "clarabel"]


@pytest.mark.parametrize("part", [COMPILED, MISSING])
def test_the_table_tells_with_and_without_the_compiled_part(
    part: CompiledPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "compiled", lambda: part)
    lines = CliRunner().invoke(app, ["doctor"]).stdout.splitlines()
    rows = {line[:15].strip(): line[15:].strip() for line in lines}
    if part is COMPILED:
        assert rows["engine on CPU"] == "lanes"
        assert (rows["instruction set"], rows["pack width"]) == ("v3", "4")
    else:
        assert rows["engine on CPU"] == f"tensors ({MISSING.why_not})"
        assert (rows["instruction set"], rows["pack width"]) == ("none", "1")
    assert rows["CUDA"]
    assert {"cvxfold", "threads", "python", "torch", "clarabel"} <= set(rows)


def test_an_instruction_set_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> CompiledPart:
        raise ValueError("CVXFOLD_ISA=v9: it is one of v2")

    monkeypatch.setattr(doctor, "compiled", fail)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert done.output == "Error: CVXFOLD_ISA=v9: it is one of v2\n"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("torch", "cvxfold-of-yesterday"))
    lines = CliRunner().invoke(app, ["doctor"]).stdout.splitlines()
    assert lines[-1].strip().split(maxsplit=1) == ["cvxfold-of-yesterday", "not installed"]
