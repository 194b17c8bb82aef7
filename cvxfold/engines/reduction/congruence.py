"""P of a reduced program: what is added where the eliminated variables follow the others."""

import numpy as np
from torch import Tensor

from cvxfold.engines.linear.matrix import Matrix
from cvxfold.problem.index import Index, at
from cvxfold.problem.structure import IndexArray


class Congruence:
    """TᵀP_ee T + P_ke T + (P_ke T)ᵀ for x_e = T x_k.

    Entry by entry where these are no more than the result has entries, by products of dense matrices
    elsewhere. An atom's own variables are mostly single entries of T and P_ee, in programs of any size.

    Args:
        P_ke, P_ee, T: the places of the entries of each, ``(2, nnz)``, some perhaps more than once.
        shape: of T.
    """

    def __init__(self, P_ke: IndexArray, P_ee: IndexArray, T: IndexArray, shape: tuple[int, int]) -> None:
        e, k = shape
        by_row = _distinct(T, k)
        count = np.bincount(by_row[0], minlength=e)
        start = np.cumsum(count) - count
        outer, inner = _distinct(P_ke, e), _distinct(P_ee, e)
        terms = count[outer[1]].sum() + (count[inner[0]] * count[inner[1]]).sum()
        self.by_entries = bool(terms <= k * k)
        if not self.by_entries:
            return
        flat = by_row[0] * k + by_row[1]
        of, local = _repeated(count[outer[1]])
        right = start[outer[1][of]] + local
        self._outer = [Index(each) for each in (outer[0][of] * e + outer[1][of], flat[right])]
        self._to = Index(outer[0][of] * k + by_row[1][right])
        of, local = _repeated(count[inner[0]] * count[inner[1]])
        left, right = np.divmod(local, count[inner[1][of]])
        left, right = start[inner[0][of]] + left, start[inner[1][of]] + right
        self._inner = [Index(each) for each in (flat[left], inner[0][of] * e + inner[1][of], flat[right])]
        self._at = Index(by_row[1][left] * k + by_row[1][right])

    def __call__(self, P_ke: Matrix, P_ee: Matrix, T: Matrix) -> Tensor:
        """The sum, ``(1|B, k, k)``."""
        if not self.by_entries:
            cross = P_ke.values @ T.values
            return T.values.mT @ (P_ee.values @ T.values) + cross + cross.mT
        k = T.values.shape[2]
        inner = _products((T, P_ee, T), self._inner)
        total = inner.new_zeros(inner.shape[0], k * k).index_add_(1, self._at.on(inner.device), inner)
        total = total.unflatten(1, (k, k))
        if not len(self._to):
            return total
        outer = _products((P_ke, T), self._outer)
        cross = outer.new_zeros(outer.shape[0], k * k).index_add_(1, self._to.on(outer.device), outer)
        cross = cross.unflatten(1, (k, k))
        return total + cross + cross.mT


def _products(factors: tuple[Matrix, ...], places: list[Index]) -> Tensor:
    """The products of entries at flat places of each, ``(1|B, ·)``."""
    product = None
    for factor, place in zip(factors, places, strict=True):
        picked = at(factor.values.flatten(1), place.on(factor.values.device))
        product = picked if product is None else product * picked
    assert product is not None
    return product


def _distinct(places: IndexArray, width: int) -> IndexArray:
    """Places row by row, each once, ``(2, ·)``."""
    return np.stack(np.divmod(np.unique(places[0] * width + places[1]), max(width, 1)))


def _repeated(counts: IndexArray) -> tuple[IndexArray, IndexArray]:
    """Each position as often as its count says, and which time it is."""
    of = np.repeat(np.arange(len(counts)), counts)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
