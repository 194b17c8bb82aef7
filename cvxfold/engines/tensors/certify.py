"""Which of the instances at work have no solution, as directions prove."""

from collections.abc import Callable

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.engines.outcome import INFEASIBLE, UNBOUNDED
from cvxfold.engines.tensors.batch import Batch
from cvxfold.engines.tensors.certificate_polish import polished_multiplier, polished_ray
from cvxfold.engines.tensors.certificates import (
    excludes_all,
    falls_forever,
    infeasibility,
    recession,
    unboundedness,
)
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import infinity_norm

_BY_SCALE = 1e-9  # of bᵀδy or qᵀδx, of what is left beside the natural sizes
_ROUNDING = 1e-13  # of the largest entry of x or R u, what a step of F may be off
_PROMISING = 10.0  # residual of a direction that may become a certificate


def certify(batch: Batch, dx: Tensor, dy: Tensor, claimed: Tensor | None = None) -> Tensor:
    """Retire the instances that a direction, ``(b, n')`` or ``(b, m')``, proves to have no solution.

    Args:
        claimed: statuses ``(b,)`` that another solver answers for, and so for the scale of its proofs; None
            where there is none.

    Returns:
        Positions of the instances that were at work and remain.
    """
    program, eps = batch.splitting.program, batch.settings.eps_infeasible
    primal = infeasibility(program, batch.scaling, dy)
    dual = unboundedness(program, batch.scaling, dx)
    infeasible = _by_scale(excludes_all, program, dy, primal <= eps)
    unbounded = _by_scale(falls_forever, program, dx, (dual <= eps) & ~infeasible)
    if claimed is not None:
        infeasible = infeasible | ((primal <= eps) & (claimed == INFEASIBLE))
        unbounded = unbounded | ((dual <= eps) & (claimed == UNBOUNDED))
    known = batch.settled.certificate
    known[batch.index] = torch.where(infeasible, primal, torch.where(unbounded, dual, known[batch.index]))
    kinds = torch.where(infeasible, INFEASIBLE, UNBOUNDED)
    return batch.retire(batch.point(), infeasible | unbounded, kinds)


def _by_scale(
    proof: Callable[[ConeProgram, Tensor], Tensor],
    program: ConeProgram,
    d: Tensor,
    claimed: Tensor,
) -> Tensor:
    """Those of ``claimed`` ``(b,)`` that the directions ``d`` ``(b, ·)`` prove whatever A's size."""
    rows = places(claimed)
    if not len(rows):
        return claimed
    proven = torch.zeros_like(claimed)
    proven[rows] = proof(program.take(rows), d[rows]) <= _BY_SCALE
    return proven


def certify_polished(batch: Batch, dx: Tensor, dy: Tensor) -> Tensor:
    """:func:`certify`, after Newton steps that make approximate certificates accurate."""
    program, scaling = batch.splitting.program, batch.scaling
    for residual, direction, polished in (
        (recession(program, scaling, dx), dx, polished_ray),
        (infeasibility(program, scaling, dy), dy, polished_multiplier),
    ):
        rows = places(residual <= _PROMISING)
        if len(rows):
            direction[rows] = polished(program.take(rows), direction[rows], batch.deadline)
    return certify(batch, dx, dy)


def certify_step(batch: Batch, u: Tensor) -> None:
    """Test the step of F from ``u`` ``(b, m')`` as a certificate."""
    now = batch.splitting.evaluate(u)
    ahead = batch.splitting.evaluate(u + batch.splitting.alpha * now.g)
    dx, dy = ahead.x - now.x, ahead.y - now.y
    certify(batch, _beyond_rounding(dx, now.x), _beyond_rounding(dy, batch.splitting.R * u))


def _beyond_rounding(step: Tensor, terms: Tensor) -> Tensor:
    """Steps ``(b, ·)`` that are more than what rounding leaves of these terms; else zero: no proof."""
    least = _ROUNDING * infinity_norm(terms).unsqueeze(-1)
    return torch.where(infinity_norm(step).unsqueeze(-1) > least, step, 0.0)


def certify_free_descent(batch: Batch) -> None:
    """Retire the instances whose objective falls along a direction that nothing constrains."""
    direction = batch.splitting.free_descent()
    if direction is not None:
        certify(batch, direction, torch.zeros_like(batch.u))
