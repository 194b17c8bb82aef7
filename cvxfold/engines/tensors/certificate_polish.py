"""Newton steps that turn an approximate certificate into an accurate one.

A certificate is a zero of a convex function on a plane, in the units of the equilibrated program:

    unbounded     f(δx) = ½ ‖P δx‖² + ½ dist(−A δx, K)²     on  qᵀδx = −1
    infeasible    f(δy) = ½ ‖Aᵀδy‖² + ½ dist(δy, K*)²       on  bᵀδy = −1

With r = Aδx + Π_K(−Aδx), D = DΠ_K(−Aδx) and likewise D = DΠ_K(−δy), by Moreau's decomposition,

    ∇f = P²δx + Aᵀr,            H = P² + Aᵀ(I − D)A
    ∇f = AAᵀδy − Π_K(−δy),      H = AAᵀ + D

and a step along the plane is δ = −H⁻¹(∇f + λ c) with cᵀδ = 0 for c = q or b. A small multiple of I, as a
proximal term about the last iterate, makes H regular and leaves the zero where it is.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cvxfold.deadline import NEVER, Deadline
from cvxfold.engines.linear.cholesky import Cholesky
from cvxfold.engines.tensors.program import ConeProgram

_STEPS = 25
_PROXIMAL = 1e-9  # of the largest diagonal entry of H


def polished_ray(program: ConeProgram, dx: Tensor, deadline: Deadline = NEVER) -> Tensor:
    """A direction of unboundedness near ``dx`` ``(B, n)``, where that has qᵀδx < 0, before a deadline."""
    A, P, cone = program.A, program.P, program.cone

    def system(dx: Tensor) -> tuple[Tensor, Tensor]:
        Adx = A.mv(dx)
        D = cone.derivative(-Adx)
        gradient = P.mv(P.mv(dx)) + A.rmv(Adx + cone.project(-Adx))
        outside = D.apply(lambda d: 1 - d, A.values.expand(len(dx), -1, -1))
        return gradient, P.values @ P.values + A.values.mT @ outside

    return _descend(system, dx, program.q, deadline)


def polished_multiplier(program: ConeProgram, dy: Tensor, deadline: Deadline = NEVER) -> Tensor:
    """A proof of infeasibility near ``dy`` ``(B, m)``, where that has bᵀδy < 0, before a deadline."""
    A, cone = program.A, program.cone

    def system(dy: Tensor) -> tuple[Tensor, Tensor]:
        D = cone.derivative(-dy)
        gradient = A.mv(A.rmv(dy)) - cone.project(-dy)
        unit = torch.eye(dy.shape[1], dtype=dy.dtype, device=dy.device).expand(len(dy), -1, -1)
        return gradient, A.values @ A.values.mT + D.apply(lambda d: d, unit)

    return _descend(system, dy, program.b, deadline)


def _descend(
    system: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, c: Tensor, deadline: Deadline
) -> Tensor:
    """Newton steps on the plane cᵀz = −1; the iterate with the smallest gradient for its length."""
    slope = -(c * start).sum(-1, keepdim=True)
    z = start / torch.where(slope > 0, slope, torch.ones_like(slope))
    best, smallest = z, z.new_full((len(z), 1), torch.inf)
    for _ in range(_STEPS):
        if deadline.passed:
            break
        gradient, H = system(z)
        size = gradient.norm(dim=-1, keepdim=True)
        better = size < smallest
        best, smallest = torch.where(better, z, best), torch.where(better, size, smallest)
        diagonal = H.diagonal(dim1=-2, dim2=-1)
        shift = _PROXIMAL * diagonal.amax(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        factor = Cholesky.factor(H + torch.diag_embed(shift.expand_as(diagonal)))
        step, toward = factor.solve(gradient), factor.solve(c.expand_as(gradient))
        curvature = (c * toward).sum(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        step = (c * step).sum(-1, keepdim=True) / curvature * toward - step
        z = torch.where(step.isfinite().all(-1, keepdim=True), z + step, z)
    return torch.where(slope > 0, best, start)
