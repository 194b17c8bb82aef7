"""When a point counts as a solution: no tolerance depends on the data's units, or hides in the largest datum.

1. The primal residual, the dual one and the gap, each over the largest of its terms, as SCS has them. Those
   of the gap may all cancel, and those of the dual residual vanish: there the natural sizes count,
   max(‖q‖, ‖P‖‖b‖) of the dual residual, and a little of that times max(‖b‖, ‖x‖) of the objective, which
   may be far from it where x is small beside b; all of it where no datum says how large y is.
2. Each cone's rows of the primal residual, and each entry of the dual one, over the terms of that row,
   |A||x| + |s| + |b| and |P||x| + |A|ᵀ|y| + |q|: ten times as generous for rows that are half-lines, a
   thousand times for curved cones and the dual residual. Where b, or q and P x, have nothing there, no datum
   says how small these terms are meant to be (the multiplier of an inactive constraint is zero): they count
   as a part of the largest, or of ‖A‖‖x‖, at least, of a row whose entries are smaller than others a smaller
   one. Where q alone has nothing, P x may be rounding: it counts as a little of ‖P‖ times the size of x at
   least, which is ‖x‖ or ‖b‖, but the latter at most ‖q‖/‖P‖. What is rounding of that size in b is nothing,
   too.

What rounding may leave is taken off beforehand, unless the tolerance itself is near rounding: a part of the
largest terms, and of u; for y = R (s − u) one of R|u|, as long as that is little beside the natural size; and
of the gap what these do to it. Of a row by itself no more is taken off than a part of its own terms: where
rounding may be larger, nobody can tell whether it is solved, so it is not. The lanes engine has the same
criterion (``kernels/criterion.hpp``).
"""

import torch
from torch import Tensor

from cvxfold.cones import largest_of_block
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.residuals import MeasuredResiduals, infinity_norm, terms
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_FLOOR, _GAP_FLOOR = 1e-13, 1e-14  # of the largest terms
_STATE_FLOOR = 1e-15  # of the largest |u|
_NOISE, _LITTLE = 1e-14, 1e-6  # of R|u|; of the natural size of the dual residual
_BY_ROW = 0.1  # of a row's residual over its own terms
_BY_CONE = 1e-3  # of a curved cone's, and of an entry of the dual residual
_EXCUSED, _UNTOLD = 1e-8, 1e-2  # of a row's own terms: at most left to rounding; or of y's
_ALL = 1e30  # where nothing costs anything
_OBJECTIVE = 1e-3  # of the natural size of the objective
_NOTHING = 1e-2  # of a little of ‖A‖ times the natural size of x
_NO_MORE = 1e-12  # of the largest terms: as good as nothing
_UNSAID = 1e-5  # of the largest terms, where no datum says how small they are
_NEAR_ROUNDING = 1e-10  # a tolerance that leaves less and less room for that


