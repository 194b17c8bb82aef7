"""The equations of an adjoint without M, and steps towards their solution by the factor of the finish.

An adjoint (p, v) satisfies, with z = R (Ap − ȳ) and D = DΠ_K(u),

    P p + Aᵀv = x̄            D v = (I − D) z

It is made of w with (I − Φᵀ) w = ū by M⁻¹, to the digits that w and M⁻¹ have: entries that are small beside
others, those of p at the vertex of a linear program above all, which are 0, lose theirs where rows and
columns are of many sizes. Residuals r₁ and r₂ of the two equations keep to the terms of a row, and a step

    (P + AᵀWA) δp = r₁ − Aᵀ(D + δI)⁻¹ r₂            (D + δI) δv = r₂ + (I − D) R A δp

leaves δ of them.
"""

import torch
from torch import Tensor

from cvxfold.engines.tensors.jacobian import FactoredJacobian

_SOLVED = 1e-10  # of both equations' largest terms: an adjoint that is solved for, up to small entries
_STEPS = 2
_SMALL = 1e-6  # of v and RAp, at most, is a correction; what is more is another solution


def refined_adjoint(
    jacobian: FactoredJacobian, p: Tensor, v: Tensor, on_x: Tensor, on_y: Tensor
) -> tuple[Tensor, Tensor]:
    """p ``(B, n)`` and v ``(B, m)`` after steps where they are solved for, without a wait for a device.

    Args:
        jacobian: at the solutions.
        on_x: x̄, ``(B, n)``. on_y: ȳ, ``(B, m)``.
    """
    A, R = jacobian.splitting.program.A, jacobian.splitting.R
    size = _SMALL * torch.maximum(v.norm(dim=-1), (R * A.mv(p)).norm(dim=-1))
    solved = is_solved(jacobian, p, v, on_x, on_y)
    for _ in range(_STEPS):
        dp, dv = step(jacobian, *left(jacobian, p, v, on_x, on_y))
        small = ((R * A.mv(dp)).norm(dim=-1) <= size) & (dv.norm(dim=-1) <= size)
        kept = (solved & small).unsqueeze(-1)
        p, v = torch.where(kept, p + dp, p), torch.where(kept, v + dv, v)
    return p, v


def left(
    jacobian: FactoredJacobian, p: Tensor, v: Tensor, on_x: Tensor, on_y: Tensor
) -> tuple[Tensor, Tensor]:
    """r₁ ``(B, n)`` and r₂ ``(B, m)``."""
    program, R, D = jacobian.splitting.program, jacobian.splitting.R, jacobian.D
    z = R * (program.A.mv(p) - on_y)
    return on_x - program.P.mv(p) - program.A.rmv(v), D.violation(z, v)


def step(jacobian: FactoredJacobian, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """δp and δv for r₁ and r₂."""
    program, R, D = jacobian.splitting.program, jacobian.splitting.R, jacobian.D
    dp = jacobian.factor.solve(first - program.A.rmv(jacobian.regularized_inverse(second)))
    return dp, jacobian.regularized_inverse(second + D.apply(lambda d: 1 - d, R * program.A.mv(dp)))


def is_solved(jacobian: FactoredJacobian, p: Tensor, v: Tensor, on_x: Tensor, on_y: Tensor) -> Tensor:
    """Where both equations are solved for beside their largest terms, ``(B,)``."""
    program, R = jacobian.splitting.program, jacobian.splitting.R
    first, second = left(jacobian, p, v, on_x, on_y)
    of_first = torch.maximum(on_x.norm(dim=-1), program.A.rmv(v).norm(dim=-1))
    of_second = torch.maximum(v.norm(dim=-1), (R * on_y).norm(dim=-1))
    return (first.norm(dim=-1) <= _SOLVED * of_first) & (second.norm(dim=-1) <= _SOLVED * of_second)
