"""The options of a folded iteration, each written once: its name, type, default and check in one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypedDict

import torch

from cvxfold.checks import (
    Option,
    checked,
    completed,
    one_of,
    optional,
    options_of,
    require_count,
    require_flag,
    require_positive,
)
from cvxfold.layer.options import OnUnconverged
from cvxfold.methods import AdjointMethod, Unrolled
from cvxfold.methods.by_name import method_named

_TOL = {torch.float64: 1e-8, torch.float32: 1e-6}
_BACKWARD_TOL = {torch.float64: 1e-9, torch.float32: 1e-4}  # what products in that precision allow
_IN_LESS = 1e-2


class FoldOptions(TypedDict, total=False):
    """The options of a folded iteration, as keyword arguments.

    Args:
        batched: whether the first dimension of every tensor in x counts independent instances. Each then has
            its own linear system, iterations, residual and verdict; without it x is one instance.
        start: where the iteration begins if there is no solver: x₀ (tensors, nested as x is), or a function
            of the parameters that returns it.
        backward: as in a layer: "auto" (a dense factorization where an instance of x has at most 64
            entries, else GMRES; least squares where that is not enough), "direct" (the former), "gmres",
            "bicgstab", "anderson", "lfpi", "least_squares", "jacobian_free", "preconditioned_…" (by the
            dense factorization), "unrolled", or a method of ``cvxfold.fold`` as an object.
        tol: on the residual ‖F(x) − x‖ / (1 + ‖x‖), in maximum norms, above which an instance has not
            converged. None: 1e-8 in double precision, 1e-6 in single.
        limit: on the same residual, above which x is no fixed point of the update at all, which is an error
            whatever else is asked for.
        max_iters: of the iteration, where there is no solver.
        acceleration: memory of its Anderson acceleration; 0 for plain steps alone.
        backward_tol: on the relative residual of the adjoint system. None: 1e-9, in single precision 1e-4.
        backward_max_iters: of the adjoint method; None leaves it to the method.
        on_unconverged: "warn" (a :class:`cvxfold.ConvergenceWarning`), "raise" (a
            :class:`cvxfold.ConvergenceError`) or "ignore", where x or a gradient misses its tolerance or
            there is no unique derivative.
        on_degenerate: the same choices for gradients that have no unique value; None for the same answer.
        probe: whether to look for kinks of the update: after each backward pass it is evaluated on both
            sides of x and of the parameters. Without it a kink goes unnoticed.
        time_limit: seconds for the iteration, and again for the backward pass.
    """

    batched: Annotated[bool, Option(False, require_flag)]
    start: Annotated[Any, Option(None)]
    backward: Annotated[str | AdjointMethod | Unrolled, Option("auto")]
    tol: Annotated[float | None, Option(None, optional(require_positive))]
    limit: Annotated[float, Option(1e-2, require_positive)]
    max_iters: Annotated[int, Option(10_000, require_count)]
    acceleration: Annotated[int, Option(8, partial(require_count, least=0))]
    backward_tol: Annotated[float | None, Option(None, optional(require_positive))]
    backward_max_iters: Annotated[int | None, Option(None, optional(require_count))]
    on_unconverged: Annotated[OnUnconverged, Option("warn", one_of(OnUnconverged))]
    on_degenerate: Annotated[OnUnconverged | None, Option(None, optional(one_of(OnUnconverged)))]
    probe: Annotated[bool, Option(True, require_flag)]
    time_limit: Annotated[float | None, Option(None, optional(require_positive))]


OPTIONS = options_of(FoldOptions)
"""The options by name."""


@dataclass(frozen=True)
class FoldSettings:
    """The same, checked; ``method`` is the one that ``backward`` names. See :class:`FoldOptions`."""

    batched: bool
    start: Any
    method: AdjointMethod | Unrolled
    is_auto: bool
    tol: float | None
    limit: float
    max_iters: int
    acceleration: int
    backward_tol: float | None
    backward_max_iters: int | None
    on_unconverged: OnUnconverged
    on_degenerate: OnUnconverged | None
    probe: bool
    time_limit: float | None

    @classmethod
    def of(cls, solver: Callable[..., Any] | None, options: Mapping[str, Any]) -> "FoldSettings":
        """Check the options of an iteration with this solver, or with none.

        Raises:
            TypeError: there is no such option; the message names the nearest one.
            ValueError: a value out of range, or options that do not go together.
        """
        given = completed(OPTIONS, options)
        method = method_named(given.pop("backward"))
        checked({name: option for name, option in OPTIONS.items() if name != "backward"}, given)
        cold = isinstance(method, Unrolled) and method.start == "cold"
        if given["start"] is None and (solver is None or cold):
            wanted = "an unrolled cold start" if cold else "an iteration without a solver"
            raise ValueError(f"start: expected x₀, or a function of the parameters, for {wanted}, got None")
        if given["start"] is not None and solver is not None and not cold:
            raise ValueError("start: expected None where a solver finds the fixed point, got a start")
        if isinstance(method, Unrolled) and given["backward_max_iters"] is not None:
            raise ValueError("backward_max_iters: expected None: Unrolled(iterations=…) sets them")
        return cls(method=method, is_auto=options.get("backward", "auto") == "auto", **given)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Of the forward pass."""
        return _TOL.get(dtype, _IN_LESS) if self.tol is None else float(self.tol)

    def backward_tolerance(self, dtype: torch.dtype) -> float:
        """Of the backward pass."""
        tol = self.backward_tol
        return _BACKWARD_TOL.get(dtype, _IN_LESS) if tol is None else float(tol)
