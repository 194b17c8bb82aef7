"""The machine: card, driver, versions, cores; and what it can do at most."""

import os
import subprocess
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from cvxfold.engines.choose import compiled, sizes_on
from cvxfold.studies.bench.machine import described, rates

_PACKAGES = ("cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "triton", "jax", "scipy")
_QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit"
_LAUNCHES = 2_000


def facts(device: str) -> dict[str, Any]:
    """What the machine is.

    Args:
        device: where the values will be.
    """
    place, part = torch.device(device), compiled()
    found = described(None, place)
    found["versions"] |= {name: number for name in _PACKAGES if (number := _version(name)) is not None}
    found["engine_on_the_cpu"] = part.instruction_set and f"lanes, {part.instruction_set}"
    found["why_not_lanes"] = part.why_not
    found["cores_allowed"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    found["torch_cuda"] = torch.version.cuda
    found["nvidia_smi"] = _nvidia_smi()
    found["nvrtc"] = _nvrtc()
    if place.type == "cuda":
        properties = torch.cuda.get_device_properties(place)
        names = ("name", "major", "minor", "total_memory", "multi_processor_count", "L2_cache_size")
        found["card"] = {name: getattr(properties, name, None) for name in names}
    return found


def kernels(device: str) -> dict[str, Any]:
    """The kernels for problems without curved cones: seconds until they can be started, and what they take.

    Args:
        device: a CUDA device.

    Returns:
        ``seconds``, for compilation where none are kept on disk; ``kernels``: registers of a thread, and
        bytes that it keeps in memory for want of them, by name.
    """
    place, started = torch.zeros(1, device=device).device, time.perf_counter()
    sizes = sizes_on(place)
    return {"seconds": time.perf_counter() - started, "kernels": sizes}


def floors(device: str) -> dict[str, Any]:
    """What no computation can beat: bytes and multiply-adds a second, seconds to start one operation."""
    place = torch.device(device)
    best = rates(place)
    return {
        "bytes_a_second": best.bandwidth,
        "multiply_adds_a_second": best.multiply_adds,
        "seconds_a_launch": _launch(place),
        "seconds_a_wait": _wait(place),
    }


def _launch(device: torch.device) -> float:
    """Of many additions to one number, one after the other."""
    one = torch.zeros(1, dtype=torch.float64, device=device)
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(_LAUNCHES):
        one.add_(1.0)
    _synchronize(device)
    return (time.perf_counter() - started) / _LAUNCHES


def _wait(device: torch.device) -> float:
    """Of reading one number on the host that has just been changed."""
    one, count = torch.zeros(1, dtype=torch.float64, device=device), _LAUNCHES // 10
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(count):
        one.add_(1.0).item()
    return (time.perf_counter() - started) / count


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _nvidia_smi() -> str | None:
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _nvrtc() -> str:
    """The version of NVRTC as the bindings see it, or why they do not."""
    try:
        nvrtc: Any = import_module("cuda.bindings.nvrtc")
    except ImportError as error:
        return str(error)
    try:
        error, major, minor = nvrtc.nvrtcVersion()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"{major}.{minor} ({error})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
