"""The sets that parameters are declared to lie in, and which instances do.

Of cvxpy's attributes all are checked that dense parameters can have: the signs, ``symmetric``, ``PSD``,
``NSD``, ``hermitian``, ``diag``, ``imag``, ``bounds`` (those that are numbers), ``boolean`` and ``integer``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

_SLACK = 1e-5  # relative to the largest entry; a declared set is left by this much in finite differences
_ROUNDINGS = 100  # … and by this many roundings of the value's own dtype
_UNEVEN = 1e-2  # relative to the largest entry: so much a matrix that is read as symmetric may miss it
_HELD = 1e-2  # relative to the largest entry: so far from a bound nothing is moved by finite differences

NAMES = ("nonneg", "nonpos", "pos", "neg", "PSD", "NSD", "symmetric", "hermitian", "diag", "imag")
"""cvxpy's attributes that are sets of numbers or matrices, the narrower before the wider."""

_INTERVALS = {
    "nonneg": (0.0, math.inf), "pos": (0.0, math.inf), "nonpos": (-math.inf, 0.0), "neg": (-math.inf, 0.0),
}  # fmt: skip

_BY_TRIANGLES = ("symmetric", "PSD", "NSD", "hermitian")

DESCRIPTIONS = {
    "nonneg": "nonnegative values",
    "nonpos": "nonpositive values",
    "pos": "nonnegative values",
    "neg": "nonpositive values",
    "symmetric": "a symmetric matrix",
    "PSD": "a symmetric positive semidefinite matrix",
    "NSD": "a symmetric negative semidefinite matrix",
    "hermitian": "a Hermitian matrix",
    "diag": "a diagonal matrix",
    "imag": "imaginary numbers",
}


