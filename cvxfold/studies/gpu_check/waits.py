"""What a call starts on a device, and how often the host waits for it, by place."""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from cvxfold.studies.bench.families.table import FAMILIES
from cvxfold.studies.bench.passes import drawn, weights_of
from cvxfold.studies.measure import timed
from cvxfold.torch import CvxpyLayer

_PACKAGE = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cuGraphLaunch")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize")
_WAITS += ("cuCtxSynchronize", "cuEventSynchronize")
_SHOWN = 12  # kernels


def waits(family: str, size: int | None, batch: int, device: str) -> dict[str, Any]:
    """Of the third call: the first two compile, allocate and choose.

    Args:
        family, size, batch: of the values (``None``: the family's own size). device: where they are.

    Returns:
        for ``"forward"`` and ``"backward"`` each: ``seconds``; ``waits``, from place to count, as PyTorch
        sees them; ``launches``, ``runtime_waits`` and ``copies``, as CUDA's runtime sees them; ``kernels``,
        the longest with their count and seconds; ``operations`` of PyTorch.
    """
    place, kind = torch.device(device), FAMILIES[family]
    order = size or kind.size
    stated = kind.state(order)
    layer = CvxpyLayer(stated.problem, stated.parameters, stated.variables, gp=stated.gp)
    weights = [w.to(place) for w in weights_of(kind, order, batch, 0)]
    values = [v.to(place) for v in drawn(kind, order, batch, 0, 0)]
    found: dict[str, Any] = {}
    idle = _profiled(lambda: None, place)
    for look in (None, None, _waited, _profiled):  # how to look at each of four calls
        leaves = [value.clone().requires_grad_() for value in values]
        kept: list[Any] = []

        def forward(leaves: Any = leaves, kept: Any = kept) -> None:
            kept.append(
                torch.stack([(w * out).sum() for w, out in zip(weights, layer(*leaves), strict=True)])
            )

        def backward(leaves: Any = leaves, kept: Any = kept) -> None:
            torch.autograd.grad(kept[0].sum(), leaves)

        for name, function in (("forward", forward), ("backward", backward)):
            into = found.setdefault(name, {})
            if look is None:
                into["seconds"] = timed(function, place)[1]
            else:
                into |= look(function, place)
    for name in ("launches", "runtime_waits", "copies"):
        for one in (found["forward"], found["backward"]):
            one[name] -= idle[name]
    return {"engine": layer.report and layer.report.engine, "batch": batch, **found}


def _waited(function: Callable[[], None], device: torch.device) -> dict[str, Any]:
    """Places at which PyTorch makes the host wait."""
    places: Counter[str] = Counter()
    with _told(places, device):
        function()
    return {"waits": dict(places.most_common())}


@contextmanager
def _told(places: Counter[str], device: torch.device) -> Iterator[None]:
    """Count PyTorch's warnings of synchronizing operations by the line of this package that asks for them."""
    if device.type != "cuda":
        yield
        return

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "called a synchronizing" in str(message):
            places[_place(sys._getframe())] += 1

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _place(frame: FrameType | None) -> str:
    """``file:line`` of the innermost frame of this package, this folder aside."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE) and not path.is_relative_to(_HERE):
            return f"{path.relative_to(_PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _profiled(function: Callable[[], None], device: torch.device) -> dict[str, Any]:
    """What PyTorch's profiler saw."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    counts: Counter[str] = Counter()
    kernels: list[tuple[str, int, float]] = []
    with profile(activities=activities) as profiler:
        timed(function, device)
    for event in profiler.key_averages():
        counts[event.key] += event.count
        spent = float(getattr(event, "self_device_time_total", 0) or 0)
        if spent and str(getattr(event, "device_type", "")).endswith("CUDA"):
            kernels.append((event.key[:90], event.count, 1e-6 * spent))
    kernels.sort(key=lambda one: -one[2])
    return {
        "operations": sum(count for key, count in counts.items() if key.startswith("aten::")),
        "launches": _counted(counts, *_LAUNCHES),
        "runtime_waits": sum(counts[key] for key in _WAITS),
        "copies": _counted(counts, "cudaMemcpy", "cuMemcpy"),
        "kernel_seconds": sum(seconds for _, _, seconds in kernels),
        "kernels": kernels[:_SHOWN],
    }


def _counted(counts: Counter[str], *beginnings: str) -> int:
    return sum(count for key, count in counts.items() if key.startswith(beginnings))
