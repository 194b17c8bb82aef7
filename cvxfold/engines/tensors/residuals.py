"""The residuals of the optimality conditions, in SCS's definitions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.outcome import Residuals
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.program import ConeProgram

_ROUNDING = 1e-15  # relative to the terms that are added up


@dataclass(frozen=True)
class MeasuredResiduals:
    """Violations of the optimality conditions and the sizes they are measured against, each ``(B,)``.

    The definitions are those of SCS (O'Donoghue, "Operator splitting for a homogeneous embedding of the
    linear complementarity problem", 2021, section 4): with infinity norms,

        primal  ‖Ax + s − b‖           against  max(‖Ax‖, ‖s‖, ‖b‖)
        dual    ‖Px + q + Aᵀy‖         against  max(‖Px‖, ‖Aᵀy‖, ‖q‖)
        gap     |xᵀPx + qᵀx + bᵀy|     against  max(|xᵀPx|, |qᵀx|, |bᵀy|)

    ``size`` is the size of the data q and b of an instance.
    """

    primal: Tensor
    dual: Tensor
    gap: Tensor
    primal_scale: Tensor
    dual_scale: Tensor
    gap_scale: Tensor
    size: Tensor

    def within(self, eps_abs: float, eps_rel: float) -> Tensor:
        """Which instances satisfy all three, each to eps_abs + eps_rel · size; ``(B,)``. NaN does not."""
        return torch.stack(self.each_within(eps_abs, eps_rel)).all(0)

    def each_within(self, eps_abs: float, eps_rel: float) -> tuple[Tensor, Tensor, Tensor]:
        """Which instances satisfy the first, the second and the third of them, each ``(B,)``."""
        return (
            self.primal <= eps_abs + eps_rel * self.primal_scale,
            self.dual <= eps_abs + eps_rel * self.dual_scale,
            self.gap <= eps_abs + eps_rel * self.gap_scale,
        )

    def outcome(self) -> Residuals:
        """What a solution tells of them."""
        return Residuals(self.primal, self.dual, self.gap, self.worst())

    def worst(self) -> Tensor:
        """The largest of the three, each relative to what it is measured against; ``(B,)``.

        Unlike :meth:`within` it does not change where q and b are multiplied by a number.
        """
        ratios = (
            self.primal / (self.size + self.primal_scale),
            self.dual / (self.size + self.dual_scale),
            self.gap / (self.size.square() + self.gap_scale),
        )
        return torch.stack(ratios).amax(0)


def residuals(program: ConeProgram, scaling: Scaling, x: Tensor, s: Tensor, y: Tensor) -> MeasuredResiduals:
    """Residuals of a point of an equilibrated program, in the units of the original one.

    Args:
        program: equilibrated. scaling: how.
        x: ``(B, n)``, in the equilibrated program's units.
        s: ``(B, m)``, likewise.
        y: ``(B, m)``, likewise.
    """
    columns, rows, size = scaling.columns, scaling.rows, scaling.size
    Px, Aty, Ax = program.P.mv(x), program.A.rmv(y), program.A.mv(x)
    quadratic, linear, support = (x * Px).sum(-1), (program.q * x).sum(-1), (program.b * y).sum(-1)
    return MeasuredResiduals(
        primal=size * infinity_norm((Ax + s - program.b) / rows),
        dual=size * infinity_norm((Px + program.q + Aty) / columns),
        gap=size.square() * (quadratic + linear + support).abs(),
        primal_scale=size * _largest(Ax / rows, s / rows, program.b / rows),
        dual_scale=size * _largest(Px / columns, Aty / columns, program.q / columns),
        gap_scale=size.square() * torch.stack([quadratic.abs(), linear.abs(), support.abs()]).amax(0),
        size=size,
    )


def terms(program: ConeProgram, x: Tensor, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The sizes of what is added up in the primal residual, ``(B, m)``, and in the dual one, ``(B, n)``.

    They are |A||x| + |s| + |b| and |P||x| + |A|ᵀ|y| + |q|. A residual over them is a backward error (Oettli
    and Prager, "Compatibility of approximate solution of linear equations with given error bounds for
    coefficients and right-hand sides", 1964). Where terms cancel, the sums that SCS measures against are
    smaller: with x₁ = −x₂ = 10⁶ and A = [1 1], Ax is zero and its rounding error 10⁻¹⁰.
    """
    P, A = Matrix(program.P.values.abs()), Matrix(program.A.values.abs())
    x, y = x.abs(), y.abs()
    return A.mv(x) + s.abs() + program.b.abs(), P.mv(x) + A.rmv(y) + program.q.abs()


def at_rounding(
    program: ConeProgram, scaling: Scaling, x: Tensor, s: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether primal and dual residuals are what rounding leaves of their terms; each ``(B,)``.

    Takes what :func:`residuals` does.
    """
    primal, dual = terms(program, x, s, y)
    g = program.A.mv(x) + s - program.b
    h = program.P.mv(x) + program.q + program.A.rmv(y)
    rows, columns = scaling.rows, scaling.columns
    return (
        infinity_norm(g / rows) <= _ROUNDING * infinity_norm(primal / rows),
        infinity_norm(h / columns) <= _ROUNDING * infinity_norm(dual / columns),
    )


def infinity_norm(v: Tensor) -> Tensor:
    """Of each instance's vector, ``(B,)``; zero where it has no entries."""
    return v.abs().amax(-1) if v.shape[-1] else v.new_zeros(v.shape[0])


def _largest(*vectors: Tensor) -> Tensor:
    return torch.stack([infinity_norm(v) for v in vectors]).amax(0)
