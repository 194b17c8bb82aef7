"""The compiled part: which module serves on this CPU, or why there is none."""

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NAMES = ("v2", "v3", "v4", "neon", "generic")
"""Instruction sets that modules are compiled for: the levels of x86-64, NEON, or the compiler's default."""

_ISA, _FOLDER = "CVXFOLD_ISA", "CVXFOLD_LANES_DIR"
_SUFFIXES = (".so", ".dylib", ".dll")


@dataclass(frozen=True)
class _Found:
    """A module and its instruction set, or the reason why there is none."""

    library: ctypes.CDLL | None = None
    instruction_set: str | None = None
    reason: str | None = None


def library() -> ctypes.CDLL | None:
    """The compiled module for this CPU, or for the instruction set that ``CVXFOLD_ISA`` names.

    Returns:
        the module; None where there is no compiled part, or ``CVXFOLD_ISA`` is ``none``.

    Raises:
        ValueError: ``CVXFOLD_ISA`` names what does not exist, was not compiled or does not run on this CPU.
    """
    return _found().library


def instruction_set() -> str | None:
    """The instruction set of that module; None where there is none."""
    return _found().instruction_set


def why_not() -> str | None:
    """One line that says why there is no compiled module; None where there is one."""
    return _found().reason


def width() -> int:
    """How many instances a pack of that module holds; 1 where there is none."""
    found = library()
    return 1 if found is None else found.cvxfold_width()


@cache
def _found() -> _Found:
    """Look for the modules and load the best one, once in a process."""
    asked = os.environ.get(_ISA) or None
    if asked is not None and asked not in (*NAMES, "none"):
        raise ValueError(f"{_ISA}={asked}: it is one of {', '.join(NAMES)} or none")
    if asked == "none":
        return _Found(reason=f"{_ISA}=none turns the compiled part off")
    files = _files()
    if not files:
        return _missing(asked)
    try:
        return _chosen(files, asked)
    except OSError as error:
        if asked is not None:
            raise ValueError(f"{_ISA}={asked}: that module does not load: {error}") from error
        return _Found(reason=f"the compiled part does not load: {error}")


def _files() -> dict[str, Path]:
    """The modules by instruction set, from the oldest to the newest."""
    folder = Path(os.environ.get(_FOLDER) or Path(__file__).parent)
    paths = {name: [folder / f"lanes_{name}{suffix}" for suffix in _SUFFIXES] for name in NAMES}
    present = {name: [path for path in paths[name] if path.is_file()] for name in NAMES}
    return {name: there[0] for name, there in present.items() if there}


def _missing(asked: str | None) -> _Found:
    folder = os.environ.get(_FOLDER)
    where = f"in {_FOLDER}={folder}" if folder else "in this installation, which was made without a C++ compiler"
    reason = f"there is no compiled part {where}"
    if asked is not None:
        raise ValueError(f"{_ISA}={asked}: {reason}")
    return _Found(reason=reason)


def _chosen(files: dict[str, Path], asked: str | None) -> _Found:
    """The best module that this CPU runs, or the one that is asked for."""
    first = next(iter(files))
    oldest = _load(files[first])
    runs = [name for name in files if _runs(name, oldest.cvxfold_level())]
    if asked is not None and asked not in runs:
        trouble = "this CPU does not have it" if asked in files else "it is not among the compiled modules"
        raise ValueError(f"{_ISA}={asked}: {trouble}; there are {', '.join(runs) or 'none'}")
    if not runs:
        return _Found(reason=f"this CPU runs none of the compiled modules ({', '.join(files)})")
    name = asked or runs[-1]
    return _Found(oldest if name == first else _load(files[name]), name)


def _runs(name: str, level: int) -> bool:
    """Whether a CPU of that x86-64 level (0: of another kind) runs a module that was found beside this file."""
    return name in ("neon", "generic") or int(name[1:]) <= level


def _load(path: Path) -> ctypes.CDLL:
    if sys.platform == "win32":
        return ctypes.CDLL(str(path.resolve()))
    return ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
