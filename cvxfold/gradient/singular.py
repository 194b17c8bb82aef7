"""Whether J = (I − Φ)/α is singular, in a way that matters.

J w = 0 with w ≠ 0 stands for a direction in which the solution is not determined: dx = M⁻¹AᵀR(I − 2D) w,
ds = D w, dy = −R(I − D) w satisfy the homogeneous conditions P dx = 0, Aᵀdy = 0, A dx + ds = 0. It matters

- where dx moves a variable, or dy a multiplier, that the loss looks at (of a matrix, the sum);
- where parameters tilt the objective along dx, dxᵀ(dq + dP x + dAᵀ y) ≠ 0: of solutions that are as good one
  is then the best, at an end of dx, where other rows are active, and so may be what the loss looks at;
- where dy ties inequality rows to each other and parameters move these rows apart, dyᵀ(db − dA x) ≠ 0, so
  that they do not stay active together; or the gradient on A, which takes y for its like, is another one
  with y + t dy: −(t dy)pᵀ. What is felt of that is felt in the parameters: entries that one parameter moves
  together may cancel. (Dependent equalities alone do not matter: their right-hand sides can move consistently
  only, and the adjoint of least norm is the derivative along those.)

The null vector is found by inverse iteration with the approximate inverse and confirmed by an exact product
J w.
"""

import torch
from torch import Tensor

from cvxfold.batches.near import is_near, places, some
from cvxfold.cones.dims import ConeDims
from cvxfold.gradient.adjoint import Adjoint, Bars, FoldedAdjoint, bars_of, check, on_moving
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import (
    FELT,
    UNSOLVED,
    Tried,
    gradient_floor,
    inverse_iterates,
    normalized,
    stretch,
)
from cvxfold.methods.history import relative_norm
from cvxfold.problem.gradients import DataGradients

SIDES_AGREE = 1e-5  # relative difference of two gradients that still counts as none
_PURIFICATIONS = 4


def null_direction(
    phi: ProgramLinearization, bars: Bars, doubt: Tensor, adjoint: FoldedAdjoint, remainder: bool = True
) -> tuple[Tensor, Tensor]:
    """An upper bound of J's smallest singular value, and where J is singular in a way that matters.

    What inverse iteration makes small is looked at; and what least squares leave of the adjoint system, which
    is a null vector that the loss sees.

    Args:
        doubt: what ‖J w‖/‖w‖ cannot be told from zero, ``(B,)``.
        adjoint: of these loss gradients.
        remainder: whether what it leaves is looked at, too.
    """
    smallest = torch.full_like(doubt, torch.inf)
    singular = torch.zeros_like(doubt, dtype=torch.bool)
    tried = inverse_iterates(phi)
    unsolved = ~(adjoint.residual <= UNSOLVED)
    *promising, some_unsolved = some(*(one.promising for one in tried), unsolved)
    for one, is_promising in zip(tried, promising, strict=True):
        smallest = torch.minimum(smallest, one.length)
        if is_promising:
            found = _examine(phi, one, bars, doubt, adjoint, singular)
            smallest, singular = torch.minimum(smallest, found[0]), singular | found[1]
    if remainder and some_unsolved and len(rows := places(unsolved & ~singular)):
        part, left = phi.take(rows), normalized(adjoint.remainder.r[rows])
        one = Tried(left, *stretch(part, left))
        found = _examine(part, one, bars_of(bars, rows), doubt[rows], adjoint.take(rows), singular[rows])
        smallest[rows], singular[rows] = torch.minimum(smallest[rows], found[0]), found[1]
    return smallest, singular


def _examine(
    phi: ProgramLinearization, tried: Tried, bars: Bars, doubt: Tensor, adjoint: Adjoint, known: Tensor
) -> tuple[Tensor, Tensor]:
    """‖J w‖ for w of length 1, ``(b,)``, and where w leads to a null vector that matters, ``(b,)``.

    Not where one is ``known`` ``(b,)``.

    w ← w − N J w leaves a null vector as it is, and of anything else only what N ≈ J⁻¹ is wrong about.
    """
    w, Jw, smallest = tried
    singular = torch.zeros_like(smallest, dtype=torch.bool)
    rows = places(tried.promising & ~known if is_near(w) else tried.promising)
    if not len(rows):
        return smallest, singular
    smallest = smallest.clone()
    phi, w, Jw = phi.take(rows), w[rows], Jw[rows]
    purified = smallest[rows]
    for _ in range(_PURIFICATIONS):
        w = normalized(w - phi.relaxation * phi.inverse(Jw))
        Jw, purified = stretch(phi, w)
    smallest[rows] = torch.minimum(purified, smallest[rows])
    matters = _matters(phi, w, bars_of(bars, rows), adjoint.take(rows))
    singular[rows] = (smallest[rows] <= doubt[rows]) & matters
    return smallest, singular


def unseen_directions(phi: ProgramLinearization, bars: Bars, adjoint: FoldedAdjoint) -> tuple[Tensor, Tensor]:
    """Where the loss looks at a direction that neither P nor A sees, ``(B,)``, and how much of it is lost.

    No point of the splitting knows that direction: t = x̄ − Pp − Aᵀv is (I − MM⁺)x̄, whatever w is, but for
    the rounding of its terms.
    """
    left = adjoint.remainder
    lost = relative_norm(left.t, torch.maximum(bars[0].norm(dim=-1), left.by_duals).unsqueeze(-1))
    unseen = phi.blind & ~(lost <= UNSOLVED)
    return unseen, torch.where(unseen, lost, 0.0)


