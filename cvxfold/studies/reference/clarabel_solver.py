"""Clarabel, called with the data of a cone program in SCS's order."""

from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxfold.studies.fuzz.cones import Array, triangle

clarabel: Any = __import__("clarabel")  # its types are compiled and unknown to pyright


def solve_by_clarabel(P: sp.csc_array, q: Array, A: sp.csc_array, b: Array, dims: Any) -> tuple[Array, Array]:
    """(x, u = s − y) at the tightest tolerances that it may reach.

    Args:
        P, q, A, b: of min ½xᵀPx + qᵀx, A x + s = b. dims: cvxpy's, of the cones of s.

    Raises:
        ArithmeticError: it fails.
    """
    order = _order(dims, len(b))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_iter = 500
    settings.presolve_enable = False
    settings.max_threads = 1
    for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
        setattr(settings, name, 1e-13)
    upper, rows = sp.csc_matrix(sp.triu(P)), sp.csc_matrix(A.tocsr()[order])
    solution = clarabel.DefaultSolver(upper, q, rows, b[order], _cones(dims), settings).solve()
    accepted = ("Solved", "AlmostSolved", "InsufficientProgress")
    if str(solution.status) not in accepted:
        raise ArithmeticError(f"Clarabel: {solution.status}")
    u = np.empty(len(b))
    u[order] = np.array(solution.s) - np.array(solution.z)
    return np.array(solution.x), u


def _cones(dims: Any) -> list[Any]:
    """Clarabel's objects for the cones of a problem, in SCS's order, from cvxpy's dimensions."""
    kinds: list[Any] = []
    if dims.zero:
        kinds.append(partial(clarabel.ZeroConeT, dims.zero))
    if dims.nonneg:
        kinds.append(partial(clarabel.NonnegativeConeT, dims.nonneg))
    kinds += [partial(clarabel.SecondOrderConeT, size) for size in dims.soc]
    kinds += [partial(clarabel.PSDTriangleConeT, order) for order in dims.psd]
    kinds += [clarabel.ExponentialConeT] * dims.exp
    kinds += [partial(clarabel.PowerConeT, alpha) for alpha in dims.p3d]
    return [kind() for kind in kinds]


def _order(dims: Any, m: int) -> Array:
    """Clarabel has the upper triangles of matrices, column by column: for each of its rows the row here."""
    order = np.arange(m)
    start = dims.zero + dims.nonneg + sum(dims.soc)
    for k in dims.psd:
        rows, columns = triangle(k)
        size = len(rows)
        order[start : start + size] = start + np.lexsort((columns, rows))
        start += size
    return order
