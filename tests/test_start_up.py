"""What ``import cvxfold.torch`` costs beside cvxpylayers' import: nothing that a layer does not need."""

import json
import os
import subprocess
import sys
from typing import Any

from problems.marks import long

WHERE_USED = ["matplotlib", "pandas", "rich", "skfolio", "typer"]
"""The command line, tables and plots import these themselves."""

LOOK = f"""
import json, sys, time
import cvxpylayers.torch
before, began = set(sys.modules), time.process_time()
import cvxfold.torch
spent = time.process_time() - began
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
found = [name for name in {WHERE_USED} if name in sys.modules]
print(json.dumps({{"new": sorted(new), "found": found, "seconds": spent}}))
"""


def started(**environment: str) -> dict[str, Any]:
    """A process that imports both, cvxpylayers first."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_only_cvxfold_is_imported_beside_what_cvxpylayers_imports() -> None:
    seen = started()
    assert seen["new"] == ["cvxfold"]
    assert seen["found"] == []


@long
def test_it_takes_less_than_a_fifth_of_a_second() -> None:
    """Of this process's own time, the modules once compiled."""
    started(PYTHONDONTWRITEBYTECODE="")
    assert min(started(PYTHONDONTWRITEBYTECODE="")["seconds"] for _ in range(3)) < 0.2
