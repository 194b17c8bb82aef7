"""What the command line works on: a problem and a sampler, named as ``module:function``."""

import importlib
import importlib.util
import inspect
import os
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

_LIBRARIES = (  # where the names of files begin whose lines are not the user's
    *{f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    f"{Path(__file__).parents[1]}{os.sep}",
    "<",  # frozen modules
)
_EXPECTED = "a tuple (problem, parameters, variables, sampler)"


class ProblemError(ValueError):
    """A target that cannot be used; the message says what is wrong with it and what was expected."""


@dataclass(frozen=True)
class NamedProblem:
    """A problem to work on.

    Args:
        name: as it was given.
        problem: parametrized. parameters: all of its parameters. variables: to return.
        sampler: ``sampler(batch, seed)`` or ``sampler(batch)`` gives one array or tensor for each parameter,
            of the parameter's shape or ``(batch, *shape)``.
    """

    name: str
    problem: cp.Problem
    parameters: Sequence[cp.Parameter]
    variables: Sequence[cp.Variable]
    sampler: Callable[..., Any]

    def sample(
        self,
        batch: int,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> list[Tensor]:
        """Parameter values from the sampler.

        The random generators of Python, numpy and torch are seeded first, for a sampler without a seed.

        Raises:
            ProblemError: the sampler failed, or gave something of another number or shape.
        """
        arguments = (batch, seed) if _takes_two(self.sampler) else (batch,)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (the sampler may use it)
        torch.manual_seed(seed)
        call = f"{self.name}: sampler({', '.join(map(str, arguments))})"
        try:
            drawn = list(self.sampler(*arguments))
            values = [torch.as_tensor(value).to(device=device, dtype=dtype) for value in drawn]
        except Exception as error:
            raise ProblemError(f"{call} raised {_described(error)}") from error
        if len(values) != len(self.parameters):
            raise ProblemError(
                f"{call}: expected one array for each of {len(self.parameters)} parameters, got {len(values)}"
            )
        for number, (value, parameter) in enumerate(zip(values, self.parameters, strict=True)):
            shape, got = tuple(parameter.shape), tuple(value.shape)
            if got not in (shape, (batch, *shape)):
                raise ProblemError(
                    f"{call}: parameter {number} ({parameter.name()}): expected shape {(batch, *shape)} or "
                    f"{shape}, got {got}"
                )
        return values


def load_problem(name: str) -> NamedProblem:
    """Import a function, call it and check what it returns.

    Args:
        name: ``package.module:function`` or ``path/to/file.py:function``. Modules are looked for in the
            current directory too. The function takes no arguments and returns (problem, parameters,
            variables, sampler).

    Raises:
        ProblemError: any of this is not so.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise ProblemError(f"{name}: expected module:function or path/to/file.py:function")
    module = _from_file(name, Path(place)) if place.endswith(".py") else _from_module(name, place)
    function = getattr(module, attribute, None)
    if not callable(function):
        what = "there is no function" if function is None else "not a function:"
        raise ProblemError(f"{name}: {what} {attribute!r} in {place}")
    try:
        found = function()
    except Exception as error:
        raise ProblemError(f"{name}: {attribute}() raised {_described(error)}") from error
    return _checked(name, found)


def _from_module(name: str, place: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        if place == missing or place.startswith(f"{missing}."):
            raise ProblemError(f"{name}: there is no module {missing!r} here") from error
        raise ProblemError(f"{name}: {place} needs the module {missing!r}, which is not installed") from error
    except Exception as error:
        raise ProblemError(f"{name}: importing {place} raised {_described(error)}") from error


def _from_file(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ProblemError(f"{name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # as for a script: its neighbours can be imported
        sys.path.insert(0, folder)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        if sys.modules.get(path.stem) is module:  # as import does with what failed
            del sys.modules[path.stem]
        raise ProblemError(f"{name}: running {path} raised {_described(error)}") from error
    return module


def _checked(name: str, found: Any) -> NamedProblem:
    if not isinstance(found, tuple | list) or len(found) != 4:
        size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise ProblemError(f"{name}: expected {_EXPECTED}, got {type(found).__name__}{size}")
    problem, parameters, variables, sampler = found
    if not isinstance(problem, cp.Problem):
        raise ProblemError(f"{name}: expected {_EXPECTED}; the problem is {type(problem).__name__}")
    lists = (("parameters", parameters, cp.Parameter), ("variables", variables, cp.Variable))
    for what, listed, kind in lists:
        if not isinstance(listed, tuple | list) or not all(isinstance(one, kind) for one in listed):
            raise ProblemError(f"{name}: expected {_EXPECTED}; {what} is not a list of cvxpy.{kind.__name__}")
    if not callable(sampler):
        raise ProblemError(f"{name}: expected {_EXPECTED}; the sampler is {type(sampler).__name__}")
    return NamedProblem(name, problem, list(parameters), list(variables), sampler)


def _described(error: Exception) -> str:
    """An error, and the innermost line of the user's own code that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"


def _takes_two(sampler: Callable[..., Any]) -> bool:
    """Whether a sampler can be called with a batch and a seed."""
    try:
        inspect.signature(sampler).bind(0, 0)
    except TypeError:
        return False
    except ValueError:  # it does not tell
        return True
    return True
