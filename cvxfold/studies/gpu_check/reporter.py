"""A plugin of pytest that writes a line of JSON for each test as it ends: a run cut short loses none."""

import json
from pathlib import Path
from typing import Any

_OPTION, _LONGEST = "--lines-to", 1_500
_path: list[Path] = []


def pytest_addoption(parser: Any) -> None:
    """The file."""
    parser.addoption(_OPTION, default=None, help="Where to write a line of JSON for each test.")


def pytest_configure(config: Any) -> None:
    """Where it is."""
    given = config.getoption(_OPTION)
    _path[:] = [Path(given)] if given else []


def pytest_runtest_logreport(report: Any) -> None:
    """A test's call; its set-up and end only where they fail or skip."""
    if not _path or (report.when != "call" and report.outcome == "passed"):
        return
    text = str(report.longrepr) if report.outcome != "passed" else ""
    line = {
        "test": report.nodeid,
        "outcome": report.outcome,
        "seconds": round(report.duration, 3),
        "text": text[-_LONGEST:],
    }
    with _path[0].open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
