"""NVIDIA's compiler at run time and its driver: kernels compiled once, kept on disk, and launched."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from ctypes import Structure, addressof, c_void_p
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from cvxfold.engines.cuda.records import WARP

NAMES = ("prepare", "forward", "restore", "differentiate", "points")
"""Of the kernels."""

_HERE = Path(__file__).parent
_KERNELS = _HERE / "kernels.cu"
_HEADERS = _HERE.parent / "lanes"
_CACHE = "CVXFOLD_CACHE"


@cache
def why_not() -> str | None:
    """One line that says why kernels cannot be compiled and launched here; None where they can."""
    try:
        _, compiler, _ = _bindings("nvrtc").nvrtcVersion()
    except Exception as error:  # whatever a missing or broken toolkit raises
        return f"cuda.bindings with NVRTC do not serve ({type(error).__name__}): pip install 'cvxfold[cuda]'"
    try:
        version = _checked(_bindings("driver").cuDriverGetVersion()) // 1000
    except Exception as error:
        return f"there is no driver of NVIDIA's ({type(error).__name__})"
    if version < compiler:
        return f"the driver is of CUDA {version}, which does not load what NVRTC {compiler} makes"
    return None


def compiled(architecture: str, lanes: int, without: Sequence[str] = ()) -> bytes:
    """The kernels as a cubin, from the folder of those compiled before, or compiled now.

    Args:
        architecture: such as "sm_90". lanes: instances of a warp.
        without: kinds of cones that will not be met, in capitals.

    Raises:
        RuntimeError: they do not compile; the message holds the compiler's.
    """
    options = _options(architecture, lanes, without)
    kept = _folder() / f"{_digest(options)}.cubin"
    if kept.exists():
        return kept.read_bytes()
    made = _compile(options, "CUBIN")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            file.write(made)
        os.replace(file.name, kept)  # whole, whoever else compiles the same
    except OSError:
        pass  # nothing can be kept there
    return made


def intermediate(architecture: str, lanes: int, without: Sequence[str] = ()) -> bytes:
    """The kernels as PTX, for an architecture such as "compute_90"; the rest as :func:`compiled`."""
    return _compile(_options(architecture, lanes, without), "PTX")


class Kernels:
    """The compiled kernels for a device.

    Args:
        device: a CUDA device. lanes: instances of a warp.
        without: kinds of cones that will not be met, in capitals.
    """

    def __init__(self, device: torch.device, lanes: int, without: Sequence[str]) -> None:
        driver = _bindings("driver")
        major, minor = torch.cuda.get_device_capability(device)
        self._device = device
        cubin = compiled(f"sm_{major}{minor}", lanes, without)
        with torch.cuda.device(device):
            torch.cuda.current_stream()  # the device's context exists from here on
            self._library = _checked(driver.cuLibraryLoadData(cubin, [], [], 0, [], [], 0))
            self._functions = {
                name: _checked(
                    driver.cuKernelGetFunction(
                        _checked(driver.cuLibraryGetKernel(self._library, name.encode()))
                    )
                )
                for name in NAMES
            }

    def sizes(self) -> dict[str, tuple[int, int]]:
        """By name, registers of a thread, and the bytes it keeps in memory for want of registers."""
        driver = _bindings("driver")
        kinds = driver.CUfunction_attribute
        asked = kinds.CU_FUNC_ATTRIBUTE_NUM_REGS, kinds.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES
        found = {}
        for name, function in self._functions.items():
            registers, kept = (_checked(driver.cuFuncGetAttribute(kind, function)) for kind in asked)
            found[name] = registers, kept
        return found

    def launch(self, name: str, blocks: int, task: Structure) -> None:
        """Start a kernel on the current stream, one warp a block."""
        driver = _bindings("driver")
        arguments = (c_void_p * 1)(addressof(task))
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream().cuda_stream
            _checked(
                driver.cuLaunchKernel(
                    self._functions[name], blocks, 1, 1, WARP, 1, 1, 0, stream, addressof(arguments), 0
                )
            )


@cache
def kernels_for(device: torch.device, lanes: int, without: tuple[str, ...]) -> Kernels:
    """Those of a device and a class of structures, compiled at their first use."""
    return Kernels(device, lanes, without)


def _bindings(name: str) -> Any:
    """A module of ``cuda.bindings``, which the extra ``cuda`` brings."""
    return import_module(f"cuda.bindings.{name}")


def _options(architecture: str, lanes: int, without: Sequence[str]) -> list[str]:
    return [
        "-std=c++17", f"-arch={architecture}", f"-I{_HEADERS}", "-default-device", "-split-compile=0",
        f"-DCVXFOLD_STRIDE={lanes}", *(f"-DCVXFOLD_WITHOUT_{kind}=1" for kind in without),
    ]  # fmt: skip


def _compile(options: Sequence[str], kind: str) -> bytes:
    """What NVRTC makes of the kernels, ``"CUBIN"`` or ``"PTX"``."""
    nvrtc = _bindings("nvrtc")
    program = _checked(nvrtc.nvrtcCreateProgram(_KERNELS.read_bytes(), b"kernels.cu", 0, [], []))
    given = [option.encode() for option in options]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
    if result.value:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        architecture = options[1].removeprefix("-arch=")
        raise RuntimeError(f"the kernels do not compile for {architecture}: {log.decode()[:4000]}")
    made = b" " * _checked(getattr(nvrtc, f"nvrtcGet{kind}Size")(program))
    _checked(getattr(nvrtc, f"nvrtcGet{kind}")(program, made))
    nvrtc.nvrtcDestroyProgram(program)
    return made


def _digest(options: Sequence[str]) -> str:
    text = hashlib.sha256(repr([option for option in options if not option.startswith("-I")]).encode())
    for path in [_KERNELS, *sorted((_HEADERS / "kernels").glob("*.hpp"))]:
        text.update(path.read_bytes())
    return text.hexdigest()[:32]


def _folder() -> Path:
    """Where compiled kernels are kept: ``CVXFOLD_CACHE``, or the user's folder for such things."""
    if given := os.environ.get(_CACHE):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "cvxfold"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cvxfold"


def _checked(answer: Any) -> Any:
    """What a function of the toolkit returns, behind its error code."""
    code, *rest = answer
    if code.value:
        raise RuntimeError(f"CUDA: {code.name}")
    return rest[0] if rest else None
