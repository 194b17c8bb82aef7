"""Clarabel's cones and row order for the reference; projections as in ``cvxfold.studies.fuzz.cones``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cvxfold.studies.fuzz.cones import Array, triangle

clarabel: Any = __import__("clarabel")  # its types are compiled and unknown to pyright


def clarabel_cones(dims: Any) -> list[Any]:
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


def clarabel_order(dims: Any, m: int) -> Array:
    """Clarabel has the upper triangles of matrices, column by column: for each of its rows the row here."""
    order = np.arange(m)
    start = dims.zero + dims.nonneg + sum(dims.soc)
    for k in dims.psd:
        rows, columns = triangle(k)
        size = len(rows)
        order[start : start + size] = start + np.lexsort((columns, rows))
        start += size
    return order
