"""The origin of x at bounds that are far and active.

Beside an entry of 1e9 those of 1 are rounding: to the sizes that residuals are measured against, to an
interior-point method, and to equilibration, as no scaling of rows and columns makes both b and q alike in
size. But where x is at a bound of 1e9, or beyond one that it has to be beyond, x' = x − x⁰ with x⁰ at that
bound is no larger than x, so that nothing is lost, and

    minimize    ½ x'ᵀP x' + (q + P x⁰)ᵀx'
    subject to  A x' + s = b − A x⁰,   s ∈ K

has the same s and y, with a zero where b had 1e9. Which far bounds are active is what a pass with bounds that
are brought near (:mod:`cvxfold.engines.tensors.far_bounds`) finds out.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.batches.records import Batched
from cvxfold.engines.outcome import Start
from cvxfold.engines.tensors.far_bounds import FAR_BEYOND, bounds_among
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.problem.index import Index, at
from cvxfold.problem.program import Program
from cvxfold.problem.structure import Structure


@dataclass(frozen=True)
class Origin(Batched):
    """Where the origin of x is, and what that makes of a program's vectors.

    Args:
        x: x⁰ ``(B, n)``, in the units of the problem. q, b: those about it, ``(B, n)`` and ``(B, m)``.
        at_bound: rows whose bound it is at, ``(B, m)``.
    """

    x: Tensor
    q: Tensor
    b: Tensor
    at_bound: Tensor

    def start(self, start: Start) -> Start:
        """A point of the program as it is given, about this origin."""
        return start if start.x is None else replace(start, x=start.x - self.x)

    def but_for(self, instances: Tensor, program: Program) -> "Origin":
        """The same, where the origin of ``instances`` ``(B,)`` is zero."""
        left = instances.unsqueeze(-1)
        return _about(program, self.x.masked_fill(left, 0.0), self.at_bound & ~left)


class Origins:
    """Finds origins for programs of one structure."""

    def __init__(self, structure: Structure) -> None:
        rows, columns = structure.A_entries
        bounds = bounds_among(structure.A_entries, structure.cones).array
        entry_of_row = np.zeros(structure.cones.rows, dtype=np.int64)
        entry_of_row[rows] = np.arange(len(rows))
        self._rows = Index(bounds)
        self._entries = Index(entry_of_row[bounds])
        self._columns = Index(columns[entry_of_row[bounds]])

    def at(self, program: Program, active: Tensor, before: Origin | None = None) -> Origin | None:
        """That at the bounds of the rows ``active`` ``(B, m)``; None where they are none.

        Args:
            before: where it was.
        """
        if not len(self._rows):
            return None
        rows, columns = self._rows.on(active.device), self._columns.on(active.device)
        a = at(program.values.A, self._entries.on(active.device))
        meant = at(active, rows) & (a != 0)
        if not meant.any():
            return None
        bound = at(program.right_hand_side, rows) / a
        count = torch.zeros_like(active, dtype=a.dtype)[:, :1].expand(-1, program.structure.n).clone()
        x, count = (
            count.index_add(1, columns, torch.where(meant, value, 0.0))
            for value in (bound, torch.ones_like(bound))
        )
        x = torch.where(count > 0, x / count.clamp(min=1), 0.0 if before is None else before.x)
        of_active = torch.zeros_like(active).index_copy(1, rows, meant)
        if before is not None:
            moved_on = at((count > 0), columns)
            kept = torch.zeros_like(active).index_copy(1, rows, at(before.at_bound, rows) & ~moved_on)
            of_active = of_active | kept
        return _about(program, x, of_active)


def required(program: ConeProgram, bounds: Index) -> Tensor | None:
    """Rows that are bounds far from zero which x has to be beyond, ``(B, m')``; None where nothing is.

    Far is what is beyond 1e3 times all other b, and q where there is a P; of bounds alone, the nearest.

    Args:
        program: equilibrated. bounds: as :func:`bounds_among` has them.
    """
    b, q = program.b, program.q
    if not len(bounds) or not is_near(b):
        return None
    rows = bounds.on(b.device)
    own = at(b, rows).abs()
    if not (at(b, rows) < 0).any():  # mostly
        return None
    near = b.index_fill(1, rows, 0.0).abs().amax(-1).maximum(torch.where(program.linear, 0, q.abs().amax(-1)))
    nearest = own.masked_fill(own == 0, torch.inf).amin(-1)
    near = torch.where(near > 0, near, nearest).unsqueeze(-1)
    far = (at(b, rows) < -FAR_BEYOND * near) & near.isfinite()
    return torch.zeros_like(b, dtype=torch.bool).index_copy(1, rows, far) if far.any() else None


def _about(program: Program, x: Tensor, at_bound: Tensor) -> Origin:
    """The program about x⁰; the rows of bounds that it is at have no b left, whatever rounding says."""
    Px, _ = program.stationary(x, x.new_zeros(len(x), program.structure.m))
    b = (program.right_hand_side - program.rows(x)).masked_fill(at_bound, 0.0)
    return Origin(x, program.values.q + Px, b, at_bound)
