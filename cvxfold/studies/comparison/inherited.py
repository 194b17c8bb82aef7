"""What the methods under comparison take over from a layer: how it solves, but not how it differentiates."""

from collections.abc import Mapping
from typing import Any

from cvxfold.torch import CvxpyLayer

_LEFT_TO_METHODS = frozenset({
    "backward", "backward_max_iters", "on_unconverged", "on_degenerate", "solver", "verbose",
})  # fmt: skip
_ABSOLUTE = {"eps_abs", "tol_gap_abs"}
_TOLERANCES = {*_ABSOLUTE, "eps", "eps_rel", "tol_gap_rel", "tol_feas"}


def solve_options(layer: CvxpyLayer) -> dict[str, Any]:
    """Keyword arguments of a layer that solves as this one does.

    ``backward`` and its ``backward_max_iters`` are left to each method; what becomes of a missed tolerance is
    not taken over either, for a comparison shows it in its numbers.
    """
    options = layer.options
    forward, solver = options.forward, options.solver
    found = {name: value for name, value in options.given.items() if name not in _LEFT_TO_METHODS}
    found |= {  # what ``solver_args`` may have changed
        "tol": forward.eps_abs,
        "max_iters": forward.max_iters,
        "time_limit": forward.time_limit,
        "acceleration": forward.acceleration,
    }
    if solver is None:
        infeasible = forward.eps_infeasible
        arguments = {"eps_abs": forward.eps_abs, "eps_rel": forward.eps_rel, "eps_infeas": infeasible}
        return found | {"solver_args": arguments}
    given = {key: value for key, value in solver.given.items() if key != "verbose"}
    if _ABSOLUTE & given.keys():  # the solver's own tolerances set ours; ``tol`` is for what they do not set
        found["tol"] = forward.eps_rel
    arguments = {**given, "n_jobs_forward": solver.workers or -1}
    return found | {"solver": solver.external.name, "solver_args": arguments}


def merged(inherited: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of :func:`solve_options` with those that were given on top."""
    own = dict(given.get("solver_args") or {})
    dropped = set(own)
    if "tol" in given:  # it would count for nothing beside them
        dropped |= _TOLERANCES
    if "solver" in given or "solve_method" in own:  # they are the arguments of another one
        dropped |= inherited["solver_args"].keys()
    kept = {key: value for key, value in inherited["solver_args"].items() if key not in dropped}
    return {**inherited, **given, "solver_args": kept | own}
