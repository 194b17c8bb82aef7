"""Presolve: substitute out the auxiliary variables that cvxpy's canonical form carries.

``sum_squares(Lw − d)`` becomes a variable t with t = Lw − d, and t occurs nowhere else but in P and q. Call
such columns e, their equality rows e too, and the rest k and r. With N = A_ee diagonal and constant

    x_e = T x_k + t,     T = −N⁻¹ A_ek,     t = N⁻¹ b_e

the program in x_k has

    P' = P_kk + TᵀP_ee T + P_ke T + TᵀP_ek      q' = q_k + Tᵀ(q_e + P_ee t) + P_ke t
    A' = A_rk                                   b' = b_r

and what was left out follows exactly: from stationarity y_e = −N⁻¹(Px + q)_e, and for an adjoint (p, v) of
the loss gradients x̄, ȳ (where Pp + Aᵀv = x̄ and A_e p = ȳ_e)

    x̄' = x̄_k + Tᵀ(x̄_e − P_ee t̄) − P_ke t̄,   t̄ = N⁻¹ ȳ_e,      ȳ' = ȳ_r
    p_e = T p_k + t̄                                              v_e = N⁻¹ (x̄ − Pp)_e
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cvxfold.linear.index import Index
from cvxfold.linear.matrix import Matrix
from cvxfold.structure import IndexArray, Structure

_SMALLEST_PIVOT = 1e-3  # relative to the largest constant coefficient of its row


@dataclass(frozen=True)
class Elimination:
    """Which columns and rows go, by the structure alone.

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


def find_auxiliaries(structure: Structure, most: int | None = None) -> Elimination:
    """The columns that occur in one equality, with a constant coefficient, and in no other row.

    Args:
        structure: of the programs.
        most: how many at most; None for all.
    """
    entry_rows, entry_columns = structure.A_entries
    occurrences = np.bincount(entry_columns, minlength=structure.n)
    constants = structure.A_constants
    largest = np.zeros(structure.m)
    np.maximum.at(largest, entry_rows, np.nan_to_num(np.abs(constants)))
    with np.errstate(invalid="ignore"):
        candidate = (
            (occurrences[entry_columns] == 1)
            & (entry_rows < structure.cones.zero)
            & (np.abs(constants) >= np.maximum(_SMALLEST_PIVOT * largest[entry_rows], np.finfo(float).tiny))
        )
    chosen: dict[int, int] = {}
    for entry in np.flatnonzero(candidate):
        row = int(entry_rows[entry])
        if row not in chosen or abs(constants[entry]) > abs(constants[chosen[row]]):
            chosen[row] = int(entry)
    entries = np.array([chosen[row] for row in sorted(chosen)[:most]], dtype=np.int64)
    rows, columns = entry_rows[entries], entry_columns[entries]
    return Elimination(
        columns,
        rows,
        constants[entries],
        np.setdiff1d(np.arange(structure.n), columns),
        np.setdiff1d(np.arange(structure.m), rows),
    )


class _Block:
    """The entries of one block of a stored matrix: which they are and where in the block they go."""

    def __init__(
        self, places: IndexArray, rows: IndexArray, columns: IndexArray, shape: tuple[int, int]
    ) -> None:
        row_of, column_of = np.full(shape[0], -1), np.full(shape[1], -1)
        row_of[rows], column_of[columns] = np.arange(len(rows)), np.arange(len(columns))
        inside = (row_of[places[0]] >= 0) & (column_of[places[1]] >= 0)
        self.shape = (len(rows), len(columns))
        self.places = np.stack([row_of[places[0][inside]], column_of[places[1][inside]]])
        self._entries = Index(np.flatnonzero(inside))
        self._flat = Index(self.places[0] * len(columns) + self.places[1])

    def fill(self, values: Tensor) -> Matrix:
        """The block for stored values ``(1|B, nnz)``; entries in one place add up."""
        picked = values.index_select(1, self._entries.on(values.device))
        out = values.new_zeros(values.shape[0], self.shape[0] * self.shape[1])
        out.index_add_(1, self._flat.on(values.device), picked)
        return Matrix(torch.unflatten(out, 1, self.shape))


class _Split:
    """An elimination as indices on any device, with the orders that undo it."""

    def __init__(self, elimination: Elimination) -> None:
        columns, rows = elimination.columns, elimination.rows
        kept_columns, kept_rows = elimination.kept_columns, elimination.kept_rows
        self.columns, self.rows = Index(columns), Index(rows)
        self.kept_columns, self.kept_rows = Index(kept_columns), Index(kept_rows)
        self.pivots = Index(elimination.pivots)
        self.column_order = Index(np.argsort(np.concatenate([kept_columns, columns])))
        self.row_order = Index(np.argsort(np.concatenate([kept_rows, rows])))


