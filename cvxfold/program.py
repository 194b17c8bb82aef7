"""The batched cone program and the residuals of its optimality conditions.

minimize    ½ xᵀP x + qᵀx
subject to  A x + s = b,   s ∈ K
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.cones import ProductCone
from cvxfold.linear.gram import InequalityGram
from cvxfold.linear.matrix import Matrix


@dataclass(frozen=True)
class ConeProgram:
    """A batch of cone programs over one cone.

    Args:
        P: n × n, symmetric. A: m × n. Each shared by the batch or per instance.
        q: ``(B, n)``. b: ``(B, m)``.
        cone: K.
        gram: forms AᵀWA over the inequality rows.
    """

    P: Matrix
    q: Tensor
    A: Matrix
    b: Tensor
    cone: ProductCone
    gram: InequalityGram

    @property
    def batch(self) -> int:
        """B."""
        return self.q.shape[0]

    def take(self, index: Tensor) -> "ConeProgram":
        """Keep the instances ``index`` ``(b,)``."""
        return ConeProgram(
            self.P.take(index), self.q[index], self.A.take(index), self.b[index], self.cone, self.gram
        )


@dataclass(frozen=True)
class Residuals:
    """Violations of the optimality conditions and the sizes they are measured against, each ``(B,)``.

    The definitions are those of SCS (O'Donoghue, "Operator splitting for a homogeneous embedding of the
    linear complementarity problem", 2021, section 4): with infinity norms,

        primal  ‖Ax + s − b‖           against  max(‖Ax‖, ‖s‖, ‖b‖)
        dual    ‖Px + q + Aᵀy‖         against  max(‖Px‖, ‖Aᵀy‖, ‖q‖)
        gap     |xᵀPx + qᵀx + bᵀy|     against  max(|xᵀPx|, |qᵀx|, |bᵀy|)
    """

    primal: Tensor
    dual: Tensor
    gap: Tensor
    primal_scale: Tensor
    dual_scale: Tensor
    gap_scale: Tensor

    def within(self, eps_abs: float, eps_rel: float) -> Tensor:
        """Which instances satisfy all three, each to eps_abs + eps_rel · size; ``(B,)``. NaN does not."""
        return (
            (self.primal <= eps_abs + eps_rel * self.primal_scale)
            & (self.dual <= eps_abs + eps_rel * self.dual_scale)
            & (self.gap <= eps_abs + eps_rel * self.gap_scale)
        )

    def worst(self) -> Tensor:
        """The largest of the three, each relative to 1 + its size; ``(B,)``."""
        ratios = (
            self.primal / (1 + self.primal_scale),
            self.dual / (1 + self.dual_scale),
            self.gap / (1 + self.gap_scale),
        )
        return torch.stack(ratios).amax(0)


def residuals(
    program: ConeProgram, x: Tensor, s: Tensor, y: Tensor, columns: Tensor, rows: Tensor
) -> Residuals:
    """Residuals of a point of an equilibrated program, in the units of the original one.

    Args:
        program: with data D P D, D q, E A D, E b.
        x: ``(B, n)``. s, y: ``(B, m)``, in the equilibrated program's units.
        columns: the diagonal of D, ``(1|B, n)``.
        rows: the diagonal of E, ``(1|B, m)``.
    """
    Px, Aty, Ax = program.P.mv(x), program.A.rmv(y), program.A.mv(x)
    quadratic, linear, support = (x * Px).sum(-1), (program.q * x).sum(-1), (program.b * y).sum(-1)
    return Residuals(
        primal=_norm((Ax + s - program.b) / rows),
        dual=_norm((Px + program.q + Aty) / columns),
        gap=(quadratic + linear + support).abs(),
        primal_scale=_largest(Ax / rows, s / rows, program.b / rows),
        dual_scale=_largest(Px / columns, Aty / columns, program.q / columns),
        gap_scale=torch.stack([quadratic.abs(), linear.abs(), support.abs()]).amax(0),
    )


def _norm(v: Tensor) -> Tensor:
    return v.abs().amax(-1) if v.shape[-1] else v.new_zeros(v.shape[0])


def _largest(*vectors: Tensor) -> Tensor:
    return torch.stack([_norm(v) for v in vectors]).amax(0)
