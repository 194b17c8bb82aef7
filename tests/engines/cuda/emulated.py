"""The kernels of CUDA devices, compiled by the C++ compiler and run on the CPU, a thread after the other."""

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvxfold.engines.cuda.batch import CudaBatch
from cvxfold.engines.cuda.records import WARP, Task
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.pattern import Pattern

_HERE = Path(__file__).parent
_ENGINES = _HERE.parents[2] / "cvxfold" / "engines"

compiler = shutil.which("g++") or shutil.which("clang++")


@cache
def emulator(folder: Path) -> Any:
    """The module, compiled into a folder."""
    assert compiler is not None
    module = folder / "emulator.so"
    includes = [f"-I{_ENGINES / 'lanes'}", f"-I{_ENGINES / 'cuda'}"]
    flags = ["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", *includes]
    subprocess.run([compiler, *flags, _HERE / "emulator.cpp", "-o", module], check=True)
    return ctypes.CDLL(str(module))


class EmulatedBatch(CudaBatch):
    """A batch whose kernels the emulator runs; its tensors are on the CPU."""

    module: Any

    def __init__(self, pattern: Pattern, maps: Maps, order: np.ndarray) -> None:
        super().__init__(pattern, maps, order, torch.device("cpu"))
        assert self.module.emulator_task_size() == ctypes.sizeof(Task)

    def _launcher(self, lanes: int) -> "EmulatedBatch":
        return self

    def _lanes(self, batch: int) -> int:
        return WARP

    def launch(self, name: str, blocks: int, task: Task) -> None:
        """Run a kernel."""
        assert self.module.emulate(name.encode(), blocks, ctypes.byref(task)) == 0