def tested(
    splitting: Splitting, scaling: Scaling, point: Iterate, measured: MeasuredResiduals, eps: float
) -> Tensor:
    """The number that is held against the tolerance ``eps``, ``(B,)``.

    Args:
        splitting: whose program is equilibrated. scaling: how.
        point: in its units.
        measured: its residuals, in original units.
    """
    program, size = splitting.program, scaling.size
    x, s, y, q, b = point.x, point.s, point.y, program.q, program.b
    in_rows, in_columns = terms(program, x, s, y)
    Px = program.P.mv(x)
    largest_q, largest_b, largest_x, largest_y = (infinity_norm(v) for v in (q, b, x, y))
    of_P = infinity_norm(program.P.values.flatten(1))
    known = torch.maximum(largest_q, of_P * largest_b)
    natural = torch.where(known > 0, known, torch.where(largest_b > 0, largest_b, 1.0))
    of_A, both = infinity_norm(program.A.values.flatten(1)), (largest_q > 0) & (of_P > 0)
    by_q = torch.where(both, _over(largest_q, of_P), 0.0)
    idle_rows = torch.where(largest_b > 0, 0.0, of_A * by_q)  # the size of rows where x, too, may be zero
    primal = torch.maximum(infinity_norm(in_rows), idle_rows)
    dual = torch.maximum(natural, infinity_norm(in_columns))
    natural_x = torch.where(both, torch.minimum(largest_b, by_q), largest_b)
    unit = _FLOOR * of_P * torch.maximum(natural_x, largest_x)
    of_row = program.A.absolute().mv(torch.ones_like(x)).minimum(of_A.unsqueeze(-1))
    unit_row = of_row * (_FLOOR * torch.where(both, natural_x, 0.0).maximum(largest_x)).unsqueeze(-1)
    row = of_row * (_UNSAID * _over(primal, of_A).maximum(largest_x)).unsqueeze(-1)
    largest_column = infinity_norm(in_columns)
    column = torch.maximum(unit, _UNSAID * largest_column).unsqueeze(-1)
    is_nothing = Px.abs() <= _NO_MORE * largest_column.unsqueeze(-1)
    column = torch.where(is_nothing, column, unit.unsqueeze(-1))
    b_says = b.abs() > _NOTHING * unit_row
    in_rows = torch.where(b_says, in_rows, in_rows.maximum(unit_row).maximum(row))
    in_columns = torch.where(q == 0, torch.maximum(in_columns, column), in_columns)
    room = min(1.0, eps / _NEAR_ROUNDING)
    little = room * torch.minimum(_NOISE * infinity_norm(splitting.R * point.u), _LITTLE * natural)
    primal_floor = room * (_FLOOR * primal + _STATE_FLOOR * infinity_norm(point.u))
    dual_floor = room * _FLOOR * dual + little
    gap_floor = room * _GAP_FLOOR * (largest_y * primal + largest_x * dual) + little * (primal + largest_x)

    cone = program.cone
    dual_residual, primal_residual = Px + q + program.A.rmv(y), program.A.mv(x) + s - b
    in_blocks = largest_of_block(in_rows, cone)
    excused = torch.where(known > 0, _EXCUSED, _UNTOLD)
    free = (largest_q == 0) & (of_P == 0)  # of any cost
    excused = torch.where(free, _ALL, excused).unsqueeze(-1)
    h, own_h = (_beyond(dual_residual, floor) for floor in _floors(dual_floor, excused * in_columns))
    g, own_g = (_beyond(primal_residual, floor) for floor in _floors(primal_floor, _EXCUSED * in_blocks))
    share = torch.where(known > 0, _OBJECTIVE, 1.0)
    objective = share * size.square() * natural * torch.maximum(largest_b, largest_x)
    by_row = _over(largest_of_block(own_g.abs(), cone), in_blocks)
    ratios = (
        _over(size * infinity_norm(g / scaling.rows), measured.primal_scale),  # 1
        _over(size * infinity_norm(h / scaling.columns), torch.maximum(measured.dual_scale, size * natural)),
        _over(_beyond(measured.gap, size.square() * gap_floor), measured.gap_scale + objective),
        _BY_ROW * infinity_norm(by_row[:, : cone.dims.separable]),  # 2
        _BY_CONE * infinity_norm(by_row[:, cone.dims.separable :]),
        _BY_CONE * infinity_norm(_over(own_h.abs(), in_columns)),
    )
    return torch.stack(ratios).amax(0)


def _floors(floor: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """A floor ``(B,)`` for all rows, and for each by itself: at most the part ``(B, ·)`` of its own terms."""
    everywhere = floor.unsqueeze(-1).expand_as(most)
    return everywhere, torch.minimum(everywhere, most)


def _beyond(value: Tensor, floor: Tensor) -> Tensor:
    """What is left of |value| beyond what rounding may leave; NaN stays."""
    return torch.where(value.abs() <= floor, 0.0, value.abs() - floor)


def _over(rest: Tensor, scale: Tensor) -> Tensor:
    """rest/scale; zero where there is no rest, whatever the scale."""
    return torch.where(rest == 0, rest, rest / scale.clamp_min(torch.finfo(rest.dtype).tiny))
