"""The machine a benchmark runs on: what it is, how fast, and how much of it may be used."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_PACKAGES = (
    "cvxfold",
    "cvxpylayers",
    "cvxpy",
    "diffcp",
    "scs",
    "clarabel",
    "moreau",
    "qpth",
    "torch",
    "numpy",
)
_COPIED, _ORDER, _REPEATS = 2**23, 768, 5  # numbers of a copy (64 MB), order of a product


@dataclass(frozen=True)
class Rates:
    """What the machine can do, measured in float64.

    Args:
        bandwidth: bytes a second, read and written together, of a copy that no cache holds.
        multiply_adds: a second, of a product of matrices.
    """

    bandwidth: float
    multiply_adds: float


def rates() -> Rates:
    """Measure, in about a tenth of a second, on as many threads as PyTorch uses."""
    source, target = torch.ones(_COPIED, dtype=torch.float64), torch.empty(_COPIED, dtype=torch.float64)
    matrix = torch.ones(_ORDER, _ORDER, dtype=torch.float64)
    copy = _best(lambda: target.copy_(source))
    product = _best(lambda: matrix @ matrix)
    return Rates(2 * 8 * _COPIED / copy, _ORDER**3 / product)


def described(threads: int | None) -> dict[str, Any]:
    """Processor, threads, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Keep everybody to so many threads: PyTorch by its own setting, others by the cores they may use.

    Where the system does not let a process choose its cores (all but Linux), others choose for themselves.
    """
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    torch.set_num_threads(threads)
    if allowed is not None:
        os.sched_setaffinity(0, sorted(allowed)[:threads])
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if allowed is not None:
            os.sched_setaffinity(0, allowed)


def _best(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls."""
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