class Presolve:
    """Reduces programs of one structure.

    Args:
        structure: of the programs.
        bare: whether to leave them as they are.
    """

    def __init__(self, structure: Structure, bare: bool = False) -> None:
        self.elimination = elimination = find_auxiliaries(structure, most=0 if bare else None)
        e, k, n, m = elimination.columns, elimination.kept_columns, structure.n, structure.m
        both_ways = np.concatenate([structure.P_entries, structure.P_entries[::-1]], axis=1)
        self._P_kk, self._P_ke, self._P_ee = (
            _Block(both_ways, rows, columns, (n, n)) for rows, columns in ((k, k), (k, e), (e, e))
        )
        self._A_rk = _Block(structure.A_entries, elimination.kept_rows, k, (m, n))
        self._A_ek = _Block(structure.A_entries, elimination.rows, k, (m, n))
        self.A_places = self._A_rk.places
        self._split = _Split(elimination)
        self.equalities = structure.cones.zero - len(e)

    def reduce(self, P_values: Tensor, A_values: Tensor) -> "Reduced":
        """The reduced matrices for stored values ``(1|B, nnz P)`` and ``(1|B, nnz A)``, float64."""
        halves = 0.5 * torch.cat([P_values, P_values], dim=1)
        P = self._P_kk.fill(halves)
        A = self._A_rk.fill(A_values)
        if not len(self.elimination.columns):
            return Reduced(self._split, P, A, None, None, None)
        pivots = self._split.pivots.on(A_values.device)
        T = Matrix(-self._A_ek.fill(A_values).values / pivots.unsqueeze(-1))
        P_ke, P_ee = self._P_ke.fill(halves), self._P_ee.fill(halves)
        cross = P_ke.values @ T.values
        quadratic = T.values.mT @ (P_ee.values @ T.values)
        return Reduced(self._split, Matrix(P.values + quadratic + cross + cross.mT), A, T, P_ke, P_ee)


@dataclass(frozen=True)
class Reduced:
    """P' and A' of a reduced program, and the way back.

    Args:
        split: what went. P, A: what is left.
        T: how the eliminated variables follow; None where there are none, like P_ke and P_ee.
    """

    split: _Split
    P: Matrix
    A: Matrix
    T: Matrix | None
    P_ke: Matrix | None
    P_ee: Matrix | None

    def vectors(self, q: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Q' ``(1|B, n')`` and b' ``(1|B, m')`` for q ``(1|B, n)`` and b ``(1|B, m)``."""
        if self.T is None or self.P_ke is None or self.P_ee is None:
            return q, b
        t = b[:, self._part(self.split.rows)] / self._part(self.split.pivots)
        reduced = (
            q[:, self._part(self.split.kept_columns)]
            + self.T.rmv(q[:, self._part(self.split.columns)] + self.P_ee.mv(t))
            + self.P_ke.mv(t)
        )
        return reduced, b[:, self._part(self.split.kept_rows)]

    def rows(self, v: Tensor) -> Tensor:
        """The rows that are left of ``v`` ``(B, m)``."""
        return v if self.T is None else v[:, self._part(self.split.kept_rows)]

    def lift(self, x: Tensor, y: Tensor, q: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """X ``(B, n)`` and y ``(B, m)`` of the original program from those of the reduced one."""
        if self.T is None or self.P_ke is None or self.P_ee is None:
            return x, y
        x_e = self.T.mv(x) + b[:, self._part(self.split.rows)] / self._part(self.split.pivots)
        y_e = -(self.P_ke.rmv(x) + self.P_ee.mv(x_e) + q[:, self._part(self.split.columns)]) / self._part(
            self.split.pivots
        )
        return self._join(x, x_e), self._join_rows(y, y_e)

    def restrict(self, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Loss gradients x̄' and ȳ' for the reduced program from those for the original one."""
        if self.T is None or self.P_ke is None or self.P_ee is None:
            return x_bar, y_bar
        t_bar = y_bar[:, self._part(self.split.rows)] / self._part(self.split.pivots)
        on_e = x_bar[:, self._part(self.split.columns)] - self.P_ee.mv(t_bar)
        return x_bar[:, self._part(self.split.kept_columns)] + self.T.rmv(on_e) - self.P_ke.mv(t_bar), y_bar[
            :, self._part(self.split.kept_rows)
        ]

    def lift_adjoint(self, p: Tensor, v: Tensor, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint (p, v) of the original program from that of the reduced one."""
        if self.T is None or self.P_ke is None or self.P_ee is None:
            return p, v
        p_e = self.T.mv(p) + y_bar[:, self._part(self.split.rows)] / self._part(self.split.pivots)
        v_e = (x_bar[:, self._part(self.split.columns)] - self.P_ke.rmv(p) - self.P_ee.mv(p_e)) / self._part(
            self.split.pivots
        )
        return self._join(p, p_e), self._join_rows(v, v_e)

    def _join(self, kept: Tensor, eliminated: Tensor) -> Tensor:
        return torch.cat([kept, eliminated], dim=1).index_select(1, self.split.column_order.on(kept.device))

    def _join_rows(self, kept: Tensor, eliminated: Tensor) -> Tensor:
        return torch.cat([kept, eliminated], dim=1).index_select(1, self.split.row_order.on(kept.device))

    def _part(self, index: Index) -> Tensor:
        return index.on(self.P.values.device)
