"""AᵀWA over the inequality rows, for the weights W = f(D) of a Newton matrix.

A row with k stored entries adds k² numbers to an n × n matrix. Rows of few entries (bounds, dynamics) are
added entry by entry, the others by a matrix product.
"""

import numpy as np
import torch
from torch import Tensor

from cvxfold.canonical import IndexArray
from cvxfold.cones import ConeDims, ProductDerivative, SpectralFunction
from cvxfold.cones.orthant import DiagonalDerivative
from cvxfold.linear.index import Index

_SHORT = 0.2  # rows with fewer stored entries than this fraction of n go entry by entry


class InequalityGram:
    """The weighted Gram matrix for one sparsity pattern of A.

    Args:
        places: rows and columns of A's stored entries, ``(2, nnz)``.
        dims: the cones of its rows.
        n: its columns.
    """

    def __init__(self, places: IndexArray, dims: ConeDims, n: int) -> None:
        self._n = n
        self._start, self._stop = dims.zero, dims.zero + dims.nonnegative
        inside = (places[0] >= self._start) & (places[0] < self._stop)
        rows, columns = places[0][inside] - self._start, places[1][inside]
        count = np.bincount(rows, minlength=dims.nonnegative)
        short = count < _SHORT * n
        self._long = Index(self._start + np.flatnonzero(~short))
        chosen = short[rows]
        order = np.argsort(rows[chosen], kind="stable")
        row, first, second = _pairs(rows[chosen][order], columns[chosen][order])
        offset = (self._start + row) * n
        self._row, self._flat = Index(row), Index(first * n + second)
        self._first, self._second = Index(offset + first), Index(offset + second)

    def __call__(self, A: Tensor, D: ProductDerivative, f: SpectralFunction) -> Tensor:
        """AᵀWA over the nonnegative and the non-separable rows, ``(1|B, n, n)``.

        Args:
            A: ``(1|B, m, n)``.
            D: the derivative of the projection, all rows.
            f: W = f(D), nonnegative.
        """
        total = A.new_zeros(1, self._n, self._n)
        for rows, part in D.parts:
            if rows.stop <= self._start:
                continue
            if isinstance(part, DiagonalDerivative):
                total = total + self._separable(A, f(part.d))
            else:
                dense = part.apply(lambda d: f(d).sqrt(), A[:, rows])
                total = total + dense.mT @ dense
        return total

    def _separable(self, A: Tensor, weight: Tensor) -> Tensor:
        """The same over the nonnegative rows, for their weights ``(B, rows)``."""
        device = A.device
        total = A.new_zeros(weight.shape[0], self._n * self._n)
        if len(self._row):
            entries = A.flatten(1)
            first, second = (entries.index_select(1, i.on(device)) for i in (self._first, self._second))
            weights = weight.index_select(1, self._row.on(device))
            total.index_add_(1, self._flat.on(device), weights * first * second)
        total = torch.unflatten(total, 1, (self._n, self._n))
        if len(self._long) == weight.shape[1]:
            rows = A[:, self._start : self._stop]
        elif len(self._long):
            long = self._long.on(device)
            rows, weight = A[:, long], weight[:, long - self._start]
        else:
            return total
        scaled = weight.sqrt().unsqueeze(-1) * rows
        return total + scaled.mT @ scaled


def _pairs(rows: IndexArray, columns: IndexArray) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Row and both columns of every pair of entries in one row; entries are given row by row."""
    count = np.bincount(rows) if len(rows) else np.zeros(0, dtype=np.int64)
    start = np.concatenate([[0], np.cumsum(count)])[:-1]
    repeats = count[rows] if len(rows) else np.zeros(0, dtype=np.int64)
    first = np.repeat(np.arange(len(rows)), repeats)
    within = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    row = rows[first]
    second = start[row] + within
    return row, columns[first], columns[second.astype(np.int64)]