@dataclass(frozen=True)
class DeclaredSet:
    """The set that a parameter is declared to lie in.

    Args:
        names: of :data:`NAMES`.
        lower, upper: bounds, of the parameter's shape or ``()``; None where it has none.
        boolean, integer: masks of the parameter's shape, of entries that are 0 or 1, or integers; None where
            it has none.
    """

    names: tuple[str, ...] = ()
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    boolean: np.ndarray | None = None
    integer: np.ndarray | None = None

    @classmethod
    def of(cls, parameter: cp.Parameter) -> "DeclaredSet":
        """What a parameter is declared to be."""
        names = tuple(name for name in NAMES if parameter.attributes[name])
        bounds: Any = parameter.bounds or (None, None)
        lower, upper = (
            None if bound is None or isinstance(bound, cp.Expression) else np.asarray(bound, dtype=float)
            for bound in bounds
        )
        return cls(names, lower, upper, _marked(parameter, "boolean"), _marked(parameter, "integer"))

    def __bool__(self) -> bool:
        """Whether there is anything to check."""
        parts = (self.lower, self.upper, self.boolean, self.integer)
        return bool(self.names) or any(part is not None for part in parts)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Two numbers such that all values between them lie in it; None where none are of such a kind."""
        signs = [_INTERVALS.get(name) for name in self.names]
        if self.boolean is not None or self.integer is not None or None in signs:
            return None
        least = [-math.inf if self.lower is None else float(self.lower.max(initial=-math.inf))]
        largest = [math.inf if self.upper is None else float(self.upper.min(initial=math.inf))]
        for sign in signs:
            assert sign is not None
            least.append(sign[0])
            largest.append(sign[1])
        return max(least), min(largest)

    @property
    def has_triangle(self) -> bool:
        """Whether the upper triangle alone is read."""
        return any(name in _BY_TRIANGLES for name in self.names)

    def inside(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Which instances lie in it, up to rounding.

        Args:
            value: finite, ``(1|B, *shape)``, float64 or complex128.
            dtype: that it came in; the real one of complex values.

        Returns:
            ``(1|B,)``, bool.
        """
        if value.numel() == 0:
            return torch.ones(len(value), dtype=torch.bool, device=value.device)
        slack = _relative_slack(dtype) * _largest(value)
        found = [_CHECKS[name](value, slack) for name in self.names]
        return torch.stack([*found, *map(_everywhere, self._by_entries(value, dtype))]).all(0)

    def entries(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Which entries of such a value are no reason why its instance lies outside, ``(1|B, *shape)``, bool.

        A matrix that is not symmetric or semidefinite is so as a whole.
        """
        found = [torch.ones_like(value, dtype=torch.bool), *self._by_entries(value, dtype)]
        wide = _wide(_relative_slack(dtype) * _largest(value), value)
        signs = [_INTERVALS[name] for name in self.names if name in _INTERVALS]
        found += [(value >= least - wide) & (value <= largest + wide) for least, largest in signs]
        return torch.stack(found).all(0)

    def _by_entries(self, value: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
        """Which entries are within the bounds, boolean and integer as declared, each ``(1|B, *shape)``."""
        relative = _relative_slack(dtype)
        wide = _wide(relative * _largest(value), value)
        if self.lower is not None:
            yield value >= torch.as_tensor(self.lower, device=value.device) - wide
        if self.upper is not None:
            yield value <= torch.as_tensor(self.upper, device=value.device) + wide
        if self.boolean is not None:
            whole = (value.abs() <= relative) | ((value - 1).abs() <= relative)
            yield whole | ~torch.as_tensor(self.boolean, device=value.device)
        if self.integer is not None:
            whole = (value - value.round()).abs() <= relative * value.abs().clamp_min(1.0)
            yield whole | ~torch.as_tensor(self.integer, device=value.device)

    def uneven(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Which instances, of those inside, are neither symmetric nor Hermitian to rounding, ``(1|B,)``."""
        if not self.has_triangle or value.numel() == 0:
            return torch.zeros(len(value), dtype=torch.bool, device=value.device)
        return _unevenness(value) > _relative_slack(dtype) * _largest(value)

    def movable(self, value: Tensor) -> Tensor:
        """Which entries have room on both sides, ``(1|B, *shape)``: neither whole numbers nor at a bound."""
        free = torch.ones_like(value, dtype=torch.bool)
        room = _wide(_HELD * _largest(value), value)
        for bound in (self.lower, self.upper):
            if bound is not None:
                free &= (value - torch.as_tensor(bound, device=value.device)).abs() > room
        for whole in (self.boolean, self.integer):
            if whole is not None:
                free &= ~torch.as_tensor(whole, device=value.device)
        return free

    def __str__(self) -> str:
        """What values are expected."""
        found = [f"{DESCRIPTIONS[name]} (the parameter is declared {name})" for name in self.names[:1]]
        if self.lower is not None or self.upper is not None:
            ends = [("-inf" if self.lower is None else _ends(self.lower, "min"))]
            ends += ["inf" if self.upper is None else _ends(self.upper, "max")]
            found.append(f"values within its bounds, [{', '.join(ends)}]")
        if self.boolean is not None:
            found.append("0 or 1 (the parameter is declared boolean)")
        if self.integer is not None:
            found.append("integers (the parameter is declared integer)")
        return " and ".join(found)


def _ends(bound: np.ndarray, kind: str) -> str:
    """A bound in a message: the number, or the outermost of several."""
    return f"{float(getattr(bound, kind)()):g}" if bound.size else "none"


def _marked(parameter: cp.Parameter, attribute: str) -> np.ndarray | None:
    """The entries to which an attribute applies that may be given for some alone."""
    given = parameter.attributes[attribute]
    if given is False or given is None:
        return None
    marked = np.zeros(parameter.shape, dtype=bool)
    if given is True:
        return ~marked
    places: Any = getattr(parameter, f"{attribute}_idx")
    for place in places:
        marked[tuple(place)] = True
    return marked


def _relative_slack(dtype: torch.dtype) -> float:
    return max(_SLACK, _ROUNDINGS * torch.finfo(dtype).eps)


def _largest(value: Tensor) -> Tensor:
    return value.abs().reshape(len(value), -1).amax(1)


def _wide(number: Tensor, value: Tensor) -> Tensor:
    """A number for each instance, ``(1|B,)``, beside the entries of a value."""
    return number.view(-1, *(1,) * (value.dim() - 1))


def _everywhere(mask: Tensor) -> Tensor:
    return mask.reshape(len(mask), -1).all(1)


def _nonnegative(value: Tensor, slack: Tensor) -> Tensor:
    return value.reshape(len(value), -1).amin(1) >= -slack


def _unevenness(value: Tensor) -> Tensor:
    return _largest(value - value.mH)


def _symmetric(value: Tensor, slack: Tensor) -> Tensor:
    return _unevenness(value) <= torch.maximum(slack, _UNEVEN * _largest(value))


def _vanishing(value: Tensor, slack: Tensor) -> Tensor:
    return _largest(value) <= slack


def _semidefinite(value: Tensor, slack: Tensor) -> Tensor:
    """Whether a Cholesky factorization succeeds a little inside; rounding would decide it on the boundary.

    Of the matrix that the upper triangle stands for.
    """
    n, upper = value.shape[-1], value.triu()
    symmetric = upper + upper.triu(1).mT
    shift = (slack * math.sqrt(n)).clamp_min(torch.finfo(value.dtype).tiny)
    shift = _wide(shift, value) * torch.eye(n, dtype=value.dtype, device=value.device)
    _, failures = torch.linalg.cholesky_ex(symmetric + shift)
    return _everywhere((failures == 0).view(len(value), -1)) & _symmetric(value, slack)


_CHECKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nonneg": _nonnegative,
    "pos": _nonnegative,
    "nonpos": lambda value, slack: _nonnegative(-value, slack),
    "neg": lambda value, slack: _nonnegative(-value, slack),
    "symmetric": _symmetric,
    "hermitian": _symmetric,
    "diag": lambda value, slack: _vanishing(value - torch.diag_embed(value.diagonal(0, -2, -1)), slack),
    "imag": lambda value, slack: _vanishing(value.real, slack),
    "PSD": _semidefinite,
    "NSD": lambda value, slack: _semidefinite(-value, slack),
}
