"""Clarabel: the same form, but matrices stand as upper triangles, column by column."""

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxfold.cones.dims import ConeDims
from cvxfold.engines.external.instance import Instance, Outcome
from cvxfold.engines.outcome import Status

clarabel: Any = __import__("clarabel")  # its types are compiled and unknown to type checkers

NAMES = frozenset(name for name in dir(clarabel.DefaultSettings()) if not name.startswith("_")) - {"default"}
TIME_LIMIT = "time_limit"
# An old one knows no threads.
_QUIET = {name: value for name, value in (("verbose", False), ("max_threads", 1)) if name in NAMES}
ALIASES = {
    "eps": ("tol_gap_abs", "tol_gap_rel", "tol_feas"),
    "eps_abs": ("tol_gap_abs", "tol_feas"),
    "eps_rel": ("tol_gap_rel",),
    "eps_infeas": ("tol_infeas_abs", "tol_infeas_rel"),
    "max_iters": ("max_iter",),
}

_STATUS = {
    "Solved": Status.SOLVED,
    "PrimalInfeasible": Status.INFEASIBLE,
    "DualInfeasible": Status.UNBOUNDED,
}


def solve(instance: Instance, arguments: dict[str, Any]) -> Outcome:
    """Solve by Clarabel, on one thread unless asked otherwise: the batch is what runs in parallel."""
    settings = clarabel.DefaultSettings()
    for name, value in (_QUIET | arguments).items():
        setattr(settings, name, value)
    order = _row_order(instance.cones)
    solver = clarabel.DefaultSolver(
        sp.csc_matrix(sp.triu(instance.P, format="csc")),
        instance.q,
        sp.csc_matrix(instance.A[order]),
        instance.b[order],
        _cones(instance.cones),
        settings,
    )
    found = solver.solve()
    s, y = np.empty(len(order)), np.empty(len(order))
    s[order], y[order] = found.s, found.z
    status = _STATUS.get(str(found.status), Status.UNCONVERGED)
    return Outcome(np.array(found.x), s, y, status, int(found.iterations))


def _cones(dims: ConeDims) -> list[Any]:
    cones = [clarabel.ZeroConeT(dims.zero)] if dims.zero else []
    cones += [clarabel.NonnegativeConeT(dims.nonnegative)] if dims.nonnegative else []
    cones += [clarabel.SecondOrderConeT(size) for size in dims.second_order]
    cones += [clarabel.PSDTriangleConeT(order) for order in dims.semidefinite]
    cones += [clarabel.ExponentialConeT()] * dims.exponential
    return cones + [clarabel.PowerConeT(alpha) for alpha in dims.power]


@lru_cache(maxsize=64)
def _row_order(dims: ConeDims) -> np.ndarray:
    """For each of Clarabel's rows the row of ours."""
    start = dims.separable + sum(dims.second_order)
    parts = [np.arange(start)]
    for order in dims.semidefinite:
        columns, rows = np.triu_indices(order)  # the lower triangle, column by column
        parts.append(start + np.lexsort((columns, rows)))  # … row by row: the upper one, column by column
        start += len(rows)
    return np.concatenate([*parts, np.arange(start, dims.rows)])
