"""Square systems, solved as accurately as they are stated."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.sparse as sp
import scipy.sparse.linalg as spl

from cvxfold.studies.fuzz.cones import Array

lapack: Any = sl.lapack

DENSE = 2_500  # rows up to which a system is taken as dense, and may be singular

Solve = Callable[[Array], Array]

_REFINEMENTS = 3
_TIKHONOV = 1e-7  # ε


def accurate_solve(M: sp.csc_array, rhs: Array) -> Array:
    """M z = rhs by LU with refinement in long double.

    Of a singular M the least solution in norm. Where M is too large to be dense, that is the limit of
    Tikhonov's with ε² → 0, taken for one small ε²: refinement goes the rest of the way.

    Args:
        M: ``(k, k)``. rhs: ``(k,)``.
    """
    once = _dense(M.toarray()) if len(rhs) <= DENSE else _sparse(M, len(rhs))
    wide = M.astype(np.longdouble)
    z = once(rhs)
    for _ in range(_REFINEMENTS):
        z = z + once((rhs - wide @ z.astype(np.longdouble)).astype(float))
    return z


def _dense(M: Array) -> Solve:
    factor, pivots, info = lapack.dgetrf(M)
    rcond = lapack.dgecon(factor, np.abs(M).sum(axis=0).max())[0] if info == 0 else 0.0
    if rcond > 1e-13:
        return lambda r: np.asarray(sl.lu_solve((factor, pivots), r))
    return lambda r: np.asarray(sl.lstsq(M, r, cond=1e-11, lapack_driver="gelsy")[0])  # type: ignore[index]


def _sparse(M: sp.csc_array, size: int) -> Solve:
    try:
        return spl.splu(M).solve
    except RuntimeError:  # "Factor is exactly singular"
        pass
    one = sp.eye_array(size)
    tikhonov = spl.splu(sp.csc_array(sp.block_array([[one, M], [M.T, -(_TIKHONOV**2) * one]])))
    return lambda r: tikhonov.solve(np.append(r, np.zeros(size)))[size:]
