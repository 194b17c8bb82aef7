"""Certificates of infeasibility and unboundedness, read off the steps of the iteration.

Where there is no solution, u − F(u) tends to the smallest displacement of F, and the steps δx and δy
between iterates to certificates (Banjac, Goulart, Stellato and Boyd, "Infeasibility detection in the
alternating direction method of multipliers for convex optimization", 2019). SCS's definitions:

    primal infeasible   δy ∈ K*,  bᵀδy = −1,  ‖Aᵀδy‖ ≤ ε
    unbounded           qᵀδx = −1,  ‖Pδx‖ ≤ ε,  ‖Aδx + δs‖ ≤ ε  with δs ∈ K

where q and b are divided by their largest entry, so that the size of the data does not decide.
"""

import torch
from torch import Tensor

from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import infinity_norm

_ROUNDING = 1e-14  # relative to the terms that are added up
_OUT_OF_REACH = 1e12  # relative to the size of q and b


def infeasibility(program: ConeProgram, scaling: Scaling, dy: Tensor) -> Tensor:
    """The residual of ``dy`` ``(B, m)``, projected onto K*, as a proof that nothing is feasible.

    Args:
        program: equilibrated. scaling: how.
        dy: in its units, of any length.

    Returns:
        ‖Aᵀδy‖ where bᵀδy = −1, ``(B,)``; infinite where bᵀδy ≥ 0, or is rounding, which proves nothing.
    """
    dy = dy + program.cone.project(-dy)
    return _ratio(infinity_norm(program.A.rmv(dy) / scaling.columns), -_product(program.b, dy))


def unboundedness(program: ConeProgram, scaling: Scaling, dx: Tensor) -> Tensor:
    """The residual of ``dx`` ``(B, n)`` as a direction along which a feasible objective falls forever.

    Args:
        program: equilibrated. scaling: how.
        dx: in its units, of any length.

    Returns:
        That of :func:`recession`; infinite too where the objective has a minimum along dx that is in reach.
    """
    # That minimum, at −qᵀdx/dxᵀPdx, must be out of reach and not only far: beside the data, and beside
    # ‖q‖/‖P‖, since a P that is small as a whole makes all solutions large.
    curvature, P = (dx * program.P.mv(dx)).sum(-1), infinity_norm(program.P.values.flatten(1))
    reach = torch.where(P > 0, infinity_norm(program.q) / P, 0.0).clamp_min(1.0)
    far = dx.norm(dim=-1) * -_product(program.q, dx) >= _OUT_OF_REACH * reach * curvature
    return torch.where(far, recession(program, scaling, dx), torch.inf)


def recession(program: ConeProgram, scaling: Scaling, dx: Tensor) -> Tensor:
    """The larger of ‖Pδx‖ and ‖Aδx + δs‖ where qᵀδx = −1, ``(B,)``; infinite where qᵀδx ≥ 0.

    Args:
        program: equilibrated. scaling: how.
        dx: in its units, of any length, ``(B, n)``.
    """
    Adx, Pdx = program.A.mv(dx), program.P.mv(dx)
    outside = infinity_norm((Adx + program.cone.project(-Adx)) / scaling.rows)
    curvature = infinity_norm(Pdx / scaling.columns)
    return _ratio(torch.maximum(outside, curvature), -_product(program.q, dx))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀb, ``(B,)``; zero where it is what rounding leaves of terms that cancel."""
    terms = a * b
    product, size = terms.sum(-1), terms.abs().sum(-1)
    return torch.where(product.abs() > _ROUNDING * size, product, 0.0)


def _ratio(violation: Tensor, gain: Tensor) -> Tensor:
    tiny = torch.finfo(gain.dtype).tiny
    return torch.where(gain > 0, violation / gain.clamp_min(tiny), torch.inf)
