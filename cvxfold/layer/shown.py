"""Layers in notebooks: what they map to what, on which program, with which options, and the last report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from cvxfold.checks import Option
from cvxfold.cones.dims import ConeDims
from cvxfold.display.html import block, line, listing, title
from cvxfold.report.report import Report


def shown(name: str, entries: Mapping[str, str], report: Report) -> str:
    """What can be called and reports, as HTML."""
    last = report._repr_html_() if report.forward.status else line("not called yet")
    return block(title(name), listing(entries), last)


def shapes(of: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Names with shapes in words."""
    return ", ".join(f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in of)


def cones(dims: ConeDims) -> str:
    """The cones of a program in words."""
    counted = {
        "equalities": dims.zero,
        "inequalities": dims.nonnegative,
        "second-order cones": len(dims.second_order),
        "semidefinite cones": len(dims.semidefinite),
        "exponential cones": dims.exponential,
        "power cones": len(dims.power),
    }
    return ", ".join(f"{count:,} {name}" for name, count in counted.items() if count) or "no constraint"


def changed(options: Mapping[str, Option], given: Mapping[str, Any]) -> str:
    """The options that are not what they would be, in words."""
    others = [
        (name, given[name]) for name, option in options.items() if not _same(given[name], option.default)
    ]
    return ", ".join(f"{name}={_told(value)}" for name, value in others) or "the defaults"


def _told(value: Any) -> str:
    """A value in a few letters."""
    if isinstance(value, Tensor):
        return f"a tensor {'×'.join(map(str, value.shape)) or 'scalar'}"
    return called(value) if callable(value) and hasattr(value, "__qualname__") else repr(value)


def called(function: Any) -> str:
    """What a function is called, or else what it is an object of."""
    return getattr(function, "__qualname__", None) or type(function).__name__


def _same(value: Any, default: Any) -> bool:
    """Tensors among options are no default."""
    return value is default or (isinstance(value, str | int | float | bool) and value == default)
