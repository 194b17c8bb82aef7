"""What a call takes: seconds, and bytes at its peak."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"  # what resets VmHWM, by proc(5)


@dataclass(frozen=True)
class Measured(Generic[T]):
    """A call's result and what it took.

    Args:
        value: the result.
        seconds: wall time, all work on the device included.
        peak_bytes: on CUDA, the largest memory that PyTorch held during the call above what it held before;
            on the CPU, the growth of the process's largest resident memory, which is 0 where freed memory is
            used again. None where the system does not tell.
    """

    value: T
    seconds: float
    peak_bytes: int | None


def timed(function: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Call, and give the result and the wall time, with the device idle before and after."""
    _wait(device)
    started = time.perf_counter()
    value = function()
    _wait(device)
    return value, time.perf_counter() - started


def measure(function: Callable[[], T], device: torch.device) -> Measured[T]:
    """Call, and measure time and memory.

    Calls must not be nested: there is one peak for the process, and one for each device.

    Args:
        function: what to call.
        device: that does the work.
    """
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        value, seconds = timed(function, device)
        return Measured(value, seconds, torch.cuda.max_memory_allocated(device) - before)
    start = _resident("VmRSS") if _reset_peak() else None
    value, seconds = timed(function, device)
    peak = None if start is None else _resident("VmHWM")
    return Measured(value, seconds, None if start is None or peak is None else max(0, peak - start))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak() -> bool:
    """Begin a new peak of the resident memory; whether that can be done here (Linux)."""
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _resident(name: str) -> int | None:
    """A line of the process's status in bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found[1]) * 1024
