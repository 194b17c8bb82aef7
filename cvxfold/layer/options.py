"""The options of a layer: its own keyword arguments and what upstream's ``solver_args`` mean here."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from cvxfold.engines.external import BlackBox, named
from cvxfold.engines.tensors.solution import ForwardSettings
from cvxfold.engines.tensors.splitting import RELAXATION
from cvxfold.fold import METHODS, AdjointMethod, AdjointSettings
from cvxfold.fold.adjoint import require_count, require_positive
from cvxfold.fold.unrolled import Unrolled

OnUnconverged = Literal["warn", "raise", "ignore"]
OnUnsolvable = Literal["raise", "nan"]
BackwardMethod = (
    Literal[
        "auto",
        "direct",
        "gmres",
        "bicgstab",
        "anderson",
        "lfpi",
        "preconditioned_gmres",
        "preconditioned_bicgstab",
        "preconditioned_anderson",
        "preconditioned_lfpi",
        "least_squares",
        "jacobian_free",
        "unrolled",
    ]
    | AdjointMethod
    | Unrolled
)

_MEANINGLESS = frozenset({
    "mode", "n_jobs_backward", "warm_start", "warm_starts", "raise_on_error", "lsqr_args",
})  # fmt: skip
_OF_OTHER_SOLVERS = frozenset({
    "n_jobs_forward", "acceleration_interval", "use_indirect",
})  # fmt: skip
_FORWARD = {
    "eps": ("eps_abs", "eps_rel"),
    "eps_abs": ("eps_abs",),
    "eps_rel": ("eps_rel",),
    "eps_infeas": ("eps_infeasible",),
    "max_iters": ("max_iters",),
    "verbose": ("verbose",),
    # Clarabel's names
    "tol_gap_abs": ("eps_abs",),
    "tol_gap_rel": ("eps_rel",),
    "tol_feas": ("eps_abs", "eps_rel"),
    "tol_infeas_abs": ("eps_infeasible",),
    "tol_infeas_rel": ("eps_infeasible",),
    "max_iter": ("max_iters",),
    "time_limit": ("time_limit",),
    "time_limit_secs": ("time_limit",),
    "acceleration_lookback": ("acceleration",),
}


_ITS_OWN = {"max_iters", "max_iter", "time_limit", "time_limit_secs", "acceleration_lookback"}


@dataclass(frozen=True)
class ForwardSolver:
    """Another solver as the forward pass.

    Args:
        black_box: the solver.
        given: its arguments, as the user wrote them.
        workers: threads that call it; None for as many as there are processors.
    """

    black_box: BlackBox
    given: Mapping[str, Any]
    workers: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments under the solver's own names."""
        return self.black_box.arguments(self.given)


