"""The machine a benchmark runs on: what it is, how fast, and how much of it may be used."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from cvxfold.studies.measure import timed

_PACKAGES = (
    "cvxfold",
    "cvxpylayers",
    "cvxpy",
    "diffcp",
    "scs",
    "clarabel",
    "moreau",
    "moreau-cuda12",
    "moreau-cuda13",
    "pinet-hcnn",
    "qpax",
    "qpth",
    "torch",
    "numpy",
)
_REPEATS = 5
_COPIED = {"cpu": 2**23, "cuda": 2**28}  # numbers of a copy (64 MB, 2 GB), which no cache holds
_ORDER = {"cpu": 768, "cuda": 8192}  # of a product


@dataclass(frozen=True)
class Rates:
    """What the machine can do, measured in float64.

    Args:
        bandwidth: bytes a second, read and written together, of a copy that no cache holds.
        multiply_adds: a second, of a product of matrices.
    """

    bandwidth: float
    multiply_adds: float


def rates(device: torch.device) -> Rates:
    """Measure, in about a tenth of a second; a CPU on as many threads as PyTorch uses."""
    count, order = (table.get(device.type, table["cpu"]) for table in (_COPIED, _ORDER))
    source = torch.ones(count, dtype=torch.float64, device=device)
    target, matrix = torch.empty_like(source), torch.randn(order, order, dtype=torch.float64, device=device)
    copy = _best(lambda: target.copy_(source), device)
    product = _best(lambda: matrix @ matrix, device)
    return Rates(2 * 8 * count / copy, order**3 / product)


def described(threads: int | None, device: torch.device) -> dict[str, Any]:
    """Device, processor, threads, versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
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


def _best(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of a few calls."""
    return min(timed(work, device)[1] for _ in range(_REPEATS))


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
