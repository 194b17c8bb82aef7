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
        self._long = np.flatnonzero(~short)
        chosen = short[rows]
        order = np.argsort(rows[chosen], kind="stable")
        self._pairs = _pairs(rows[chosen][order], columns[chosen][order])
        self._placed: dict[torch.device, tuple[Tensor, ...]] = {}

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
        long, row, first, second, flat = self._on(A.device)
        total = A.new_zeros(weight.shape[0], self._n * self._n)
        if len(row):
            entries = A.flatten(1)
            products = entries.index_select(1, first) * entries.index_select(1, second)
            total.index_add_(1, flat, weight.index_select(1, row) * products)
        total = torch.unflatten(total, 1, (self._n, self._n))
        if len(long):
            everything = len(long) == weight.shape[1]
            rows = A[:, self._start : self._stop] if everything else A[:, self._start + long]
            scaled = (weight if everything else weight[:, long]).sqrt().unsqueeze(-1) * rows
            total = total + scaled.mT @ scaled
        return total

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._placed:
            row, first, second = self._pairs
            flat = first * self._n + second
            offset = (self._start + row) * self._n
            index = (self._long, row, offset + first, offset + second, flat)
            self._placed[device] = tuple(torch.as_tensor(part, device=device) for part in index)
        return self._placed[device]


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
