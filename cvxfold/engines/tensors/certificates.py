"""Certificates of infeasibility and unboundedness, read off the steps of the iteration.

Where there is no solution, u − F(u) tends to the smallest displacement of F, and the steps δx and δy
between iterates to certificates (Banjac, Goulart, Stellato and Boyd, "Infeasibility detection in the
alternating direction method of multipliers for convex optimization", 2019). SCS's definitions:

    primal infeasible   δy ∈ K*,  bᵀδy = −1,  ‖Aᵀδy‖ ≤ ε
    unbounded           qᵀδx = −1,  ‖Pδx‖ ≤ ε,  ‖Aδx + δs‖ ≤ ε  with δs ∈ K

where q and b are divided by their largest entry, so that the size of the data does not decide. Nor may the
size of A: 10⁻¹² x ≥ 1 has δy = 1 with Aᵀδy = 10⁻¹², which proves no more than that x ≥ 10¹². So what is left
counts beside what the entries of A on its row or column make of b or q as well, the natural sizes

    of x    X_i = max_j |b_j|/|A_ji|        Σ |Aᵀδy|_i X_i ≪ |bᵀδy|
    of y    Y_j = max_i |q_i|/|A_ji|        Σ |Aδx + δs|_j Y_j ≪ |qᵀδx|

over the rows j and columns i that carry bᵀδy and qᵀδx, beyond rounding and up to a billionth.
"""

import torch
from torch import Tensor

from cvxfold.cones import largest_of_block
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import infinity_norm

_ROUNDING = 1e-14  # relative to the terms that are added up
_CANCELLED = 1e-13  # likewise, of an entry of Aᵀδy or Aδx
_MUCH = 1e-3  # of the largest term of bᵀδy or qᵀδx
_NO_ENTRY = 1e-15  # of the largest entry of A
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


def excludes_all(program: ConeProgram, dy: Tensor) -> Tensor:
    """What ``dy`` ``(b, m)`` leaves of Aᵀδy = 0 times the natural sizes of x, where bᵀδy = −1; ``(b,)``.

    Args:
        program: of these instances, equilibrated.
        dy: in its units, of any length; projected onto K*.
    """
    dy, A = dy + program.cone.project(-dy), program.A.values
    natural = _over_entries(_carrying(program.b, dy).unsqueeze(-1), A, -2)
    left, terms = program.A.rmv(dy).abs(), program.A.absolute().rmv(dy.abs())
    left = torch.where(left <= _CANCELLED * terms, 0.0, left)
    return _ratio((left * natural).sum(-1), -_product(program.b, dy))


def falls_forever(program: ConeProgram, dx: Tensor) -> Tensor:
    """What ``dx`` ``(b, n)`` leaves of Aδx + δs = 0 times the natural sizes of y, where qᵀδx = −1; ``(b,)``.

    Args:
        program: of these instances, equilibrated.
        dx: in its units, of any length.
    """
    A, cone, Adx = program.A.values, program.cone, program.A.mv(dx)
    natural = largest_of_block(_over_entries(_carrying(program.q, dx).unsqueeze(-2), A, -1), cone)
    left, terms = (Adx + cone.project(-Adx)).abs(), program.A.absolute().mv(dx.abs())
    left = torch.where(left <= _CANCELLED * largest_of_block(terms, cone), 0.0, left)
    return _ratio((left * natural).sum(-1), -_product(program.q, dx))


def _carrying(a: Tensor, d: Tensor) -> Tensor:
    """|a| ``(b, ·)`` where its terms are much of aᵀd, zero elsewhere."""
    terms = (a * d).abs()
    return torch.where(terms >= _MUCH * infinity_norm(terms).unsqueeze(-1), a.abs(), 0.0)


def _over_entries(sizes: Tensor, A: Tensor, dim: int) -> Tensor:
    """The largest of ``sizes`` over A's entries that are more than rounding, along ``dim``; 0 without any."""
    least = _NO_ENTRY * infinity_norm(A.flatten(1)).view(-1, 1, 1)
    found = torch.where(A.abs() <= least, 0.0, sizes / A.abs())
    return found.amax(dim) if found.shape[dim] else found.sum(dim)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀb, ``(B,)``; zero where it is what rounding leaves of terms that cancel."""
    terms = a * b
    product, size = terms.sum(-1), terms.abs().sum(-1)
    return torch.where(product.abs() > _ROUNDING * size, product, 0.0)


def _ratio(violation: Tensor, gain: Tensor) -> Tensor:
    tiny = torch.finfo(gain.dtype).tiny
    return torch.where(gain > 0, violation / gain.clamp_min(tiny), torch.inf)
