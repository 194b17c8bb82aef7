"""Where leaves and dual variables stand in a canonical form, read off its tags."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxfold.problem.compilation import Compilation
from cvxfold.problem.structure import IndexArray, OutputSpec, Structure, with_columns
from cvxfold.problem.tags import Tag


@dataclass(frozen=True)
class AffineForm:
    """A canonical form: its structure, and the maps from parameters, with a trailing 1, to its entries."""

    structure: Structure
    P: sp.csr_array
    q: sp.csr_array
    A: sp.csr_array
    b: sp.csr_array


class Location:
    """Reads the tags of a canonical form.

    Args:
        form: as cvxpy made it, with tags. compilation: that it is of.
    """

    def __init__(self, form: AffineForm, compilation: Compilation) -> None:
        self._form, self._compilation = form, compilation
        self._starts = compilation.program.param_id_to_col
        m, structure = form.structure.m, form.structure
        width = _shape(form.b)[1]
        self._b = _spread(form.b, structure.b_entries, (m, width))
        rows, columns = structure.A_entries
        constants = np.where(np.isnan(structure.A_constants), 0.0, structure.A_constants)
        self._A = sp.csr_array((constants, (rows, columns)), shape=(m, structure.n))
        self._is_constant = np.ones(m, dtype=bool)
        self._is_constant[rows[np.isnan(structure.A_constants)]] = False
        self._tags = [*compilation.leaves.values(), *compilation.duals.values()]
        self._columns_of_tags = self._columns([part for tag in self._tags for part in _parts(tag)])
        if any(
            sp.csr_array(each[:, self._columns_of_tags]).count_nonzero() for each in (form.P, form.q, form.A)
        ):
            raise ValueError(
                "problem: a constraint whose dual is to be returned is not linear in its argument"
            )
        leaves = [part for tag in compilation.leaves.values() for part in _parts(tag)]
        self._own_rows = np.concatenate([self._rows(part)[0] for part in leaves] or [np.empty(0, np.int64)])

    def output(self, variable: cp.Variable, gp: bool) -> OutputSpec:
        """Where a variable or dual variable stands in x or y, of the form without tags."""
        tag = self._compilation.leaves.get(variable.id)
        if tag is not None:
            maps = [self._of_variables(variable, part) for part in (tag.real, tag.imaginary)]
            return _output("primal", tag, maps, exp=gp)
        tag = self._compilation.duals[variable.id]
        kept = np.delete(np.arange(self._form.structure.m), self._own_rows)
        maps = [
            None if part is None else -tag.sign * sp.csr_array(self._b[kept][:, self._columns([part])].T)
            for part in (tag.real, tag.imaginary)
        ]
        return _output("dual", tag, maps, exp=False)

    def columns(self, number: int, parameter: cp.Parameter) -> tuple[IndexArray, IndexArray | None]:
        """The columns of a parameter of the layer, and which of its entries each holds.

        Args:
            number: of the parameter. parameter: itself.

        Returns:
            The columns of the maps, and the entry of each, counted row by row, real and imaginary parts side
            by side; None where all entries stand there, by columns.
        """
        tag = self._compilation.leaves.get(parameter.id)
        if tag is None:
            return self._columns([self._compilation.parameters[number]]), None
        count = 2 if tag.is_complex else 1
        place = np.full(_shape(self._b)[1], -1, dtype=np.int64)
        for offset, part in enumerate((tag.real, tag.imaginary)):
            if part is None:
                continue
            rows, factors = self._rows(part)
            others = self._b[rows].multiply(-1.0 / factors[:, None]).tocsr()
            others = sp.coo_array(_without(others, self._columns([part])))
            order = _by_rows(tag.shape)
            entries, columns = order[others.coords[0]] * count + offset, others.coords[1]
            read = others.data == 1.0
            for entry, column in sorted(zip(entries[read], columns[read], strict=True), reverse=True):
                place[column] = entry  # the first entry, row by row, is the one that is read
            constant = len(place) - 1
            if (columns == constant).any() or (place[columns] < 0).any():
                raise ValueError(f"parameter {parameter.name()}: cvxpy stores its entries in an unknown way")
        found = np.flatnonzero(place >= 0)
        return found, place[found]

    def bare(self, columns: Sequence[IndexArray]) -> AffineForm:
        """The form without tags, whose parameters stand in columns that follow each other.

        Args:
            columns: of each parameter, in the order that they shall have.
        """
        form, structure = self._form, self._form.structure
        order = np.concatenate([*columns, [_shape(form.q)[1] - 1]]).astype(np.int64)
        place = np.full(_shape(form.q)[1], -1)
        place[order] = np.arange(len(order))
        P, q, A, b = (with_columns(each, order, place) for each in (form.P, form.q, form.A, form.b))
        kept = np.ones(structure.m, dtype=bool)
        kept[self._own_rows] = False
        row_of = np.cumsum(kept) - 1
        in_A = kept[structure.A_entries[0]]
        in_b = kept[structure.b_entries] & (np.diff(b.indptr) > 0)
        cones = replace(structure.cones, zero=structure.cones.zero - len(self._own_rows))
        bare = Structure(
            structure.n,
            cones.rows,
            cones,
            structure.P_entries,
            np.stack([row_of[structure.A_entries[0][in_A]], structure.A_entries[1][in_A]]),
            structure.A_constants[in_A],
            row_of[structure.b_entries[in_b]],
        )
        return AffineForm(bare, P, q, sp.csr_array(A[in_A]), sp.csr_array(b[in_b]))

    def unknown(self, columns: Sequence[IndexArray]) -> int:
        """How many columns belong neither to these parameters nor to tags."""
        return _shape(self._b)[1] - 1 - sum(map(len, columns)) - len(self._columns_of_tags)

    def _of_variables(self, variable: cp.Variable, part: cp.Parameter | None) -> sp.csr_array | None:
        """The entries of a variable, by columns, from the form's variables: its rows of A, up to a factor."""
        if part is None:
            return None
        rows, factors = self._rows(part)
        rest = _without(self._b[rows], self._columns([part]))
        if rest.nnz or not self._is_constant[rows].all():
            raise ValueError(
                f"variable {variable.name()}: cvxpy changes its value by parameters or constants"
            )
        return sp.csr_array(self._A[rows].multiply(1.0 / factors[:, None]))

    def _rows(self, part: cp.Parameter) -> tuple[IndexArray, np.ndarray]:
        """The row of b in which each entry of a leaf's tag stands, and its factor there."""
        block = sp.csc_array(self._b[:, self._columns([part])])
        zero = self._form.structure.cones.zero
        if not (np.diff(block.indptr) == 1).all() or (block.indices >= zero).any():
            raise ValueError("problem: cvxpy's canonical form has an equation twice, or not as an equation")
        return block.indices.astype(np.int64), block.data

    def _columns(self, parameters: Sequence[cp.Parameter]) -> IndexArray:
        """Their columns; those of parameters that cvxpy has dropped, as they have no entries, are none."""
        starts = [(self._starts.get(each.id), each.size) for each in parameters]
        ranges = [np.arange(start, start + size) for start, size in starts if start is not None]
        return np.concatenate([*ranges, np.empty(0)]).astype(np.int64)


