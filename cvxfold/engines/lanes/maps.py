"""How data come from what a call is given, and what it returns: affine maps by rows.

Two layouts serve: the stored entries of P, q, A and b in, x, y and s out, as the protocol of the engines has it;
and a layer's parameters in, its variables out, in one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxfold.engines.lanes.binding import Layout, Map, address
from cvxfold.engines.lanes.pattern import Pattern


@dataclass(frozen=True)
class Output:
    """An output: where each of its entries, row by row, stands in (x, y, s), and a factor on it."""

    index: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class DataMap:
    """One of P, q, A and b: entries = matrix @ given + constant, and which of them parameters reach."""

    matrix: sp.csr_array
    constant: np.ndarray
    moving: np.ndarray

    @classmethod
    def of(
        cls, matrix: Any, constant: np.ndarray | None = None, moving: np.ndarray | None = None
    ) -> "DataMap":
        """Entries without a constant or that move where the map has entries, unless told otherwise."""
        rows = sp.csr_array(matrix)
        rows.sum_duplicates()
        zero = np.zeros(rows.shape[0]) if constant is None else constant
        return cls(rows, zero, np.diff(rows.indptr) > 0 if moving is None else moving)


@dataclass(frozen=True)
class Maps:
    """A layout and the arrays that it points to.

    Args:
        sizes: entries of each parameter.
        outputs: of the call.
        P, q, A, b: the data from the entries of all parameters together.
    """

    sizes: Sequence[int]
    outputs: Sequence[Output]
    P: DataMap
    q: DataMap
    A: DataMap
    b: DataMap
    _kept: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of_entries(cls, pattern: Pattern, moving: Sequence[np.ndarray]) -> "Maps":
        """From the stored entries, of which parameters reach those at ``moving``, to x, y and s."""
        n, m = pattern.n, pattern.m
        sizes = [pattern.from_P.shape[1], n, pattern.from_A.shape[1], pattern.from_b.shape[1]]
        made = [pattern.from_P, sp.eye_array(n, format="csr"), pattern.from_A, pattern.from_b]
        starts = np.cumsum([0, *sizes])
        data = []
        for part, start, reached in zip(made, starts[:-1], moving, strict=True):
            wide = sp.csr_array(
                (part.data, part.indices + start, part.indptr), shape=(part.shape[0], starts[-1])
            )
            data.append(DataMap.of(wide, moving=np.diff(sp.csr_array(part[:, reached]).indptr) > 0))
        bounds = [(0, n), (n, n + m), (n + m, n + 2 * m)]
        outputs = [Output(np.arange(first, last), np.ones(last - first)) for first, last in bounds]
        return cls(sizes, outputs, *data)

    def layout(self) -> Layout:
        """For the compiled module; it points to arrays that this object keeps."""
        index = [output.index for output in self.outputs]
        scale = [output.scale for output in self.outputs]
        layout = Layout(entries=sum(self.sizes), parameters=len(self.sizes), outputs=len(self.outputs))
        layout.parameter_sizes = self._ints(self.sizes)
        layout.output_sizes = self._ints([len(each) for each in index])
        layout.output_index = self._ints(np.concatenate([*index, []]))
        layout.output_scale = self._doubles(np.concatenate([*scale, []]))
        for name, data in (("P", self.P), ("q", self.q), ("A", self.A), ("b", self.b)):
            rows = data.matrix
            setattr(layout, name, Map(
                start=self._ints(rows.indptr), index=self._ints(rows.indices),
                weight=self._doubles(rows.data), constant=self._doubles(data.constant),
            ))  # fmt: skip
            which = np.flatnonzero(data.moving)
            setattr(layout, f"moving_{name}", len(which))
            setattr(layout, f"which_{name}", self._ints(which))
        return layout

    def _ints(self, values: Any) -> int:
        return self._keep(np.ascontiguousarray(values, dtype=np.int32))

    def _doubles(self, values: Any) -> int:
        return self._keep(np.ascontiguousarray(values, dtype=np.float64))

    def _keep(self, array: np.ndarray) -> int:
        self._kept.append(array)
        return address(array)
