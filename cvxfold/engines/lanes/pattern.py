"""The pattern of a structure as the kernels have it, and the order of elimination.

P is stored by its upper triangle. The rows of a curved cone share one pattern, since the frame of its
derivative mixes them. K = [P Aᵀ; A −G] is eliminated in an order of minimum degree.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from cvxfold.cones.dims import ConeDims
from cvxfold.problem.structure import IndexArray, Structure


@dataclass(frozen=True)
class Pattern:
    """Where the kernels' entries are, and how they are made of the stored ones.

    Args:
        n, m: variables and rows. cones: sizes of the cones.
        P: rows and columns of the upper triangle's entries, ``(2, nnz P')``.
        A_start, A_column: A by rows, ``(m + 1,)`` and ``(nnz A',)``.
        P_from_stored: these entries from the stored ones, ``(nnz P', nnz P)``.
        A_from_stored: likewise, ``(nnz A', nnz A)``.
        b_from_stored: b ``(m,)`` from its stored entries.
    """

    n: int
    m: int
    cones: ConeDims
    P: IndexArray
    A_start: IndexArray
    A_column: IndexArray
    P_from_stored: Any
    A_from_stored: Any
    b_from_stored: Any

    @classmethod
    def of(cls, structure: Structure) -> "Pattern":
        """Of a structure."""
        n, m = structure.n, structure.m
        P, P_from_stored = _upper_triangle(structure.P_entries, n)
        A_row, A_column, A_from_stored = _with_blocks(structure.A_entries, structure.cones, n)
        A_start = np.searchsorted(A_row, np.arange(m + 1))
        count = len(structure.b_entries)
        b_from_stored = sp.csr_array(
            (np.ones(count), (structure.b_entries, np.arange(count))), shape=(m, count)
        )
        return cls(n, m, structure.cones, P, A_start, A_column, P_from_stored, A_from_stored, b_from_stored)

    @property
    def A_row(self) -> IndexArray:
        """The row of each entry of A, ``(nnz A',)``."""
        return np.repeat(np.arange(self.m), np.diff(self.A_start))

    def order(self) -> IndexArray:
        """Which of the n variables and m rows is eliminated first, second, …; ``(n + m,)``."""
        size = self.n + self.m
        rows = self.n + self.A_row
        above = np.concatenate([self.P[0], self.A_column]), np.concatenate([self.P[1], rows])
        off = above[0] != above[1]
        i, j = above[0][off], above[1][off]
        if not len(i):
            return np.arange(size)
        # Any matrix of this pattern that is eliminated without pivoting serves to find the order.
        places = np.concatenate([i, j, np.arange(size)]), np.concatenate([j, i, np.arange(size)])
        values = np.concatenate([np.full(2 * len(i), 1.0), np.full(size, 4.0 * size)])
        matrix = sp.csc_array((values, places), shape=(size, size))
        options = {"SymmetricMode": True}
        factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        return np.argsort(factor.perm_c)


def _upper_triangle(entries: IndexArray, n: int) -> tuple[IndexArray, sp.csr_array]:
    """An entry off the diagonal stands for its half on either side."""
    low, high = np.minimum(*entries), np.maximum(*entries)
    keys, where = np.unique(low * n + high, return_inverse=True)
    weights = np.where(low == high, 1.0, 0.5)
    made = sp.csr_array((weights, (where, np.arange(len(low)))), shape=(len(keys), len(low)))
    return np.stack([keys // n, keys % n]) if len(keys) else np.empty((2, 0), np.int64), made


def _with_blocks(entries: IndexArray, cones: ConeDims, n: int) -> tuple[IndexArray, IndexArray, sp.csr_array]:
    """Rows and columns of A's entries by rows, with the union of their patterns for the rows of a cone."""
    rows, columns = entries
    keys = rows * n + columns
    wanted, start = [keys[rows < cones.separable]], cones.separable
    order = np.argsort(rows, kind="stable")
    bounds = np.searchsorted(rows[order], np.cumsum([start, *cones.blocks]))
    for size, first, last in zip(cones.blocks, bounds[:-1], bounds[1:], strict=True):
        used = np.unique(columns[order[first:last]])
        wanted.append((np.arange(start, start + size)[:, None] * n + used).ravel())
        start += size
    union = np.unique(np.concatenate(wanted))
    count = len(keys)
    made = sp.csr_array(
        (np.ones(count), (np.searchsorted(union, keys), np.arange(count))), shape=(len(union), count)
    )
    return union // max(n, 1), union % max(n, 1), made
