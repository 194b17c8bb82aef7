"""The residuals of the optimality conditions, in SCS's definitions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.outcome import Residuals
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.program import ConeProgram


@dataclass(frozen=True)
class MeasuredResiduals(Batched):
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

    def largest(self, eps_abs: float, eps_rel: float) -> Tensor:
        """What is held against max(eps_abs, eps_rel), ``(B,)``. NaN stays.

        It is within that exactly where each is at most eps_abs + eps_rel · size.
        """
        eps, tiny = max(eps_abs, eps_rel), torch.finfo(self.primal.dtype).tiny
        pairs = (
            (self.primal, self.primal_scale), (self.dual, self.dual_scale), (self.gap, self.gap_scale)
        )  # fmt: skip
        ratios = [eps * value / (eps_abs + eps_rel * scale).clamp_min(tiny) for value, scale in pairs]
        return torch.stack(ratios).amax(0)

    def within(self, eps_abs: float, eps_rel: float) -> Tensor:
        """Which instances satisfy all three, each to eps_abs + eps_rel · size; ``(B,)``. NaN does not."""
        return self.largest(eps_abs, eps_rel) <= max(eps_abs, eps_rel)

    def outcome(self, tested: Tensor) -> Residuals:
        """What a solution tells of them, with the number that was held against the tolerance, ``(B,)``."""
        return Residuals(self.primal, self.dual, self.gap, tested)

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


def infinity_norm(v: Tensor) -> Tensor:
    """Of each instance's vector, ``(B,)``; zero where it has no entries."""
    return v.abs().amax(-1) if v.shape[-1] else v.new_zeros(v.shape[0])


def _largest(*vectors: Tensor) -> Tensor:
    return torch.stack([infinity_norm(v) for v in vectors]).amax(0)
