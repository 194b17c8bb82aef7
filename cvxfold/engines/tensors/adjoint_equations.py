"""The equations of an adjoint without M, and steps towards their solution by the factor of the finish.

An adjoint (p, v) satisfies, with z = R (Ap − ȳ) and D = DΠ_K(u),

    P p + Aᵀv = x̄            D v = (I − D) z

It is made of w with (I − Φᵀ) w = ū by M⁻¹, to the digits that w and M⁻¹ have: entries that are small beside
others, those of p at the vertex of a linear program above all, which are 0, lose theirs where rows and
columns are of many sizes. Residuals r₁ and r₂ of the two equations keep to the terms of a row, and a step

    (P + AᵀWA) δp = r₁ − Aᵀ(D + δI)⁻¹ r₂            (D + δI) δv = r₂ + (I − D) R A δp

leaves δ of them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.engines.tensors.jacobian import FactoredJacobian

_SOLVED = 1e-10  # of both equations' largest terms: an adjoint that is solved for, up to small entries
_STEPS = 2
_SMALL = 1e-6  # of v and RAp, at most, is a correction; what is more is another solution


@dataclass(frozen=True)
class ReducedAdjoint(Batched):
    """An adjoint of the reduced, equilibrated program.

    Args:
        p: ``(B, n')``. v: ``(B, m')``.
        on_x: x̄, ``(B, n')``. on_y: ȳ, ``(B, m')``: the loss gradients that it answers.
    """

    p: Tensor
    v: Tensor
    on_x: Tensor
    on_y: Tensor


def refined_adjoint(jacobian: FactoredJacobian, of: ReducedAdjoint) -> ReducedAdjoint:
    """The adjoints after steps where they are solved for, without a wait for a device.

    Args:
        jacobian: at the solutions. of: what w gives.
    """
    A, R = jacobian.splitting.program.A, jacobian.splitting.R
    size = _SMALL * torch.maximum(of.v.norm(dim=-1), (R * A.mv(of.p)).norm(dim=-1))
    solved = is_solved(jacobian, of)
    for _ in range(_STEPS):
        dp, dv = step(jacobian, *left(jacobian, of))
        small = ((R * A.mv(dp)).norm(dim=-1) <= size) & (dv.norm(dim=-1) <= size)
        kept = (solved & small).unsqueeze(-1)
        of = replace(of, p=torch.where(kept, of.p + dp, of.p), v=torch.where(kept, of.v + dv, of.v))
    return of


def left(jacobian: FactoredJacobian, of: ReducedAdjoint) -> tuple[Tensor, Tensor]:
    """r₁ ``(B, n')`` and r₂ ``(B, m')``."""
    program, R, D = jacobian.splitting.program, jacobian.splitting.R, jacobian.D
    z = R * (program.A.mv(of.p) - of.on_y)
    return of.on_x - program.P.mv(of.p) - program.A.rmv(of.v), D.violation(z, of.v)


def step(jacobian: FactoredJacobian, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """δp and δv for r₁ and r₂."""
    program, R, D = jacobian.splitting.program, jacobian.splitting.R, jacobian.D
    dp = jacobian.factor.solve(first - program.A.rmv(jacobian.regularized_inverse(second)))
    return dp, jacobian.regularized_inverse(second + D.apply(lambda d: 1 - d, R * program.A.mv(dp)))


def is_solved(jacobian: FactoredJacobian, of: ReducedAdjoint) -> Tensor:
    """Where both equations are solved for beside their largest terms, ``(B,)``."""
    program, R = jacobian.splitting.program, jacobian.splitting.R
    first, second = left(jacobian, of)
    of_first = torch.maximum(of.on_x.norm(dim=-1), program.A.rmv(of.v).norm(dim=-1))
    of_second = torch.maximum(of.v.norm(dim=-1), (R * of.on_y).norm(dim=-1))
    return (first.norm(dim=-1) <= _SOLVED * of_first) & (second.norm(dim=-1) <= _SOLVED * of_second)
