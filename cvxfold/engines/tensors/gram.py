"""AᵀWA over the inequality rows, for the weights W = f(D) of a Newton matrix.

W is block diagonal with blocks of one row (nonnegative cone), three rows (exponential and power cones) or
more. A block whose rows have k stored entries adds k² numbers to an n × n matrix. Blocks of few entries
(bounds, dynamics, an atom's own variables) are added entry by entry, the others by a matrix product.
"""

import numpy as np
import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.cones import ConeDims, ProductDerivative, SpectralFunction
from cvxfold.cones.frame import FrameDerivative
from cvxfold.cones.orthant import DiagonalDerivative
from cvxfold.problem.index import Index, at
from cvxfold.problem.structure import IndexArray

_SHORT = 0.2  # blocks with fewer stored entries than this fraction of n go entry by entry


class InequalityGram:
    """The weighted Gram matrix for one sparsity pattern of A.

    Args:
        places: rows and columns of A's stored entries, ``(2, nnz)``.
        dims: the cones of its rows.
        n: its columns.
    """

    def __init__(self, places: IndexArray, dims: ConeDims, n: int) -> None:
        self._n = n
        self._start, self._stop = dims.zero, dims.separable
        row_blocks = _Blocks(places, self._start, dims.nonnegative, 1)
        short = row_blocks.entries() < _SHORT * n
        self._long = Index(self._start + np.flatnonzero(~short))
        self._rows = row_blocks.pairs(short, n)
        # By the first row of a run of three-row blocks, where all of them are short.
        self._triples: dict[int, _Pairs] = {}
        start = dims.rows - 3 * (dims.exponential + len(dims.power))
        for count in (dims.exponential, len(dims.power)):
            blocks = _Blocks(places, start, count, 3)
            if count and (blocks.entries() < _SHORT * n).all():
                self._triples[start] = blocks.pairs(np.ones(count, dtype=bool), n)
            start += 3 * count

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
            elif isinstance(part, FrameDerivative) and rows.start in self._triples:
                weights = (part.frame * f(part.eigenvalues).unsqueeze(-2)) @ part.frame.mT
                total = total + self._triples[rows.start].gram(A, weights.flatten(1))
            else:
                dense = part.apply(lambda d: f(d).sqrt(), A[:, rows])
                total = total + dense.mT @ dense
        return total

    def _separable(self, A: Tensor, weight: Tensor) -> Tensor:
        """The same over the nonnegative rows, for their weights ``(B, rows)``."""
        total = self._rows.gram(A, weight)
        if len(self._long) == weight.shape[1]:
            rows = A[:, self._start : self._stop]
        elif len(self._long):
            long = self._long.on(A.device)
            rows, weight = A[:, long], weight[:, long - self._start]
        else:
            return total
        if len(weight) == 1 and is_near(weight):
            weighed = weight[0] != 0
            rows, weight = rows[:, weighed], weight[:, weighed]
        scaled = weight.sqrt().unsqueeze(-1) * rows
        return total + scaled.mT @ scaled


class _Pairs:
    """The pairs of entries of A that share a block of W.

    Args:
        weight: the place of each pair's weight among the entries of W's blocks.
        first, second: the places of both entries in A. target: where their product goes in the Gram matrix.
        n: columns of A.
    """

    def __init__(
        self, weight: IndexArray, first: IndexArray, second: IndexArray, target: IndexArray, n: int
    ) -> None:
        self._n = n
        self._weight, self._target = Index(weight), Index(target)
        self._first, self._second = Index(first), Index(second)

    def gram(self, A: Tensor, weights: Tensor) -> Tensor:
        """Σ A_e w A_e' over the pairs, ``(B, n, n)``, for ``weights`` ``(B, ·)``."""
        total = A.new_zeros(weights.shape[0], self._n * self._n)
        if len(self._weight):
            device, entries = A.device, A.flatten(1)
            first, second = (at(entries, i.on(device)) for i in (self._first, self._second))
            products = at(weights, self._weight.on(device)) * first * second
            total.index_add_(1, self._target.on(device), products)
        return torch.unflatten(total, 1, (self._n, self._n))


class _Blocks:
    """The stored entries of A in ``count`` consecutive blocks of ``size`` rows each, from row ``start``."""

    def __init__(self, places: IndexArray, start: int, count: int, size: int) -> None:
        inside = (places[0] >= start) & (places[0] < start + count * size)
        self._places = places[:, inside]
        self._block, self._local = np.divmod(self._places[0] - start, size)
        self._count, self._size = count, size

    def entries(self) -> IndexArray:
        """Stored entries of each block, ``(count,)``."""
        return np.bincount(self._block, minlength=self._count)

    def pairs(self, chosen: np.ndarray, n: int) -> _Pairs:
        """All pairs of entries within each of the ``chosen`` blocks ``(count,)``."""
        order = np.argsort(self._block, kind="stable")
        order = order[chosen[self._block[order]]]
        block, local = self._block[order], self._local[order]
        rows, columns = self._places[:, order]
        first, second = _within_groups(block)
        weight = (block[first] * self._size + local[first]) * self._size + local[second]
        place = rows * n + columns
        return _Pairs(weight, place[first], place[second], columns[first] * n + columns[second], n)


def _within_groups(group: IndexArray) -> tuple[IndexArray, IndexArray]:
    """Every ordered pair of positions with one value, for a sorted array."""
    _, start, count = np.unique(group, return_index=True, return_counts=True)
    repeats = np.repeat(count, count)
    first = np.repeat(np.arange(len(group)), repeats)
    within = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return first, np.repeat(np.repeat(start, count), repeats) + within
