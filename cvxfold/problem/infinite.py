"""Infinite constants: bounds that are none are taken out of the program, and nothing else may be infinite."""

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxfold.problem.structure import Structure


def without_bounds_at_infinity(
    structure: Structure, A: sp.csr_array, b: sp.csr_array
) -> tuple[Structure, sp.csr_array, sp.csr_array]:
    """Empty the rows aᵀx + s = ∞, s ≥ 0, to 0ᵀx + s = 1: they hold anywhere, and their multipliers are zero.

    Args:
        structure: of the program.
        A, b: maps from the parameter vector, with a trailing 1, to its stored entries.

    Returns:
        The structure without these rows' entries of A, and the maps to A and b.
    """
    rows, cones = structure.b_entries, structure.cones
    offset = np.asarray(b[:, [-1]].todense()).ravel()
    free = (rows >= cones.zero) & (rows < cones.separable) & np.isposinf(offset)
    if not free.any():
        return structure, A, b
    held = ~np.isin(structure.A_entries[0], rows[free])
    bounded: Any = b.tolil()
    bounded[free] = 0.0
    bounded[free, -1] = 1.0
    structure = replace(
        structure, A_entries=structure.A_entries[:, held], A_constants=structure.A_constants[held]
    )
    return structure, sp.csr_array(A[held]), sp.csr_array(bounded.tocsr())


def require_finite(*maps: sp.csr_array) -> None:
    """Check that no datum has a constant or a coefficient that is not finite.

    Raises:
        ValueError: one has.
    """
    if not all(np.isfinite(data.data).all() for data in maps):
        raise ValueError(
            "problem: expected finite constants, or +inf as an upper and -inf as a lower bound, which bound "
            "nothing; got NaN or infinity elsewhere"
        )
