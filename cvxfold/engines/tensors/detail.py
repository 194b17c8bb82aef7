"""Solutions in detail: x to the digits that the state has, where some of it is small beside the rest.

x(u) = M⁻¹ (AᵀR (b − 2s + u) − q) is exact to rounding of its terms, of which some may be far larger than an
entry of x: with x ≥ 10⁻¹⁴ and an objective of x, they are one. At a state u that is solved for, steps of
Newton's method in x alone correct that, with W = R (I − D)(D + δI)⁻¹ as the finish has it,

    (P + AᵀWA) δx = −(Px + q + Aᵀy) − AᵀW (Ax + s − b)

where the residuals are those of :mod:`cvxfold.engines.tensors.pairs` on second-order cones.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.batches.records import overwritten
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.criterion import tested
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.pairs import Pairs, worst_pair
from cvxfold.engines.tensors.residuals import MeasuredResiduals, residuals, terms
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_BY_PAIR = 0.1  # of a pair's residual over its own terms
_NEAR = 1e-10  # the relative residual of a state that is solved for
_STEPS = 3


def in_detail(
    splitting: Splitting,
    scaling: Scaling,
    point: Iterate,
    residual: MeasuredResiduals,
    settings: ForwardSettings,
) -> tuple[Iterate, MeasuredResiduals, Tensor]:
    """Points, corrected where that is what they lack, their residuals and what is held against the tolerance.

    The latter, ``(B,)``, is that of SCS where nothing is to be refined.
    """
    most, lacking = held_against(splitting, scaling, point, residual, settings)
    return where_lacking(splitting, scaling, point, residual, settings, most, lacking)


def held_against(
    splitting: Splitting,
    scaling: Scaling,
    point: Iterate,
    residual: MeasuredResiduals,
    settings: ForwardSettings,
) -> tuple[Tensor, Tensor]:
    """What is held against the tolerance, and which points lack detail, each ``(B,)``, without a wait."""
    if not settings.refine:
        most = residual.largest(settings.eps_abs, settings.eps_rel)
        return most, torch.zeros_like(most, dtype=torch.bool)
    number, by_pairs = _numbers(splitting, scaling, point, residual, settings.eps)
    most = torch.maximum(number, by_pairs)
    return most, (most > settings.eps) & ((number <= settings.eps) | (residual.worst() <= _NEAR))


def where_lacking(
    splitting: Splitting,
    scaling: Scaling,
    point: Iterate,
    residual: MeasuredResiduals,
    settings: ForwardSettings,
    most: Tensor,
    lacking: Tensor,
) -> tuple[Iterate, MeasuredResiduals, Tensor]:
    """As :func:`in_detail`, where what is held against the tolerance is known, and who lacks detail."""
    if settings.refine and len(rows := places(lacking)):
        part, scales = splitting.take(rows), scaling.take(rows)
        better = corrected(part, point.take(rows))
        after = residuals(part.program, scales, better.x, better.s, better.y)
        least = torch.maximum(*_numbers(part, scales, better, after, settings.eps))
        kept = rows[places(least < most[rows])]
        if len(kept) == len(rows) == len(most):
            return better, after, least
        which = places(least < most[rows])
        point = overwritten(point, kept, better.take(which))
        residual = overwritten(residual, kept, after.take(which))
        most = most.index_copy(0, kept, least[which])
    return point, residual, most


def corrected(splitting: Splitting, point: Iterate) -> Iterate:
    """The points with x, and g by it, to the digits that u has."""
    program, x = splitting.program, point.x
    pairs, jacobian = Pairs.at(splitting, point.u), FactoredJacobian.at(splitting, point.u)
    dual = program.q + (program.A.rmv(point.y) if pairs is None else pairs.transposed(point.y))

    def left(x: Tensor) -> Tensor:
        everywhere = program.A.mv(x) + point.s - program.b
        return everywhere if pairs is None else pairs.written(everywhere, pairs.residual(x))

    for _ in range(_STEPS):
        x = x - jacobian.factor.solve(program.P.mv(x) + dual + program.A.rmv(jacobian.weighted(left(x))))
    x = torch.where(x.isfinite().all(-1, keepdim=True), x, point.x)
    return replace(point, x=x, g=-left(x))


def _numbers(
    splitting: Splitting, scaling: Scaling, point: Iterate, residual: MeasuredResiduals, eps: float
) -> tuple[Tensor, Tensor]:
    """What is held against the tolerance, and the same of the pairs of second-order cones, ``(B,)``."""
    number = tested(splitting, scaling, point, residual, eps)
    if not splitting.program.cone.dims.second_order:
        return number, torch.zeros_like(number)
    rows, _ = terms(splitting.program, point.x, point.s, point.y)
    return number, _BY_PAIR * worst_pair(splitting, point, rows)
