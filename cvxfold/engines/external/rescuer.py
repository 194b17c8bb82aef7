"""The solver that takes over what an engine's own methods do not reach: Clarabel, where it is installed."""

from functools import cache

from cvxfold.deadline import Deadline
from cvxfold.engines.external.batch import ExternalSolver, available, named
from cvxfold.engines.outcome import Start
from cvxfold.problem.program import Program

_NAME = "CLARABEL"
_ARGUMENTS = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}


def why_no_rescue() -> str | None:
    """One line that says why nothing can be rescued here; None where that is not so."""
    found = _rescuer()
    return found if isinstance(found, str) else None


def rescued(program: Program, deadline: Deadline) -> Start:
    """Where the solver comes to, for each instance of a batch; one that it fails at is unconverged.

    Raises:
        RuntimeError: there is none, as :func:`why_no_rescue` says.
    """
    solver = _rescuer()
    if isinstance(solver, str):
        raise RuntimeError(solver)
    return solver.solve_batch(program, _ARGUMENTS, None, deadline)


@cache
def _rescuer() -> ExternalSolver | str:
    """The solver, or why there is none."""
    reason = "is not installed"
    try:
        if _NAME in available():
            solver = named(_NAME)
            solver.arguments(_ARGUMENTS)
            return solver.sparing()
    except Exception as error:  # whatever an old or a broken package does at its import
        reason = f"cannot be used ({error})"
    return f"nothing is rescued by interior points, as Clarabel {reason}: pip install -U clarabel"
