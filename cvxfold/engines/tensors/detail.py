"""Solutions in detail: x to the digits that the state has, where some of it is small beside the rest.

x(u) = M⁻¹ (AᵀR (b − 2s + u) − q) is exact to rounding of its terms, of which some may be far larger than an
entry of x: with x ≥ 10⁻¹⁴ and an objective of x, they are one. At a state u that is solved for, steps of
Newton's method in x alone correct that, with W = R (I − D)(D + δI)⁻¹ as the finish has it,

    (P + AᵀWA) δx = −(Px + q + Aᵀy) − AᵀW (Ax + s − b)

where the residuals are those of :mod:`cvxfold.engines.tensors.pairs` on second-order cones. Those of
exponential cones are looked at row by row: a projection knows each of its entries to rounding, and x = e^r
beside r and 1 may be any small number. What is asked of them is detail alone, no part of the criterion.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.batches.records import overwritten
from cvxfold.cones.exponential import Exponential
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.criterion import tested
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.pairs import Pairs, worst_pair
from cvxfold.engines.tensors.residuals import MeasuredResiduals, residuals, terms
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_BY_PAIR = 0.1  # of a pair's residual over its own terms
_IN_ROW = 1e-11  # of what an exponential cone's row has left over its own terms, that is worth a correction
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
    number, by_pairs, by_rows = _numbers(splitting, scaling, point, residual, settings.eps)
    most, solved_for = torch.maximum(number, by_pairs), (number <= settings.eps) | (residual.worst() <= _NEAR)
    return most, ((most > settings.eps) | (by_rows > _IN_ROW)) & solved_for


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
        part, scales, at = splitting.take(rows), scaling.take(rows), point.take(rows)
        better = corrected(part, at)
        after = residuals(part.program, scales, better.x, better.s, better.y)
        number, by_pairs, by_rows = _numbers(part, scales, better, after, settings.eps)
        least, before = torch.maximum(number, by_pairs), torch.maximum(most[rows], _by_rows(part, at))
        helps = (torch.maximum(least, by_rows) < before) & (least <= most[rows].clamp_min(settings.eps))
        which = places(helps)
        kept = rows[which]
        if len(kept) == len(rows) == len(most):
            return better, after, least
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
) -> tuple[Tensor, Tensor, Tensor]:
    """What is held against the tolerance, and the same of second-order cones' pairs, ``(B,)``; `_by_rows`."""
    number, by_rows = tested(splitting, scaling, point, residual, eps), _by_rows(splitting, point)
    if not splitting.program.cone.dims.second_order:
        return number, torch.zeros_like(number), by_rows
    rows, _ = terms(splitting.program, point.x, point.s, point.y)
    return number, _BY_PAIR * worst_pair(splitting, point, rows), by_rows


def _by_rows(splitting: Splitting, point: Iterate) -> Tensor:
    """The worst of the exponential cones' rows of A x + s − b over its own terms, ``(B,)``."""
    program = splitting.program
    found = [rows for rows, cone in program.cone.parts if isinstance(cone, Exponential)]
    if not found:
        return point.x.new_zeros(len(point.x))
    A, s, b = Matrix(program.A.values[:, found[0]]), point.s[:, found[0]], program.b[:, found[0]]
    left, own = (A.mv(point.x) + s - b).abs(), A.absolute().mv(point.x.abs()) + s.abs() + b.abs()
    return torch.where(left > 0, left / own, left).amax(-1)
