"""``cvxfold doctor``: what cvxfold runs on here."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from cvxfold import __version__
from cvxfold.engines.choose import compiled, why_no_cuda_kernels, why_no_rescue

_PACKAGES = ("torch", "cvxpy", "cvxpylayers", "diffcp", "scs", "clarabel")


def run(as_json: bool) -> None:
    """Look and print.

    Raises:
        ValueError: ``CVXFOLD_ISA`` asks for what is not there.
    """
    found = findings()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        Console(highlight=False, markup=False, soft_wrap=True).print(table(found))


def findings() -> dict[str, Any]:
    """What there is, by name; None for what there is not."""
    part = compiled()
    return {
        "cvxfold": __version__,
        "engine": "tensors" if part.instruction_set is None else "lanes",
        "why_not_lanes": part.why_not,
        "instruction_set": part.instruction_set,
        "pack_width": part.width,
        "why_no_rescue": why_no_rescue(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "why_no_cuda_kernels": why_no_cuda_kernels(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def table(found: dict[str, Any]) -> Table:
    """The same for the eye."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    engine, why_not = found["engine"], found["why_not_lanes"]
    rows = {
        "cvxfold": found["cvxfold"],
        "engine on CPU": engine if why_not is None else f"{engine} ({why_not})",
        "instruction set": found["instruction_set"] or "none",
        "pack width": found["pack_width"],
        "rescue": found["why_no_rescue"] or "by Clarabel",
        "threads": found["threads"],
        "CUDA": found["cuda"] or "no",
        "CUDA kernels": found["why_no_cuda_kernels"] or "by NVRTC",
        **{name: number or "not installed" for name, number in found["versions"].items()},
    }
    for name, value in rows.items():
        shown.add_row(name, str(value))
    return shown


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
