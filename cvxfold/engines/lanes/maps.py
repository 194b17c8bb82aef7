"""How data come from what a call is given, and what it returns: affine maps by rows.

Two layouts serve: the stored entries of P, q, A and b in, x, y and s out, as the protocol of the engines has
it; and a layer's parameters in, its variables out, in one call.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxfold.engines.lanes.binding import Layout, Map, address
from cvxfold.engines.lanes.pattern import Pattern
from cvxfold.problem.structure import Canonical, of_columns


@dataclass(frozen=True)
class Output:
    """An output: where each of its entries, row by row, stands in (x, y, s), a factor, and bounds."""

    index: np.ndarray
    scale: np.ndarray
    least: np.ndarray
    most: np.ndarray

    @classmethod
    def of(cls, first: int, last: int) -> "Output":
        """Entries as they are."""
        size = last - first
        unbounded = np.full(size, np.inf)
        return cls(np.arange(first, last), np.ones(size), -unbounded, unbounded)


@dataclass(frozen=True)
class DataMap:
    """One of P, q, A and b: entries = matrix @ given + constant, and which of them parameters reach."""

    matrix: Any
    constant: np.ndarray
    moving: np.ndarray

    @classmethod
    def of(
        cls, matrix: Any, constant: np.ndarray | None = None, moving: np.ndarray | None = None
    ) -> "DataMap":
        """Entries without a constant or that move where the map has entries, unless told otherwise."""
        rows: Any = sp.csr_array(matrix)
        rows.sum_duplicates()
        zero = np.zeros(len(rows.indptr) - 1) if constant is None else constant
        return cls(rows, zero, np.diff(rows.indptr) > 0 if moving is None else moving)


@dataclass(frozen=True)
class Maps:
    """A layout and the arrays that it points to.

    Args:
        sizes: entries of each parameter.
        outputs: of the call.
        P, q, A, b: the data from the entries of all parameters together.
        A_row: the row of each of A's entries.
    """

    sizes: Sequence[int]
    outputs: Sequence[Output]
    P: DataMap
    q: DataMap
    A: DataMap
    b: DataMap
    A_row: np.ndarray
    _kept: list[np.ndarray] = field(default_factory=list)
    _asked: "dict[tuple[bool, ...], Maps]" = field(default_factory=dict)

    @classmethod
    def of_entries(cls, pattern: Pattern, moving: Sequence[np.ndarray]) -> "Maps":
        """From the stored entries, of which parameters reach those at ``moving``, to x, y and s."""
        n, m = pattern.n, pattern.m
        sizes = [
            pattern.P_from_stored.shape[1],
            n,
            pattern.A_from_stored.shape[1],
            pattern.b_from_stored.shape[1],
        ]
        made = [
            pattern.P_from_stored,
            sp.eye_array(n, format="csr"),
            pattern.A_from_stored,
            pattern.b_from_stored,
        ]
        starts = np.cumsum([0, *sizes])
        data = []
        for part, start, reached in zip(made, starts[:-1], moving, strict=True):
            wide = sp.csr_array(
                (part.data, part.indices + start, part.indptr), shape=(part.shape[0], starts[-1])
            )
            data.append(DataMap.of(wide, moving=np.diff(sp.csr_array(part[:, reached]).indptr) > 0))
        bounds = [(0, n), (n, n + m), (n + m, n + 2 * m)]
        outputs = [Output.of(first, last) for first, last in bounds]
        P, q, A, b = data
        return cls(sizes, outputs, P, q, A, b, pattern.A_row)

    @classmethod
    def of_parameters(cls, pattern: Pattern, canonical: Canonical) -> "Maps":
        """From a layer's parameters to its variables; logarithms where a geometric program has those."""
        sizes = [math.prod(spec.raw_shape) for spec in canonical.parameters]
        starts = np.cumsum([0, *sizes])
        to_q: Any = canonical.q
        entry = np.empty(to_q.shape[1] - 1, dtype=np.int64)  # of each of cvxpy's columns
        for spec, start, size in zip(canonical.parameters, starts, sizes, strict=False):
            flat = start + np.arange(size)
            by_columns = flat.reshape(spec.raw_shape).ravel(order="F")
            entry[spec.columns] = by_columns if spec.places is None else flat[spec.places]
        made = [
            pattern.P_from_stored @ canonical.P,
            canonical.q,
            pattern.A_from_stored @ canonical.A,
            pattern.b_from_stored @ canonical.b,
        ]
        data: list[DataMap] = []
        part: Any
        for part in made:
            rows: Any = sp.csc_array(part)
            moving = sp.coo_array(rows[:, :-1])
            linear = sp.csr_array(
                (moving.data, (moving.coords[0], entry[moving.coords[1]])), shape=(rows.shape[0], starts[-1])
            )
            data.append(DataMap.of(linear, rows[:, [-1]].toarray().ravel()))
        outputs = []
        for spec in canonical.outputs:
            first = 0 if spec.source == "primal" else pattern.n
            index, factors, least, most = (part.ravel() for part in (spec.index, spec.factors, *spec.bounds))
            outputs.append(Output(first + index, factors, least, most))
        P, q, A, b = data
        return cls(sizes, outputs, P, q, A, b, pattern.A_row)

    def asked(self, wanted: Sequence[bool]) -> "Maps | None":
        """The same where a gradient is asked for on the ``wanted`` parameters alone; None where on all."""
        if all(wanted) or not any(wanted):
            return None
        key = tuple(wanted)
        if key not in self._asked:
            keep = np.repeat(np.array(key), self.sizes)
            data = [DataMap.of(of_columns(each.matrix, keep), each.constant) for each in self._data]
            self._asked[key] = replace(self, **dict(zip("PqAb", data, strict=True)), _kept=[], _asked={})
        return self._asked[key]

    @property
    def _data(self) -> list[DataMap]:
        return [self.P, self.q, self.A, self.b]

    @cached_property
    def layout(self) -> Layout:
        """For the compiled module; it points to arrays that this object keeps."""
        return self.laid_out(self._keep)

    def laid_out(self, place: Callable[[np.ndarray], int]) -> Layout:
        """A layout whose arrays are where ``place`` puts them; it returns their addresses."""

        def ints(values: Any) -> int:
            return place(np.ascontiguousarray(values, dtype=np.int32))

        def doubles(values: Any) -> int:
            return place(np.ascontiguousarray(values, dtype=np.float64))

        index = [output.index for output in self.outputs]
        ends = [(output.scale, output.least, output.most) for output in self.outputs]
        layout = Layout(entries=sum(self.sizes), parameters=len(self.sizes), outputs=len(self.outputs))
        layout.parameter_sizes = ints(self.sizes)
        layout.output_sizes = ints([len(each) for each in index])
        layout.output_index = ints(np.concatenate([*index, []]))
        for name, part in zip(("scale", "least", "most"), zip(*ends, strict=True), strict=True):
            setattr(layout, f"output_{name}", doubles(np.concatenate([*part, []])))
        for name, data in zip("PqAb", self._data, strict=True):
            rows = data.matrix
            setattr(layout, name, Map(
                start=ints(rows.indptr), index=ints(rows.indices), reach=ints(_reach(rows)),
                weight=doubles(rows.data), constant=doubles(data.constant),
            ))  # fmt: skip
            which = np.flatnonzero(data.moving)
            setattr(layout, f"moving_{name}", len(which))
            setattr(layout, f"which_{name}", ints(which))
        rows = np.union1d(self.A_row[self.A.moving], np.flatnonzero(self.b.moving))
        layout.moving_rows, layout.which_rows = len(rows), ints(rows)
        return layout

    def _keep(self, array: np.ndarray) -> int:
        self._kept.append(array)
        return address(array)


def _reach(rows: Any) -> np.ndarray:
    """Of a row, the first one behind it that is not the next parameter's with the same weight."""
    count = len(rows.indptr) - 1
    single = np.flatnonzero(np.diff(rows.indptr) == 1)
    index, weight = np.full(count, -2), np.zeros(count)
    index[single], weight[single] = rows.indices[rows.indptr[single]], rows.data[rows.indptr[single]]
    follows = (index[1:] == index[:-1] + 1) & (index[:-1] >= 0) & (weight[1:] == weight[:-1])
    ends = np.flatnonzero(~np.append(follows, np.zeros(min(count, 1), dtype=bool)))
    return ends[np.searchsorted(ends, np.arange(count))] + 1
