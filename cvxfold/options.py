"""The options of a layer: its own keyword arguments and what upstream's ``solver_args`` mean here."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from cvxfold.fold import METHODS, AdjointSettings
from cvxfold.forward.solution import ForwardSettings

OnUnconverged = Literal["warn", "raise", "ignore"]
BackwardMethod = Literal["auto", "direct", "gmres", "least_squares", "lfpi"]

_MEANINGLESS = frozenset({
    "mode", "solve_method", "n_jobs_forward", "n_jobs_backward", "acceleration_lookback",
    "acceleration_interval", "use_indirect", "warm_start", "warm_starts", "raise_on_error", "lsqr_args",
})  # fmt: skip
_FORWARD = {
    "eps": ("eps_abs", "eps_rel"),
    "eps_abs": ("eps_abs",),
    "eps_rel": ("eps_rel",),
    "eps_infeas": ("eps_infeasible",),
    "max_iters": ("max_iters",),
    "verbose": ("verbose",),
}


@dataclass(frozen=True)
class Options:
    """What a call should reach, may spend, and does when it falls short.

    Args:
        forward: tolerances and limits of the forward pass.
        adjoint: tolerance and limit of the backward pass.
        backward: name of the adjoint method.
        on_unconverged: what to do where a solution or a gradient misses its tolerance.
    """

    forward: ForwardSettings
    adjoint: AdjointSettings
    backward: str
    on_unconverged: str

    @classmethod
    def create(
        cls,
        *,
        backward: str,
        refine: bool,
        tol: float,
        max_iters: int | None,
        backward_tol: float,
        backward_max_iters: int | None,
        on_unconverged: str,
        verbose: bool,
    ) -> "Options":
        """Check a layer's keyword arguments.

        Raises:
            ValueError: an unknown name or a number out of range; the message lists what is allowed.
        """
        if backward not in METHODS:
            raise ValueError(f"backward: expected one of {sorted(METHODS)}, got {backward!r}")
        if on_unconverged not in get_args(OnUnconverged):
            choices = list(get_args(OnUnconverged))
            raise ValueError(f"on_unconverged: expected one of {choices}, got {on_unconverged!r}")
        for name, value in (("tol", tol), ("backward_tol", backward_tol)):
            _require_positive(name, value)
        for name, limit in (("max_iters", max_iters), ("backward_max_iters", backward_max_iters)):
            if limit is not None:
                _require_count(name, limit)
        forward = ForwardSettings(
            eps_abs=float(tol), eps_rel=float(tol), refine=bool(refine), verbose=bool(verbose)
        )
        if max_iters is not None:
            forward = replace(forward, max_iters=int(max_iters))
        adjoint = AdjointSettings(float(backward_tol), backward_max_iters)
        return cls(forward, adjoint, backward, on_unconverged)

    def updated(self, solver_args: Mapping[str, Any] | None) -> "Options":
        """These options with upstream's ``solver_args`` on top.

        Raises:
            ValueError: a key that neither cvxfold nor cvxpylayers knows, or a value out of range.
        """
        if not solver_args:
            return self
        changes: dict[str, Any] = {}
        ignored = []
        for key, value in solver_args.items():
            if key in _MEANINGLESS:
                ignored.append(key)
                continue
            if key not in _FORWARD:
                raise ValueError(
                    f"solver_args: unknown key {key!r}; known are {sorted(_FORWARD)}, and accepted without "
                    f"effect {sorted(_MEANINGLESS)}"
                )
            if key == "max_iters":
                _require_count("solver_args['max_iters']", value)
            elif key != "verbose":
                _require_positive(f"solver_args[{key!r}]", value)
            changes |= dict.fromkeys(_FORWARD[key], value)
        if ignored:
            warnings.warn(
                f"solver_args: {', '.join(sorted(ignored))}: no meaning for cvxfold's solver, ignored",
                UserWarning,
                stacklevel=3,
            )
        return replace(self, forward=replace(self.forward, **changes))


def _require_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def _require_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