def unseen_of(phi: ProgramLinearization, bars: Bars) -> Tensor:
    """Where a loss with these gradients looks at a direction that neither P nor A sees, ``(B,)``."""
    p, v, *_ = phi.push(torch.zeros_like(phi.u), *bars)
    none = torch.zeros_like(p[:, 0]) if p.shape[1] else p.new_zeros(len(p))
    return phi.blind & ~(check(phi.program, phi.proximal, p, v, bars[0], none)[1] <= UNSOLVED)


def _matters(phi: ProgramLinearization, w: Tensor, bars: Bars, adjoint: Adjoint) -> Tensor:
    """Whether null vectors ``w`` of J concern what the loss sees or what parameters move, ``(b,)``."""
    cones = phi.program.structure.cones
    # A part at the level of rounding is none, but would be large beside itself.
    dx, dy = phi.direction(w, floor=FELT)
    moves, ties = _relative(dx) > FELT, _relative(dy) > FELT
    seen = _multipliers_seen(cones, dy, bars[1])
    matters = (moves & (bars[0] != 0)).any(-1) | (ties & seen).any(-1)
    moved, dx = moves.any(-1), torch.where(moves, dx, 0.0)
    tied, dy = ties[:, cones.zero :].any(-1), torch.where(ties, dy, 0.0)
    if not is_near(dy):
        matters = matters | (moved & _solutions_matter(phi, dx))
        return matters | (tied & _multipliers_matter(phi, dy, bars, adjoint))
    rows = places(moved & ~matters)
    if len(rows):
        matters[rows] = _solutions_matter(phi.take(rows), dx[rows])
    rows = places(tied & ~matters)
    if len(rows):
        of_rows = bars_of(bars, rows)
        matters[rows] = _multipliers_matter(phi.take(rows), dy[rows], of_rows, adjoint.take(rows))
    return matters


def _multipliers_seen(cones: ConeDims, dy: Tensor, y_bar: Tensor) -> Tensor:
    """Which multipliers a loss looks at that moves them along ``dy``, ``(b, m)``.

    A Hermitian matrix stands twice in its semidefinite cone, and its dual variable is a sum of what stands
    there: of a matrix only the sum over all that the loss looks at is felt.
    """
    seen, at = y_bar != 0, cones.separable + sum(cones.second_order)
    for order in cones.semidefinite:
        rows = slice(at, at := at + order * (order + 1) // 2)
        terms = (y_bar * dy)[:, rows]
        seen[:, rows] &= terms.sum(-1, keepdim=True).abs() > FELT * terms.abs().sum(-1, keepdim=True)
    return seen


def _solutions_matter(phi: ProgramLinearization, dx: Tensor) -> Tensor:
    """Whether parameters tilt the objective along ``dx`` ``(b, n)``: dxᵀ(dq + dP x + dAᵀ y) ≠ 0, ``(b,)``."""
    entries = phi.program.entries
    y = torch.where(_relative(phi.y) > FELT, phi.y, 0.0)
    found = DataGradients(dx, torch.zeros_like(y), phi.x, y, entries)
    by_P, largest_P = entries.P_by_parameters.transposed(found.on_P(False))
    by_q, largest_q = entries.q_by_parameters.transposed(found.on_q(False))
    by_A, largest_A = entries.A_by_parameters.transposed(found.on_A(False))
    largest = torch.stack([largest_P, largest_q, largest_A]).amax(0)
    return (by_P + by_q + by_A).norm(dim=-1) > FELT * largest


def _multipliers_matter(phi: ProgramLinearization, dy: Tensor, bars: Bars, adjoint: Adjoint) -> Tensor:
    """Whether parameters feel that y and y + t ``dy`` ``(b, m)`` are as good, ``(b,)``."""
    entries = phi.program.entries
    row, column = entries.A.on(dy.device)
    on_b = dy.index_select(1, entries.b.on(dy.device))
    on_A, like_A = (dy[:, row] * beside[:, column] for beside in (phi.x, adjoint.p))
    by_b, largest_b = entries.b_by_parameters.transposed(on_b)
    by_A, largest_A = entries.A_by_parameters.transposed(on_A)
    apart = (by_b - by_A).norm(dim=-1) > FELT * torch.maximum(largest_b, largest_A)
    unit = phi.y.abs().amax(-1) / dy.abs().amax(-1)
    change = unit * entries.A_by_parameters.transposed(like_A)[0].norm(dim=-1)
    size = on_moving(phi, adjoint.p, adjoint.v).norm(dim=-1)
    return apart | (change > SIDES_AGREE * torch.maximum(size, gradient_floor(phi, *bars)))


def _relative(v: Tensor) -> Tensor:
    """|vᵢ| over the largest of the instance; zero where all are."""
    if not v.shape[-1]:
        return v
    largest = v.abs().amax(-1, keepdim=True)
    return v.abs() / torch.where(largest > 0, largest, torch.ones_like(largest))
