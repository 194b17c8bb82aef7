"""A batch of cone programs as its stored entries and their places: what an engine is handed.

minimize    ½ xᵀP x + qᵀx
subject to  A x + s = b,   s ∈ K
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.problem.index import Index, SparseMap, at
from cvxfold.problem.structure import Moving, Structure
from cvxfold.problem.values import ProgramValues


class Entries:
    """The places of the stored data on any device, and which of them a parameter reaches.

    Args:
        structure: of the program. moving: how parameters move it.

    Attributes:
        wanted: the parameters that are meant; None for all.
    """

    wanted: tuple[bool, ...] | None = None

    def __init__(self, structure: Structure, moving: Moving) -> None:
        self.structure = structure
        self.P, self.A, self.b = (
            Index(places) for places in (structure.P_entries, structure.A_entries, structure.b_entries)
        )
        self._reached_by(moving)
        self._asked: dict[tuple[bool, ...], Entries] = {}

    def _reached_by(self, moving: Moving) -> None:
        self._moving = moving
        self.moving = [Index(np.flatnonzero(mask)) for mask in moving.masks]
        self.P_by_parameters, self.q_by_parameters, self.A_by_parameters, self.b_by_parameters = (
            SparseMap(each) for each in moving.maps
        )

    def asked(self, wanted: Sequence[bool] | None) -> "Entries":
        """The same where a gradient is asked for on the ``wanted`` parameters alone; None: on all."""
        if wanted is None or not self._moving.columns or all(wanted) or not any(wanted):
            return self
        key = tuple(wanted)
        if key not in self._asked:
            part = self._asked[key] = copy.copy(self)
            part.wanted = key
            part._reached_by(self._moving.asked(key))
        return self._asked[key]


@dataclass(frozen=True)
class Program:
    """A batch of cone programs of one structure, in the units of the problem.

    Args:
        entries: where the stored data are.
        values: the stored data, each ``(1|B, ·)``, float64.
        batch: B.
    """

    entries: Entries
    values: ProgramValues
    batch: int

    @property
    def structure(self) -> Structure:
        """What the instances share."""
        return self.entries.structure

    @property
    def right_hand_side(self) -> Tensor:
        """b ``(1|B, m)`` from its stored entries."""
        stored = self.values.b
        b = stored.new_zeros(stored.shape[0], self.structure.m)
        return b.index_copy(1, self.entries.b.on(b.device), stored)

    def stationary(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """P p and Aᵀ v, both ``(B, n)``, for p ``(B, n)`` and v ``(B, m)``, from the stored entries alone."""
        P, A = self.entries.P.on(p.device), self.entries.A.on(p.device)
        half, n = 0.5 * self.values.P, self.structure.n
        Pp = _product(half, P, p, n) + _product(half, P.flip(0), p, n)  # an entry stands for two halves
        return Pp, _product(self.values.A, A.flip(0), v, n)

    def sums_of_columns(self, v: Tensor) -> Tensor:
        """|A|ᵀ|v|, ``(B, n)``, for v ``(B, m)``: the terms of Aᵀ v added up without their signs."""
        A = self.entries.A.on(v.device)
        return _product(self.values.A.abs(), A.flip(0), v.abs(), self.structure.n)

    def sums_of_rows(self, x: Tensor) -> Tensor:
        """|A||x|, ``(B, m)``, for x ``(B, n)``: the terms of A x added up without their signs."""
        return _product(self.values.A.abs(), self.entries.A.on(x.device), x.abs(), self.structure.m)

    def sides(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """−(P x + q + Aᵀ y) ``(B, n)`` and b − A x ``(B, m)`` for x ``(B, n)`` and y ``(B, m)``."""
        Px, Ay = self.stationary(x, y)
        return -(Px + self.values.q + Ay), self.right_hand_side - self.rows(x)

    def rows(self, x: Tensor) -> Tensor:
        """A x ``(B, m)`` for x ``(B, n)``."""
        return _product(self.values.A, self.entries.A.on(x.device), x, self.structure.m)

    def detached(self) -> "Program":
        """The same numbers, off the tape."""
        return Program(self.entries, self.values.detached(), self.batch)

    def take(self, index: Tensor) -> "Program":
        """Keep the instances ``index`` ``(b,)``; what is shared stays shared."""
        return Program(self.entries, self.values.take(index), len(index))


def _product(values: Tensor, places: Tensor, v: Tensor, size: int) -> Tensor:
    """The product of matrices of entries ``(1|B, nnz)`` at ``places`` ``(2, nnz)`` with v ``(B, ·)``."""
    rows, columns = places
    if not len(rows):
        return v.new_zeros(len(v), size)
    if len(values) == 1 and not is_near(values):  # a sparse matrix would be sorted, and waited for
        place = (rows * v.shape[1] + columns).unsqueeze(0)
        dense = values.new_zeros(1, size * v.shape[1]).scatter_add(1, place, values)
        return v @ dense.view(size, v.shape[1]).mT
    if len(values) == len(v) == 1:  # adding up as it goes takes a tenth of a sparse matrix's time
        terms = values.squeeze(0) * v.squeeze(0).index_select(0, columns)
        return v.new_zeros(size).index_add(0, rows, terms).unsqueeze(0)
    if len(values) == 1:
        matrix = torch.sparse_coo_tensor(
            places, values[0], (size, v.shape[1]), check_invariants=False, device=values.device
        )
        return torch.sparse.mm(matrix, v.mT).mT
    terms = values * at(v, columns)
    return v.new_zeros(len(v), size).scatter_add(1, rows.expand_as(terms), terms)