@dataclass(frozen=True)
class Options:
    """What a call should reach, may spend, and does when it falls short.

    Args:
        forward: tolerances and limits of the forward pass.
        adjoint: tolerance and limit of the backward pass.
        backward: the adjoint method, or how to unroll.
        on_unconverged: what to do where a solution or a gradient misses its tolerance.
        solver: of the forward pass; None is cvxfold's own method.
        on_unsolvable: what to do with instances that have no solution or whose parameters are not valid.
        on_degenerate: what to do where there is no unique derivative; None: as ``on_unconverged``.
        proximal: weight of the proximal term that regularizes the gradient.
        rescue: whether another solver takes over where our own method does not arrive.
    """

    forward: ForwardSettings
    adjoint: AdjointSettings
    backward: AdjointMethod | Unrolled
    on_unconverged: str
    solver: ForwardSolver | None = None
    on_unsolvable: str = "raise"
    on_degenerate: str | None = None
    proximal: float = 0.0
    rescue: bool = True

    @classmethod
    def create(
        cls,
        *,
        backward: BackwardMethod,
        refine: bool,
        tol: float,
        max_iters: int | None,
        backward_tol: float,
        backward_max_iters: int | None,
        on_unconverged: str,
        verbose: bool,
        solver: str | None = None,
        penalty: float | None = None,
        relaxation: float = RELAXATION,
        on_unsolvable: str = "raise",
        on_degenerate: str | None = None,
        proximal: float = 0.0,
        rescue: bool = True,
        time_limit: float | None = None,
        acceleration: int = 8,
    ) -> "Options":
        """Check a layer's keyword arguments.

        Raises:
            ValueError: an unknown name or a number out of range; the message lists what is allowed.
        """
        method = _method(backward)
        if isinstance(method, Unrolled):
            if backward_max_iters is not None:
                raise ValueError("backward_max_iters: expected None: Unrolled(iterations=…) sets them")
            if solver is not None and method.start == "cold":
                raise ValueError(f"solver: expected None for an unrolled cold start, got {solver!r}")
        _require_choice("on_unconverged", on_unconverged, OnUnconverged)
        _require_choice("on_unsolvable", on_unsolvable, OnUnsolvable)
        if on_degenerate is not None:
            _require_choice("on_degenerate", on_degenerate, OnUnconverged)
        if proximal or isinstance(proximal, bool):
            require_positive("proximal", proximal)
            if isinstance(method, Unrolled):
                raise ValueError("proximal: expected 0 where the gradient is unrolled, not folded")
        if time_limit is not None:
            require_positive("time_limit", time_limit)
        for name, value in (("tol", tol), ("backward_tol", backward_tol)):
            require_positive(name, value)
        for name, limit in (("max_iters", max_iters), ("backward_max_iters", backward_max_iters)):
            if limit is not None:
                require_count(name, limit)
        if penalty is not None:
            require_positive("penalty", penalty)
        for name, flag in (("refine", refine), ("rescue", rescue)):
            if not isinstance(flag, bool):
                raise ValueError(f"{name}: expected True or False, got {flag!r}")
        require_positive("relaxation", relaxation)
        require_count("acceleration", acceleration, 0)
        if relaxation >= 2:
            raise ValueError(f"relaxation: expected a number between 0 and 2, got {relaxation!r}")
        forward = ForwardSettings(
            eps_abs=float(tol),
            eps_rel=float(tol),
            refine=refine,
            verbose=bool(verbose),
            penalty=None if penalty is None else float(penalty),
            relaxation=float(relaxation),
            time_limit=None if time_limit is None else float(time_limit),
            acceleration=acceleration,
        )
        if max_iters is not None:
            forward = replace(forward, max_iters=int(max_iters))
        adjoint = AdjointSettings(float(backward_tol), backward_max_iters)
        other = None if solver is None else ForwardSolver(named(solver), {"verbose": bool(verbose)})
        return cls(
            forward, adjoint, method, on_unconverged, other, on_unsolvable, on_degenerate,
            float(proximal), rescue,
        )  # fmt: skip

    def updated(self, solver_args: Mapping[str, Any] | None) -> "Options":
        """These options with upstream's ``solver_args`` on top.

        ``solve_method`` names the solver of the forward pass, as it does upstream.

        Raises:
            ValueError: a key that neither cvxfold nor the solver knows, or a value out of range.
        """
        if not solver_args:
            return self
        rest = dict(solver_args)
        solver = self.solver
        if (method := rest.pop("solve_method", None)) is not None:
            solver = ForwardSolver(_by_method(method), {"verbose": self.forward.verbose})
        ignored = rest.keys() & (_MEANINGLESS if solver else _MEANINGLESS | _OF_OTHER_SOLVERS)
        rest = {key: value for key, value in rest.items() if key not in ignored}
        if solver is not None:
            workers = rest.pop("n_jobs_forward", solver.workers or -1)
            workers = None if workers == -1 else workers
            if workers is not None:
                require_count("n_jobs_forward", workers)
            solver = replace(solver, given={**solver.given, **rest}, workers=workers)
            _ = solver.arguments  # a key that the solver does not know is an error now, not in a call
            # Its tolerances say what counts as solved; its iterations are not ours.
            rest = {key: rest[key] for key in rest.keys() & _FORWARD.keys() - _ITS_OWN}
        forward = _changed(self.forward, rest)
        if ignored:
            warnings.warn(
                f"solver_args: {', '.join(sorted(ignored))}: no meaning for cvxfold's solver, ignored",
                UserWarning,
                stacklevel=3,
            )
        return replace(self, forward=forward, solver=solver)


def _method(given: Any) -> AdjointMethod | Unrolled:
    """A method by its name, or as it was made."""
    if isinstance(given, type):
        raise ValueError(f"backward: expected a method, got the class itself; give {given.__name__}()")
    if isinstance(given, Unrolled) or (hasattr(given, "solve") and hasattr(given, "exact")):
        return given
    if given == "unrolled":
        return Unrolled()
    if isinstance(given, str) and given in METHODS:
        return METHODS[given]
    raise ValueError(
        f"backward: expected one of {sorted({*METHODS, 'unrolled'})} or a method of cvxfold.fold, "
        f"got {given!r}"
    )


def _changed(settings: ForwardSettings, given: Mapping[str, Any]) -> ForwardSettings:
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _FORWARD:
            raise ValueError(
                f"solver_args: unknown key {key!r}; known are {sorted({*_FORWARD, 'solve_method'})}, and "
                f"accepted without effect {sorted(_MEANINGLESS | _OF_OTHER_SOLVERS)}"
            )
        if _FORWARD[key] == ("max_iters",):
            require_count(f"solver_args[{key!r}]", value)
        elif _FORWARD[key] == ("acceleration",):
            require_count(f"solver_args[{key!r}]", value, 0)
        elif key != "verbose":
            require_positive(f"solver_args[{key!r}]", value)
        changes |= dict.fromkeys(_FORWARD[key], value)
    return replace(settings, **changes)


def _by_method(method: Any) -> BlackBox:
    try:
        return named(method)
    except ValueError as error:
        raise ValueError(f"solver_args['solve_method']: {error}") from None


def _require_choice(name: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name}: expected one of {list(get_args(choices))}, got {value!r}")
