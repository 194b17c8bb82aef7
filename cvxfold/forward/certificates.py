"""Certificates of infeasibility and unboundedness, read off the steps of the iteration.

Where there is no solution, u − F(u) tends to the smallest displacement of F, and the steps δx and δy
between iterates to certificates (Banjac, Goulart, Stellato and Boyd, "Infeasibility detection in the
alternating direction method of multipliers for convex optimization", 2019). SCS's definitions:

    primal infeasible   δy ∈ K*,  bᵀδy = −1,  ‖Aᵀδy‖ ≤ ε
    unbounded           qᵀδx = −1,  ‖Pδx‖ ≤ ε,  ‖Aδx + δs‖ ≤ ε  with δs ∈ K
"""

from torch import Tensor

from cvxfold.forward.scaling import Scaling
from cvxfold.program import ConeProgram

_OUT_OF_REACH = 1e12  # relative to the size of q and b


def certifies_infeasibility(program: ConeProgram, scaling: Scaling, dy: Tensor, eps: float) -> Tensor:
    """Whether ``dy`` ``(B, m)``, after projection onto K*, proves that nothing is feasible; ``(B,)``."""
    dy = dy + program.cone.project(-dy)
    support = (program.b * dy).sum(-1)
    return (support < 0) & (_norm(program.A.rmv(dy) / scaling.columns) <= -eps * support)


def certifies_unboundedness(program: ConeProgram, scaling: Scaling, dx: Tensor, eps: float) -> Tensor:
    """Whether ``dx`` ``(B, n)`` is a direction along which a feasible objective falls forever; ``(B,)``."""
    descent = (program.q * dx).sum(-1)
    Adx, Pdx = program.A.mv(dx), program.P.mv(dx)
    recession = _norm((Adx + program.cone.project(-Adx)) / scaling.rows)
    curvature = _norm(Pdx / scaling.columns)
    # The objective's minimum along dx, at −descent/dxᵀPdx, must be out of reach and not only far.
    endless = dx.norm(dim=-1) * -descent >= _OUT_OF_REACH * (dx * Pdx).sum(-1)
    return (descent < 0) & (recession <= -eps * descent) & (curvature <= -eps * descent) & endless


def _norm(v: Tensor) -> Tensor:
    return v.abs().amax(-1) if v.shape[-1] else v.new_zeros(v.shape[0])
