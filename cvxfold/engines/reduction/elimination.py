"""Which variables an equality with a constant coefficient gives away, by the structure of A alone."""

from dataclasses import dataclass

import numpy as np

from cvxfold.problem.structure import IndexArray, Structure

_SMALLEST_PIVOT = 1e-3  # relative to the largest constant coefficient of its row


@dataclass(frozen=True)
class Elimination:
    """Which columns and rows go.

    Args:
        columns: e, the variables that are substituted out, ``(k,)``.
        rows: the equalities that define them, ``(k,)``.
        pivots: N's diagonal, ``(k,)``.
        kept_columns, kept_rows: the others, ``(n − k,)`` and ``(m − k,)``.
    """

    columns: IndexArray
    rows: IndexArray
    pivots: np.ndarray
    kept_columns: IndexArray
    kept_rows: IndexArray

    def __len__(self) -> int:
        return len(self.columns)

    def reduced(self, structure: Structure) -> Structure:
        """What is left of the structure, where the equalities hold no other variables."""
        row_of, column_of = (
            _positions(self.kept_rows, structure.m),
            _positions(self.kept_columns, structure.n),
        )
        P, A = structure.P_entries, structure.A_entries
        P_inside = (column_of[P] >= 0).all(axis=0)
        A_inside = (row_of[A[0]] >= 0) & (column_of[A[1]] >= 0)
        return Structure(
            len(self.kept_columns),
            len(self.kept_rows),
            structure.cones.with_zero(structure.cones.zero - len(self)),
            column_of[P[:, P_inside]],
            np.stack([row_of[A[0, A_inside]], column_of[A[1, A_inside]]]),
            structure.A_constants[A_inside],
            np.arange(len(self.kept_rows)),
        )


def find_fixed(structure: Structure) -> Elimination:
    """The variables that an equality of a single entry sets to a number."""
    rows, _ = structure.A_entries
    alone = np.bincount(rows, minlength=structure.m) == 1
    constants = structure.A_constants
    candidates = np.flatnonzero(
        alone[rows] & (rows < structure.cones.zero) & np.isfinite(constants) & (constants != 0)
    )
    _, first = np.unique(structure.A_entries[1][candidates], return_index=True)
    return _elimination(structure, candidates[first])


def find_auxiliaries(structure: Structure) -> Elimination:
    """The variables that occur in one equality, with a constant coefficient, and in no other row."""
    rows, columns = structure.A_entries
    occurrences = np.bincount(columns, minlength=structure.n)
    constants = structure.A_constants
    largest = np.zeros(structure.m)
    np.maximum.at(largest, rows, np.nan_to_num(np.abs(constants)))
    with np.errstate(invalid="ignore"):
        candidate = (
            (occurrences[columns] == 1)
            & (rows < structure.cones.zero)
            & (np.abs(constants) >= np.maximum(_SMALLEST_PIVOT * largest[rows], np.finfo(float).tiny))
        )
    chosen: dict[int, int] = {}
    for entry in np.flatnonzero(candidate):
        row = int(rows[entry])
        if row not in chosen or abs(constants[entry]) > abs(constants[chosen[row]]):
            chosen[row] = int(entry)
    return _elimination(structure, np.array([chosen[row] for row in sorted(chosen)], dtype=np.int64))


def nothing(structure: Structure) -> Elimination:
    """No variable at all."""
    return _elimination(structure, np.empty(0, dtype=np.int64))


def _elimination(structure: Structure, entries: IndexArray) -> Elimination:
    """By the entries of A that are the pivots."""
    rows, columns = structure.A_entries[:, entries]
    return Elimination(
        columns,
        rows,
        structure.A_constants[entries],
        np.setdiff1d(np.arange(structure.n), columns),
        np.setdiff1d(np.arange(structure.m), rows),
    )


def _positions(kept: IndexArray, size: int) -> IndexArray:
    """For each index its place among those kept, −1 for the others."""
    place = np.full(size, -1)
    place[kept] = np.arange(len(kept))
    return place