def _parts(tag: Tag) -> list[cp.Parameter]:
    return [part for part in (tag.real, tag.imaginary) if part is not None]


def _output(source: Any, tag: Tag, maps: Sequence[sp.csr_array | None], *, exp: bool) -> OutputSpec:
    """From maps of x or y to the real and the imaginary part, by columns."""
    order = np.argsort(_by_rows(tag.shape))  # the column-wise number of each entry, row by row
    parts = 2 if tag.is_complex else 1
    terms = max([1, *(int(np.diff(each.indptr).max(initial=0)) for each in maps if each is not None)])
    index = np.zeros((terms, len(order), parts), dtype=np.int64)
    factors = np.zeros((terms, len(order), parts))
    for part, each in enumerate(maps[:parts]):
        if each is None:
            continue
        rows = sp.csr_array(each[order])
        entry = np.repeat(np.arange(len(order)), np.diff(rows.indptr))
        term = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], np.diff(rows.indptr))
        index[term, entry, part], factors[term, entry, part] = rows.indices, rows.data
    return OutputSpec(source, tag.shape, index, factors, exp)


def _by_rows(shape: tuple[int, ...]) -> IndexArray:
    """For each entry of an array, counted by columns, its number counted by rows."""
    return np.arange(int(np.prod(shape))).reshape(shape).ravel(order="F")


def _without(matrix: Any, columns: IndexArray) -> sp.csr_array:
    """The matrix with zeros in some columns, none of them stored."""
    keep = np.ones(matrix.shape[1])
    keep[columns] = 0.0
    kept = sp.csr_array(matrix @ sp.diags_array(keep, format="csr"))
    kept.eliminate_zeros()
    return kept


def _spread(entries: sp.csr_array, rows: IndexArray, shape: tuple[int, int]) -> sp.csr_array:
    """The rows of a map at their places among all rows."""
    coo = sp.coo_array(entries)
    return sp.csr_array((coo.data, (rows[coo.coords[0]], coo.coords[1])), shape=shape)


def _shape(matrix: Any) -> tuple[int, int]:
    return matrix.shape
