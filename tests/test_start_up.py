"""What ``import cvxfold.torch`` costs beside cvxpylayers' import: nothing that a layer does not need."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from problems.marks import long

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

WHERE_USED = ["matplotlib", "pandas", "rich", "skfolio", "typer"]
"""The command line, tables and plots import these themselves."""

LOOK = f"""
import json, os, sys, time
began = time.process_time()
import cvxpylayers.torch
theirs = time.process_time() - began

for _ in range(int(sys.argv[1])):  # each import in a process of its own, which has all that came before
    if os.fork():
        assert os.wait()[1] == 0
        continue
    before, began = set(sys.modules), time.process_time()
    import cvxfold.torch
    spent = time.process_time() - began
    new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
    found = [name for name in {WHERE_USED} if name in sys.modules]
    print(json.dumps({{"new": sorted(new), "found": found, "share": spent / theirs}}), flush=True)
    os._exit(0)
"""


def started(times: int, **environment: str) -> list[dict[str, Any]]:
    """What so many processes say that have imported cvxpylayers and then import cvxfold."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(times)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_only_cvxfold_is_imported_beside_what_cvxpylayers_imports() -> None:
    (seen,) = started(1)
    assert seen["new"] == ["cvxfold"]
    assert seen["found"] == []


@long
def test_it_takes_a_small_part_of_the_time_that_cvxpylayers_takes() -> None:
    """Of this process's own time, the modules once compiled, as the first of four does."""
    started(1, PYTHONDONTWRITEBYTECODE="")  # of theirs, too
    seen = started(4, PYTHONDONTWRITEBYTECODE="")
    assert len(seen) == 4
    assert min(each["share"] for each in seen[1:]) < 0.1
