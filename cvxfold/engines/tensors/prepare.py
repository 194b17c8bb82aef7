"""What depends on P and A alone: presolve and equilibration, kept while their values stay the same."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.cones import ProductCone
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.reduction.presolve import Presolve, Reduced
from cvxfold.engines.reduction.scaling import Scaling, data_size, equilibrate
from cvxfold.engines.tensors.cost import root_of_scale, scaled_by
from cvxfold.engines.tensors.far_bounds import FAR_BEYOND, bounds_among, limit_of_bounds
from cvxfold.engines.tensors.gram import InequalityGram
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.problem.index import Index
from cvxfold.problem.structure import Structure


@dataclass(frozen=True)
class Prepared:
    """A reduced and equilibrated P and A.

    Args:
        P_values, A_values: the stored entries they were made from.
        reduced: the presolve.
        columns, rows: D and E, the equilibration of what it left.
        P, A: the equilibrated matrices. blocks: of rows that scale alike.
        cone: of the reduced program. gram: of its inequality rows. bounds: its rows that bound one variable.
        bare: whether the presolve was left out.
    """

    P_values: Tensor
    A_values: Tensor
    reduced: Reduced
    columns: Tensor
    rows: Tensor
    P: Matrix
    A: Matrix
    blocks: Tensor | None
    cone: ProductCone
    gram: InequalityGram
    bounds: Index
    bare: bool

    def fits(self, P_values: Tensor, A_values: Tensor, bare: bool) -> bool:
        """Whether it was made from these values, in this way."""
        pairs = ((self.P_values, P_values), (self.A_values, A_values))
        if bare != self.bare or any(old.device != new.device or old.shape != new.shape for old, new in pairs):
            return False
        others = [(old, new) for old, new in pairs if old is not new]  # constants are the same tensors
        if is_near(P_values):
            return all(torch.equal(old, new) for old, new in others)
        return not others or bool(torch.stack([(old == new).all() for old, new in others]).all())

    def program(self, q: Tensor, b: Tensor, batch: int) -> tuple[ConeProgram, Scaling]:
        """The reduced, equilibrated program for q ``(1|B, n)`` and b ``(1|B, m)`` of the original one."""
        q, b = self.reduced.vectors(q, b)
        q, b = (q * self.columns).expand(batch, -1), (b * self.rows).expand(batch, -1)
        P, A, columns, rows = self.P, self.A, self.columns, self.rows
        root, dims = None, self.cone.dims
        if not dims.exponential and not dims.power:  # F does not come far there, whatever the units
            limit = limit_of_bounds(P, q.detach(), b.detach(), self.bounds)
            rest = torch.where(b.detach() > limit, limit / FAR_BEYOND, b.detach())
            root = root_of_scale(Matrix(P.values.detach()), q.detach(), rest)
        if root is not None:
            P, A, D, E = scaled_by(root, P, A, self.blocks)
            q, b, columns, rows = q * D, b * E, columns * D, rows * E
        size = data_size(q.detach(), b.detach())
        program = ConeProgram(P, q / size.unsqueeze(-1), A, b / size.unsqueeze(-1), self.cone, self.gram)
        return program, Scaling(columns, rows, size)


class Preparation:
    """Makes :class:`Prepared` for programs of one structure.

    Args:
        structure: of the programs.
        bare: whether to leave out the presolve.

    Attributes:
        columns, rows: n' and m', what the presolve leaves.
    """

    def __init__(self, structure: Structure, bare: bool = False) -> None:
        self._bare = bare
        self._presolve = Presolve(structure, bare)
        dims = structure.cones.with_zero(self._presolve.equalities)
        self.columns, self.rows = self._presolve.columns, dims.rows
        self._cone = ProductCone(dims)
        self._gram = InequalityGram(self._presolve.A_places, dims, self._presolve.columns)
        self._bounds = bounds_among(self._presolve.A_places, dims)

    def prepare(self, P_values: Tensor, A_values: Tensor) -> Prepared:
        """Presolve and equilibrate; ``(1|B, nnz P)`` and ``(1|B, nnz A)``, float64."""
        reduced = self._presolve.reduce(P_values, A_values)
        columns, rows = equilibrate(reduced.P, reduced.A, self._blocks(P_values.device))
        return self._scaled(P_values, A_values, reduced, columns, rows)

    def on_tape(self, P_values: Tensor, A_values: Tensor, known: Prepared) -> Prepared:
        """The same as ``known``, differentiable in the values; the equilibration is a constant."""
        reduced = self._presolve.reduce(P_values, A_values)
        return self._scaled(P_values, A_values, reduced, known.columns, known.rows)

    def _scaled(
        self, P_values: Tensor, A_values: Tensor, reduced: Reduced, columns: Tensor, rows: Tensor
    ) -> Prepared:
        P = reduced.P.scale(columns, columns)
        A = reduced.A.scale(rows, columns)
        made_of = P_values, A_values, reduced, columns, rows, P, A, self._blocks(P_values.device)
        return Prepared(*made_of, self._cone, self._gram, self._bounds, self._bare)

    def _blocks(self, device: torch.device) -> Tensor | None:
        """The blocks of rows that scale alike, if there are any."""
        return self._cone.blocks(device) if self._cone.dims.blocks else None
