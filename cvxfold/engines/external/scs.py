"""SCS, whose form is ours."""

from typing import Any

import scipy.sparse as sp
import scs

from cvxfold.engines.external.instance import Instance, Outcome
from cvxfold.engines.outcome import Status

NAMES = frozenset({
    "acceleration_interval", "acceleration_lookback", "adaptive_scale", "alpha", "eps_abs", "eps_infeas",
    "eps_rel", "log_csv_filename", "max_iters", "normalize", "rho_x", "scale", "time_limit_secs",
    "use_indirect", "verbose", "write_data_filename",
})  # fmt: skip
TIME_LIMIT = "time_limit_secs"
ALIASES = {
    "eps": ("eps_abs", "eps_rel"),
    "tol_gap_abs": ("eps_abs",),
    "tol_gap_rel": ("eps_rel",),
    "tol_feas": ("eps_abs", "eps_rel"),
    "max_iter": ("max_iters",),
}

_STATUS = {1: Status.SOLVED, -1: Status.UNBOUNDED, -2: Status.INFEASIBLE}


def solve(instance: Instance, arguments: dict[str, Any]) -> Outcome:
    """Solve by SCS."""
    cones = instance.cones
    dims = {
        "z": cones.zero,
        "l": cones.nonnegative,
        "q": list(cones.second_order),
        "s": list(cones.semidefinite),
        "ep": cones.exponential,
        "p": list(cones.power),
    }
    P = sp.csc_matrix(sp.triu(instance.P, format="csc"))
    data = {"P": P, "A": sp.csc_matrix(instance.A), "b": instance.b, "c": instance.q}
    found = scs.SCS(data, dims, **({"verbose": False} | arguments)).solve()
    info = found["info"]
    status = _STATUS.get(info["status_val"], Status.UNCONVERGED)
    return Outcome(found["x"], found["s"], found["y"], status, int(info["iter"]))
