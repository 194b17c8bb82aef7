"""The kernels of CUDA devices, compiled by the C++ compiler and run on the CPU by threads out of step."""

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


class OutOfStepError(AssertionError):
    """Threads of a kernel do not wait where they must, or wait for who never comes."""


class Emulator:
    """The kernels for so many instances of a warp, compiled into a folder.

    Args:
        lanes: instances of a warp. folder: for the module. watched: whether each read and write is looked
            at, for those that no wait puts in order. kernels: the folder of ``kernels``, and ``kernels.cu``.
    """

    def __init__(self, lanes: int, folder: Path, *, watched: bool = True) -> None:
        import fcntl  # which not every system has

        self._path = folder / f"emulator_{lanes}_{watched}.so"
        with open(folder / f"emulator_{lanes}_{watched}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of all processes with this folder the first one compiles
            if not self._path.exists():
                self._compile(lanes, folder, watched)
        self.lanes, self._module, self._lot = lanes, ctypes.CDLL(str(self._path)), 0
        self._module.emulate.restype = ctypes.c_char_p
        assert self._module.emulator_task_size() == ctypes.sizeof(Task)

    def _compile(self, lanes: int, folder: Path, watched: bool) -> None:
        assert compiler is not None
        includes = [f"-I{_ENGINES / 'lanes'}", f"-I{_ENGINES / 'cuda'}"]
        flags = ["-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-fPIC", *includes]
        objects = []
        for name, more in (
            ("warp", ["-O2"]),
            ("emulator", [f"-DCVXFOLD_STRIDE={lanes}", *(["-fsanitize=thread"] if watched else [])]),
        ):
            objects.append(folder / f"{name}_{lanes}_{watched}.o")
            command = [compiler, *flags, *more, "-c", _HERE / f"{name}.cpp", "-o", objects[-1]]
            subprocess.run(command, check=True)
        whole = self._path.with_suffix(".part")
        subprocess.run([compiler, "-shared", *objects, "-ldl", "-o", whole], check=True)
        whole.rename(self._path)

    def launch(self, name: str, blocks: int, task: Task) -> None:
        """Run a kernel, its threads in an order drawn anew.

        Raises:
            OutOfStepError: they rely on being in step.
        """
        self._lot += 1
        said = self._module.emulate(name.encode(), blocks, self._lot, ctypes.byref(task))
        assert said is not None, name
        if said:
            lines = sorted({self._explained(line) for line in said.decode().splitlines()})
            raise OutOfStepError(f"{name}:\n" + "\n".join(lines[:40]))

    def _explained(self, line: str) -> str:
        kind, *places = line.split()
        return f"{kind}: " + " | ".join(self._line_of(place) for place in places)

    def _line_of(self, place: str) -> str:
        """Where in the text a place of the module is, and where that was called from."""
        tool = shutil.which("addr2line")
        if place == "0" or tool is None:
            return place
        asked = subprocess.run(
            [tool, "-i", "-e", self._path, place], capture_output=True, text=True, check=True
        )
        lines = [line.rpartition("/")[2].split()[0] for line in asked.stdout.splitlines()]
        return " < ".join(line for line in lines if not line.startswith(("strided", "pack")))


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
