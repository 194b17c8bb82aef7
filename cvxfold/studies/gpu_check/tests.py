"""The tests that are marked ``cuda``, in a process of their own."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[3]
_MARK = re.compile(r"\bcuda\b", re.IGNORECASE)
_TAIL = 2_000


def cuda_tests(folder: Path, limit: float, marked: str = "cuda and not long") -> dict[str, Any]:
    """Run them, and tell how each ended.

    Args:
        folder: where logs are written. limit: seconds.
        marked: which ones.

    Returns:
        ``counts`` by outcome; ``failures``, each with its name and the end of its traceback; ``slowest``;
        ``ended``, how pytest did, and the ``tail`` of what it said where that was not well.
    """
    files = [path for path in sorted((_ROOT / "tests").rglob("test_*.py")) if _MARK.search(path.read_text())]
    if not files:
        return {"ended": "there are no tests beside the package"}
    lines, log = folder / "tests.jsonl", folder / "tests.log"
    lines.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-n0", "-m", marked, "--tb=short", "-p", "no:cacheprovider"]
    command += ["-p", "cvxfold.studies.gpu_check.reporter", "--lines-to", str(lines), *map(str, files)]
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        try:
            code = subprocess.run(
                command, cwd=_ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=limit
            ).returncode
            ended = {0: "all passed", 1: "some failed", 5: "no tests"}.get(code, f"exit status {code}")
        except subprocess.TimeoutExpired:
            ended = f"ended after {limit:.0f} s"
    found = {"ended": ended, "seconds": time.perf_counter() - started, **_read(lines)}
    if ended not in ("all passed", "some failed"):
        found["tail"] = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    return found


def _read(lines: Path) -> dict[str, Any]:
    text = lines.read_text(encoding="utf-8") if lines.is_file() else ""
    told = [json.loads(line) for line in text.splitlines()]
    slowest = sorted(told, key=lambda one: -one["seconds"])[:5]
    return {
        "counts": dict(Counter(one["outcome"] for one in told)),
        "failures": [
            {"test": one["test"], "text": one["text"]} for one in told if one["outcome"] == "failed"
        ],
        "slowest": [[one["test"], one["seconds"]] for one in slowest],
    }
