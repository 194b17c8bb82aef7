"""What cvxpylayers' ``solver_args`` mean here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cvxfold.checks import require_count, require_positive
from cvxfold.engines.choose import ExternalSolver, external_solver
from cvxfold.engines.settings import ForwardSettings
from cvxfold.layer.options import ForwardSolver, Options
from cvxfold.layer.said import Said

_MEANINGLESS = frozenset({
    "mode", "derivative_kwargs", "n_jobs_backward", "warm_start", "warm_starts", "raise_on_error",
    "lsqr_args", "gpu",
})  # fmt: skip
_OF_OTHER_SOLVERS = frozenset({
    "n_jobs_forward", "acceleration_interval", "use_indirect", "scale", "adaptive_scale", "alpha", "rho_x",
    "normalize",
})  # fmt: skip
_OTHER_GRADIENTS = "lpgd"  # how those of diffcp's modes begin that are no derivatives
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


def updated(options: Options, solver_args: Mapping[str, Any] | None, said: Said) -> Options:
    """Options with cvxpylayers' ``solver_args`` on top.

    ``solve_method`` names the solver of the forward pass, as it does there. What means nothing here is
    warned of once.

    Raises:
        ValueError: a key that neither cvxfold nor the solver knows, or a value out of range.
    """
    if not solver_args:
        return options
    rest = dict(solver_args)
    solver = options.solver
    if (method := rest.pop("solve_method", None)) is not None:
        solver = ForwardSolver(_by_method(method), {"verbose": options.forward.verbose})
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
    forward = _changed(options.forward, rest)
    if str(solver_args.get("mode", "")).startswith(_OTHER_GRADIENTS):
        ignored = ignored - {"mode", "derivative_kwargs"}
        said.once(
            "solver_args: lpgd",
            f"solver_args: mode={solver_args['mode']!r}: there is no Lagrangian proximal gradient descent "
            "here; the gradient is the derivative itself, which differs from what this mode gives",
        )
    if ignored:
        names = ", ".join(sorted(ignored))
        text = f"solver_args: {names}: no meaning for cvxfold's solver, ignored"
        if ignored & {"warm_start", "warm_starts"}:
            text += "; to begin at the last solutions, call the layer with warm_start=True"
        said.once(f"solver_args: {names}", text)
    return replace(options, forward=forward, solver=solver)


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


def _by_method(method: Any) -> ExternalSolver:
    try:
        return external_solver(method)
    except ValueError as error:
        raise ValueError(f"solver_args['solve_method']: {error}") from None
