"""Presolve: substitute out the variables that an equality gives away.

Two kinds go: those that an equality sets to a number (x₀ = start), and then the auxiliaries of cvxpy's
canonical form: ``sum_squares(Lw − d)`` becomes a variable t with t = Lw − d, and t occurs nowhere else but in
P and q. Call such columns e, their equality rows e too, and the rest k and r. With N = A_ee diagonal and
constant

    x_e = T x_k + t,     T = −N⁻¹ A_ek,     t = N⁻¹ b_e

the program in x_k has

    P' = P_kk + TᵀP_ee T + P_ke T + TᵀP_ek      q' = q_k + Tᵀ(q_e + P_ee t) + P_ke t
    A' = A_rk                                   b' = b_r − A_re t

where either T = 0 (the first kind) or A_re = 0 (the second). What was left out follows exactly: from
stationarity y_e = −N⁻¹(Px + q + A_reᵀy_r)_e, and for an adjoint (p, v) of the loss gradients x̄, ȳ (where
Pp + Aᵀv = x̄, A_e p = ȳ_e, and ȳ enters the other rows as A_r p − ȳ_r)

    x̄' = x̄_k + Tᵀ(x̄_e − P_ee t̄) − P_ke t̄,   t̄ = N⁻¹ ȳ_e,      ȳ' = ȳ_r − A_re t̄
    p_e = T p_k + t̄                               v_e = N⁻¹ (x̄ − Pp − A_reᵀ v_r)_e
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.outcome import Start
from cvxfold.engines.reduction.congruence import Congruence
from cvxfold.engines.reduction.elimination import Elimination, find_auxiliaries, find_fixed, nothing
from cvxfold.problem.index import Index, at
from cvxfold.problem.structure import IndexArray, Structure


class Presolve:
    """Reduces programs of one structure.

    Args:
        structure: of the programs.
        bare: whether to leave them as they are.
    """

    def __init__(self, structure: Structure, bare: bool = False) -> None:
        fixed = nothing(structure) if bare else find_fixed(structure)
        between = fixed.reduced(structure)
        auxiliary = nothing(between) if bare else find_auxiliaries(between)
        self._fixed, self._auxiliary = _Stage(structure, fixed), _Stage(between, auxiliary)
        self.eliminations = (fixed, auxiliary)
        self.A_places = self._auxiliary.A_rk.places
        self.equalities = between.cones.zero - len(auxiliary)
        self.columns = len(auxiliary.kept_columns)

    def reduce(self, P_values: Tensor, A_values: Tensor) -> "Reduced":
        """The reduced matrices for stored values ``(1|B, nnz P)`` and ``(1|B, nnz A)``, float64."""
        fixed = self._fixed.substitution(P_values, A_values)
        P_values, A_values = self._fixed.stored(P_values, A_values)
        auxiliary = self._auxiliary.substitution(P_values, A_values)
        P, A = self._auxiliary.P_kk.fill(_halves(P_values)), self._auxiliary.A_rk.fill(A_values)
        if len(self.eliminations[1]):
            P = Matrix(P.values + self._auxiliary.congruence(auxiliary.P_ke, auxiliary.P_ee, auxiliary.T))
        used = zip((fixed, auxiliary), self.eliminations, strict=True)
        return Reduced(P, A, tuple(one for one, elimination in used if len(elimination)))


class _MatrixBlock:
    """The entries of one block of a stored matrix: which they are and where in the block they go."""

    def __init__(
        self, places: IndexArray, rows: IndexArray, columns: IndexArray, shape: tuple[int, int]
    ) -> None:
        if not (len(rows) and len(columns)):
            places = places[:, :0]
        row_of, column_of = np.full(shape[0], -1), np.full(shape[1], -1)
        row_of[rows], column_of[columns] = np.arange(len(rows)), np.arange(len(columns))
        inside = (row_of[places[0]] >= 0) & (column_of[places[1]] >= 0)
        self.shape = (len(rows), len(columns))
        self.places = np.stack([row_of[places[0][inside]], column_of[places[1][inside]]])
        self.entries = Index(np.flatnonzero(inside))
        self._flat = Index(self.places[0] * len(columns) + self.places[1])

    def fill(self, values: Tensor) -> Matrix:
        """The block for stored values ``(1|B, nnz)``; entries in one place add up."""
        picked = at(values, self.entries.on(values.device))
        out = values.new_zeros(values.shape[0], self.shape[0] * self.shape[1])
        out.index_add_(1, self._flat.on(values.device), picked)
        return Matrix(torch.unflatten(out, 1, self.shape))


class _Partition:
    """An elimination as indices on any device, with the orders that undo it."""

    def __init__(self, elimination: Elimination) -> None:
        columns, rows = elimination.columns, elimination.rows
        kept_columns, kept_rows = elimination.kept_columns, elimination.kept_rows
        self.columns, self.rows = Index(columns), Index(rows)
        self.kept_columns, self.kept_rows = Index(kept_columns), Index(kept_rows)
        self.pivots = Index(elimination.pivots)
        self.column_order = Index(np.argsort(np.concatenate([kept_columns, columns])))
        self.row_order = Index(np.argsort(np.concatenate([kept_rows, rows])))


class _Stage:
    """The blocks of one elimination."""

    def __init__(self, structure: Structure, elimination: Elimination) -> None:
        e, k, n, m = elimination.columns, elimination.kept_columns, structure.n, structure.m
        rows_e, rows_r = elimination.rows, elimination.kept_rows
        P_places, A_places = structure.P_entries, structure.A_entries
        both_ways = np.concatenate([P_places, P_places[::-1]], axis=1)
        self.P_kk, self.P_ke, self.P_ee = (
            _MatrixBlock(both_ways, rows, columns, (n, n)) for rows, columns in ((k, k), (k, e), (e, e))
        )
        self.A_rk, self.A_ek, self.A_re = (
            _MatrixBlock(A_places, rows, columns, (m, n))
            for rows, columns in ((rows_r, k), (rows_e, k), (rows_r, e))
        )
        self.congruence = Congruence(self.P_ke.places, self.P_ee.places, self.A_ek.places, self.A_ek.shape)
        self._P_stored = _MatrixBlock(P_places, k, k, (n, n)).entries
        self._split = _Partition(elimination)

    def substitution(self, P_values: Tensor, A_values: Tensor) -> "Substitution":
        """How the eliminated variables follow, for stored values."""
        halves = _halves(P_values)
        pivots = self._split.pivots.on(A_values.device)
        T = Matrix(-self.A_ek.fill(A_values).values / pivots.unsqueeze(-1))
        return Substitution(
            self._split, T, self.P_ke.fill(halves), self.P_ee.fill(halves), self.A_re.fill(A_values)
        )

    def stored(self, P_values: Tensor, A_values: Tensor) -> tuple[Tensor, Tensor]:
        """The stored values of what is left, where T = 0."""
        return (
            at(P_values, self._P_stored.on(P_values.device)),
            at(A_values, self.A_rk.entries.on(A_values.device)),
        )


@dataclass(frozen=True)
class Substitution(Batched):
    """The way to a reduced program and back.

    Args:
        split: what goes.
        T: how the eliminated variables follow the others.
        P_ke, P_ee, A_re: the blocks of P and A that belong to them.
    """

    split: _Partition
    T: Matrix
    P_ke: Matrix
    P_ee: Matrix
    A_re: Matrix

    def vectors(self, q: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """q′ ``(1|B, n')`` and b′ ``(1|B, m')`` for q ``(1|B, n)`` and b ``(1|B, m)``."""
        t = self._over_pivots(b[:, self._on(self.split.rows)])
        q_e = q[:, self._on(self.split.columns)]
        reduced = (
            q[:, self._on(self.split.kept_columns)] + self.T.rmv(q_e + self.P_ee.mv(t)) + self.P_ke.mv(t)
        )
        return reduced, self.rows(b) - self.A_re.mv(t)

    def rows(self, v: Tensor) -> Tensor:
        """The rows that are left of ``v`` ``(B, m)``."""
        return v[:, self._on(self.split.kept_rows)]

    def columns(self, v: Tensor) -> Tensor:
        """The columns that are left of ``v`` ``(B, n)``."""
        return v[:, self._on(self.split.kept_columns)]

    def spread_rows(self, v: Tensor) -> Tensor:
        """``v`` on the rows that are left, zero on the others, ``(B, m)``."""
        return self._join_rows(v, v.new_zeros(len(v), len(self.split.rows)))

    def spread_columns(self, v: Tensor) -> Tensor:
        """``v`` on the columns that are left, zero on the others, ``(B, n)``."""
        return self._join(v, v.new_zeros(len(v), len(self.split.columns)))

    def lift(self, x: Tensor, y: Tensor, q: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """x ``(B, n)`` and y ``(B, m)`` of the original program from those of the reduced one."""
        x_e = self.T.mv(x) + self._over_pivots(b[:, self._on(self.split.rows)])
        gradient = self.P_ke.rmv(x) + self.P_ee.mv(x_e) + q[:, self._on(self.split.columns)]
        y_e = -self._over_pivots(gradient + self.A_re.rmv(y))
        return self._join(x, x_e), self._join_rows(y, y_e)

    def restrict(self, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Loss gradients x̄' and ȳ' for the reduced program from those for the original one."""
        t_bar = self._over_pivots(y_bar[:, self._on(self.split.rows)])
        on_e = x_bar[:, self._on(self.split.columns)] - self.P_ee.mv(t_bar)
        on_k = x_bar[:, self._on(self.split.kept_columns)]
        return on_k + self.T.rmv(on_e) - self.P_ke.mv(t_bar), self.rows(y_bar) - self.A_re.mv(t_bar)

    def lift_adjoint(self, p: Tensor, v: Tensor, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint (p, v) of the original program from that of the reduced one."""
        p_e = self.T.mv(p) + self._over_pivots(y_bar[:, self._on(self.split.rows)])
        rest = x_bar[:, self._on(self.split.columns)] - self.P_ke.rmv(p) - self.P_ee.mv(p_e)
        v_e = self._over_pivots(rest - self.A_re.rmv(v))
        return self._join(p, p_e), self._join_rows(v, v_e)

    def _over_pivots(self, v: Tensor) -> Tensor:
        """N⁻¹ v."""
        return v / self._on(self.split.pivots)

    def _join(self, kept: Tensor, eliminated: Tensor) -> Tensor:
        return torch.cat([kept, eliminated], dim=1).index_select(1, self._on(self.split.column_order))

    def _join_rows(self, kept: Tensor, eliminated: Tensor) -> Tensor:
        return torch.cat([kept, eliminated], dim=1).index_select(1, self._on(self.split.row_order))

    def _on(self, index: Index) -> Tensor:
        return index.on(self.T.values.device)


@dataclass(frozen=True)
class Reduced(Batched):
    """P' and A' of a reduced program, and the way back: the substitutions, one after the other."""

    P: Matrix
    A: Matrix
    stages: tuple[Substitution, ...]

    def vectors(self, q: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """q′ ``(1|B, n')`` and b′ ``(1|B, m')`` for q ``(1|B, n)`` and b ``(1|B, m)``."""
        for stage in self.stages:
            q, b = stage.vectors(q, b)
        return q, b

    def rows(self, v: Tensor) -> Tensor:
        """The rows that are left of ``v`` ``(B, m)``."""
        for stage in self.stages:
            v = stage.rows(v)
        return v

    def spread_rows(self, v: Tensor) -> Tensor:
        """``v`` ``(B, m')`` among the rows of the original program, zero on the others; ``(B, m)``."""
        for stage in reversed(self.stages):
            v = stage.spread_rows(v)
        return v

    def spread_columns(self, v: Tensor) -> Tensor:
        """``v`` ``(B, n')`` among the columns of the original program, zero on the others; ``(B, n)``."""
        for stage in reversed(self.stages):
            v = stage.spread_columns(v)
        return v

    def start(self, start: Start) -> Start:
        """What is left of another solver's point or certificate of the original program."""
        x, s, y = start.x, self.rows(start.s), self.rows(start.y)
        for stage in self.stages:
            x = None if x is None else stage.columns(x)
        return replace(start, x=x, s=s, y=y)

    def lift(self, x: Tensor, y: Tensor, q: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """x ``(B, n)`` and y ``(B, m)`` of the original program from those of the reduced one."""
        given = [(q, b)]
        for stage in self.stages:
            given.append(stage.vectors(*given[-1]))
        for stage, (q, b) in zip(reversed(self.stages), reversed(given[:-1]), strict=True):
            x, y = stage.lift(x, y, q, b)
        return x, y

    def restrict(self, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Loss gradients x̄' and ȳ' for the reduced program from those for the original one."""
        for stage in self.stages:
            x_bar, y_bar = stage.restrict(x_bar, y_bar)
        return x_bar, y_bar

    def lift_adjoint(self, p: Tensor, v: Tensor, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint (p, v) of the original program from that of the reduced one."""
        given = [(x_bar, y_bar)]
        for stage in self.stages:
            given.append(stage.restrict(*given[-1]))
        for stage, (x_bar, y_bar) in zip(reversed(self.stages), reversed(given[:-1]), strict=True):
            p, v = stage.lift_adjoint(p, v, x_bar, y_bar)
        return p, v


def _halves(P_values: Tensor) -> Tensor:
    """The stored entries of P, each in both places where it counts a half."""
    return 0.5 * torch.cat([P_values, P_values], dim=1)
