"""The compiled part: which module serves on this CPU, or why there is none."""

import ctypes
import hashlib
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NAMES = ("v2", "v3", "v4", "neon", "generic")
"""Instruction sets that modules are compiled for: the levels of x86-64, NEON, or the compiler's default."""

_ISA, _FOLDER = "CVXFOLD_ISA", "CVXFOLD_LANES_DIR"
_SOURCES = ("*.cpp", "*.hpp", "kernels/*.hpp", "CMakeLists.txt")
_SUFFIXES = (".so", ".dylib", ".dll")


@dataclass(frozen=True)
class _Found:
    """A module, its instruction set and the one for single instances, or the reason why there is none."""

    library: ctypes.CDLL | None = None
    instruction_set: str | None = None
    reason: str | None = None
    single: ctypes.CDLL | None = None


def library() -> ctypes.CDLL | None:
    """The compiled module for this CPU, or for the instruction set that ``CVXFOLD_ISA`` names.

    Returns:
        the module; None where there is no compiled part, or ``CVXFOLD_ISA`` is ``none``.

    Raises:
        ValueError: ``CVXFOLD_ISA`` names what does not exist, was not compiled or does not run on this CPU.
    """
    return _found().library


def single_library() -> ctypes.CDLL | None:
    """The module with packs of one for the same instruction set, where it is there: for one or two instances.

    It gives the same bits, with less memory and less time.
    """
    return _found().single


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
    if asked == "none":
        return _Found(reason=f"{_ISA}=none turns the compiled part off")
    if asked is not None and asked not in NAMES:
        raise ValueError(f"{_ISA}={asked}: it is one of {', '.join(NAMES)} or none")
    try:
        found = _chosen(_files(), asked)
    except OSError as error:
        found = _Found(reason=f"the compiled part does not load: {error}")
    if asked is not None and found.reason is not None:
        raise ValueError(f"{_ISA}={asked}: {found.reason}")
    return found


def _files() -> dict[str, Path]:
    """The modules by instruction set, from the oldest to the newest."""
    folder = Path(os.environ.get(_FOLDER) or Path(__file__).parent)
    paths = {name: [folder / f"lanes_{name}{suffix}" for suffix in _SUFFIXES] for name in NAMES}
    present = {name: [path for path in paths[name] if path.is_file()] for name in NAMES}
    return {name: there[0] for name, there in present.items() if there}


def _chosen(files: dict[str, Path], asked: str | None) -> _Found:
    """The best module that this CPU runs, or the one that is asked for."""
    if not files:
        return _Found(reason=_nothing())
    first = next(iter(files))
    oldest = _load(files[first])
    if _is_stale(oldest):
        return _Found(reason="the compiled part is older than its sources: install cvxfold again")
    runs = [name for name in files if _runs(name, oldest.cvxfold_level())]
    name = asked or (runs[-1] if runs else "")
    if name in runs:
        chosen = oldest if name == first else _load(files[name])
        single = files[name].with_stem(f"{files[name].stem}_single")
        return _Found(chosen, name, single=_load(single) if single.is_file() else None)
    if name in files:
        return _Found(reason=f"this CPU does not have it, but {', '.join(runs) or 'none that is compiled'}")
    there = ", ".join(files)
    return _Found(reason=f"only {there} are compiled" if name else f"this CPU runs none of {there}")


def _nothing() -> str:
    folder = os.environ.get(_FOLDER)
    if folder:
        return f"there is no compiled part in {_FOLDER}={folder}"
    return "there is no compiled part: when cvxfold was installed there was no C++ compiler, or it failed"


def _runs(name: str, level: int) -> bool:
    """Whether a CPU of that x86-64 level (0: of another kind) runs a module that is there."""
    return name in ("neon", "generic") or int(name[1:]) <= level


def _is_stale(module: ctypes.CDLL) -> bool:
    """Whether the sources beside this file are not those that the module was made of (see CMakeLists.txt)."""
    folder = Path(__file__).parent
    found = (path for pattern in _SOURCES for path in folder.glob(pattern))
    sources = sorted(path.relative_to(folder).as_posix() for path in found)
    digests = "".join(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sources)
    made_of = getattr(module, "cvxfold_sources", None)
    if made_of is None:
        return True
    made_of.restype = ctypes.c_char_p
    return hashlib.sha256(digests.encode()).hexdigest().encode() != made_of()


def _load(path: Path) -> ctypes.CDLL:
    if sys.platform == "win32":
        return ctypes.CDLL(str(path.resolve()))
    return ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
