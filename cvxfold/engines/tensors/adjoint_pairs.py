"""Adjoints to their own digits where a second-order cone makes some of their entries small.

Along the unit eigenvector c = (1, −ẑ)/√2 of D with eigenvalue 0 the second equation of an adjoint, as
:mod:`cvxfold.engines.tensors.adjoint_equations` has them, is cᵀz = 0. As in
:mod:`cvxfold.engines.tensors.pairs` it may be what fixes an entry of p that is small beside the others, and
beside what rounding leaves of all other equations. There steps follow for what that one leaves alone, the
rest being solved for: r₁ = 0 and r₂ = c cᵀz.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.cones.second_order import SecondOrder, SecondOrderDerivative
from cvxfold.engines.tensors.adjoint_equations import ReducedAdjoint, is_solved, step
from cvxfold.engines.tensors.jacobian import FactoredJacobian

_EXACT = 1e-10  # of the terms of the equation along c
_STEPS = 3


def mended_adjoint(jacobian: FactoredJacobian, of: ReducedAdjoint) -> ReducedAdjoint:
    """The adjoints, corrected where they are solved for but not beside their own terms.

    Args:
        jacobian: at the solutions.
    """
    if not jacobian.splitting.program.cone.dims.second_order:
        return of
    for turn in range(_STEPS):
        left = _left(jacobian, of.p, of.on_y)
        off = left.any(-1)
        rows = places(off if turn else off & is_solved(jacobian, of))
        if not len(rows):
            break
        dp, dv = _step(jacobian.take(rows), left[rows])
        of = replace(of, p=of.p.index_add(0, rows, dp), v=of.v.index_add(0, rows, dv))
    return of


def _left(jacobian: FactoredJacobian, p: Tensor, on_y: Tensor) -> Tensor:
    """r₂, ``(B, m)``: zero where the equation along c is solved for beside its own terms."""
    splitting, left = jacobian.splitting, torch.zeros_like(on_y)
    A, R, tiny = splitting.program.A.values, splitting.R, torch.finfo(p.dtype).tiny
    for (rows, cone), (_, D) in zip(splitting.program.cone.parts, jacobian.D.parts, strict=True):
        if not isinstance(cone, SecondOrder) or not isinstance(D, SecondOrderDerivative) or cone.size < 2:
            continue
        c = torch.cat([torch.ones_like(D.direction[..., :1]), -D.direction], -1)
        blocks = A[:, rows].reshape(len(A), cone.cones, cone.size, A.shape[-1])
        along = (c.unsqueeze(-1) * blocks).sum(2) * p.unsqueeze(1)
        by_y = (c * on_y[:, rows].reshape(c.shape)).sum(-1)
        rest, own = along.sum(-1) - by_y, along.abs().sum(-1) + by_y.abs()
        between = (D.eigenvalues[..., 0] == 1) & (D.eigenvalues[..., 1] == 0)
        rest = torch.where(between & (rest.abs() > _EXACT * own.clamp_min(tiny)), rest, 0.0)
        left[:, rows] = 0.5 * R[:, rows] * (c * rest.unsqueeze(-1)).flatten(1)
    return left


def _step(jacobian: FactoredJacobian, left: Tensor) -> tuple[Tensor, Tensor]:
    """δp and δv for r₂; what is not finite is none."""
    nothing = left.new_zeros(len(left), jacobian.splitting.program.A.values.shape[-1])
    dp, dv = step(jacobian, nothing, left)
    sound = (dp.isfinite().all(-1) & dv.isfinite().all(-1)).unsqueeze(-1)
    return torch.where(sound, dp, 0.0), torch.where(sound, dv, 0.0)
