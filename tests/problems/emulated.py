"""The kernels of CUDA devices, compiled by the C++ compiler and run on the CPU, a thread after the other."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvxfold.engines.cuda.batch import CudaBatch
from cvxfold.engines.cuda.records import Task
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.pattern import Pattern

_HERE = Path(__file__).parent
_ENGINES = _HERE.parents[1] / "cvxfold" / "engines"

compiler = shutil.which("g++") or shutil.which("clang++")


class Emulator:
    """The kernels for so many instances of a warp, compiled into a folder."""

    def __init__(self, lanes: int, folder: Path) -> None:
        assert compiler is not None
        module = folder / f"emulator_{lanes}.so"
        includes = [f"-I{_ENGINES / 'lanes'}", f"-I{_ENGINES / 'cuda'}"]
        flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *includes]
        command = [compiler, *flags, f"-DCVXFOLD_STRIDE={lanes}", _HERE / "emulator.cpp", "-o", module]
        subprocess.run(command, check=True)
        self.lanes, self._module = lanes, ctypes.CDLL(str(module))
        assert self._module.emulator_task_size() == ctypes.sizeof(Task)

    def launch(self, name: str, blocks: int, task: Task) -> None:
        """Run a kernel."""
        assert self._module.emulate(name.encode(), blocks, ctypes.byref(task)) == 0


class EmulatedBatch(CudaBatch):
    """A batch whose kernels an emulator runs; its tensors are on the CPU."""

    def __init__(self, emulator: Emulator, *made_from: Any) -> None:
        pattern: Pattern
        maps: Maps
        order: np.ndarray
        pattern, maps, order = made_from
        super().__init__(pattern, maps, order, torch.device("cpu"))
        self._emulator = emulator

    def _launcher(self, lanes: int) -> Emulator:
        assert lanes == self._emulator.lanes
        return self._emulator

    def _lanes(self, batch: int) -> int:
        return self._emulator.lanes
