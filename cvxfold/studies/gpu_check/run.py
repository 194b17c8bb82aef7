"""The run: parts in turns, each within its time, everything on disk after each."""

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cvxfold.studies.gpu_check.plan import Part
from cvxfold.studies.gpu_check.tests import cuda_tests
from cvxfold.studies.gpu_check.worker import serve

_RESERVE = 3.0  # seconds for ending processes and the table
_TAIL = 1_500


class _Worker:
    """The process at work; a new one where the last was ended or died."""

    def __init__(self, log: Path) -> None:
        self._log, self._context = log, multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Any = None

    def ask(self, step: Part, limit: float) -> tuple[str, Any]:
        """How it ended: ``"done"``, ``"failed"``, ``"timed out"`` or ``"died"``, and the result or a text."""
        if self._process is None or not self._process.is_alive():
            self._begin()
        try:
            self._pipe.send((step.kind, step.arguments))
            if not self._pipe.poll(limit):
                self.end()
                return "timed out", f"ended after {limit:.0f} s"
            return self._pipe.recv()
        except (EOFError, OSError):
            code = self.end(5)
            said = self._log.read_text(encoding="utf-8", errors="replace") if self._log.is_file() else ""
            return "died", f"exit status {code}\n{said[-_TAIL:]}"

    def _begin(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(other, self._log))
        self._process.start()
        other.close()

    def end(self, patience: float = 0.0) -> int | None:
        """End it, whatever it is at, and give its exit status; one that ends by itself so soon is let."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.join(patience)
        process.kill()
        process.join(10)
        self._pipe.close()
        return process.exitcode


def check(device: str, seconds: float, folder: Path, parts: Sequence[Part]) -> dict[str, Any]:
    """Do what there is time for.

    Args:
        device: where the values are. seconds: for everything.
        folder: for ``gpu_check.json``, which is written after each part, and logs.
        parts: in the order of importance.

    Returns:
        what is in the file: ``device``, ``asked_seconds``, ``seconds`` and ``steps``, each with ``kind``,
        ``name``, ``arguments``, ``status`` (``done``, ``failed``, ``timed out``, ``died`` or ``no time``),
        ``seconds`` and ``result``, or a text that says what went wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    found: dict[str, Any] = {"device": device, "asked_seconds": seconds, "steps": []}
    worker = _Worker(folder / "worker.log")
    try:
        for step in parts:
            left = seconds - (time.monotonic() - started) - _RESERVE
            begun = time.monotonic()
            status, result = _done(step, min(step.limit, left), worker, folder)
            found["steps"].append(
                {
                    "kind": step.kind,
                    "name": step.name,
                    "arguments": step.arguments,
                    "status": status,
                    "seconds": round(time.monotonic() - begun, 2),
                    "result": result,
                }
            )
            found["seconds"] = round(time.monotonic() - started, 1)
            _write(folder / "gpu_check.json", found)
            print(f"{found['seconds']:7.1f} s  {step.name}: {status}", flush=True)
    finally:
        worker.end()
    return found


def _done(step: Part, limit: float, worker: _Worker, folder: Path) -> tuple[str, Any]:
    if limit < step.needs:
        return "no time", ""
    if step.kind == "tests":
        return _guarded(lambda: cuda_tests(folder, limit))
    return worker.ask(step, limit)


def _guarded(work: Callable[[], dict[str, Any]]) -> tuple[str, Any]:
    try:
        return "done", work()
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}"


def _write(file: Path, found: dict[str, Any]) -> None:
    """Whole or not at all."""
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")
    beside.replace(file)
