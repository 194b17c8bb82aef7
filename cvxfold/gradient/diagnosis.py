"""Whether a gradient can be trusted: kinks, singular systems, and how large its error is.

With (p, v) the adjoint, z = R (A p − ȳ) and D = DΠ_K(u), the adjoint system is D v = (I − D) z
(the transposed KKT system's second row), and J = (I − Φ)/α.

- *Kinks.* Where u lies on a kink of Π_K, D may be any of several matrices. Two of them are tried, those of
  u moved into K and into K°: where both give the same gradient on what parameters reach, nothing is lost;
  where not, there is no unique derivative. Blocks on which v and z vanish need no trial: (p, v) answers on
  both sides. But it need not be the only answer where they are active too, so that system is looked at as
  the next point says.
- *Singular J.* J w = 0 with w ≠ 0 stands for a direction in which the solution is not determined:
  dx = M⁻¹AᵀR(I − 2D) w, ds = D w, dy = −R(I − D) w satisfy the homogeneous conditions P dx = 0, Aᵀdy = 0,
  A dx + ds = 0. It matters where dx moves a variable, or dy a multiplier, that the loss looks at, or where dy
  ties inequality rows to rows that parameters move. (Dependent equalities alone do not matter: their
  right-hand sides can move consistently only, and the adjoint of least norm is the derivative along those.)
  The null vector is found by inverse iteration with the approximate inverse and confirmed by an exact
  product J w.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.deadline import NEVER, Deadline
from cvxfold.gradient.adjoint import FoldedAdjoint, fold, on_moving
from cvxfold.gradient.error import forward_error
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import (
    FELT,
    SAFETY,
    SUSPECT,
    UNSOLVED,
    Screen,
    gradient_floor,
    inverse_iterates,
    normalized,
    reach,
    stretch,
)
from cvxfold.methods import AdjointSettings, Auto
from cvxfold.methods.history import relative_norm

_SIDES_AGREE = 1e-5  # relative difference of the gradients on both sides that still counts as none
_SINGULAR = 1e-9  # ‖J w‖/‖w‖ of a null vector
_LARGEST_SINGULAR = 1e-6  # where u is not accurate, neither is J
_ASIDE = 4  # u is moved off a kink by this many times what cannot be told from zero
_PURIFICATIONS = 4
_ROUNDING = 3e-14  # calibrated: docs/robustness.md

Bars = tuple[Tensor, Tensor]
"""Loss gradients on x, ``(B, n)``, and on y, ``(B, m)``."""


@dataclass(frozen=True)
class Diagnosis:
    """What is known of each instance beside the residual of its adjoint system, each ``(B,)``.

    Args:
        margin: least distance of u to a kink of Π_K, relative to the terms of the block that has it.
        smallest: ‖J w‖/‖w‖ for a w that inverse iteration finds: an upper bound of J's smallest singular
            value, and close to it where that is small.
        kinked: whether the gradient depends on which side of a kink is meant.
        singular: whether the solution, or a multiplier that the gradient needs, is not unique.
        forward_error: the relative error of the gradient that the forward residual alone causes, estimated.
        adjoint_error: likewise of what the adjoint system's residual alone causes.
        strength: the norm of the gradient relative to that of w = 0, where terms cancel; at least 1e-7 where
            it cannot be told from zero.
        gradient: its norm, on all that parameters reach.
        flat: whether it is zero to rounding while the loss looks at the solution.
    """

    margin: Tensor
    smallest: Tensor
    kinked: Tensor
    singular: Tensor
    forward_error: Tensor
    adjoint_error: Tensor
    strength: Tensor
    gradient: Tensor
    flat: Tensor

    @classmethod
    def unsuspicious(cls, seen: Screen) -> "Diagnosis":
        """Of instances that the screen leaves no doubt about."""
        no = torch.zeros_like(seen.on_kink)
        kinked, singular = (no.clone() if known is None else known for known in (seen.kinked, seen.singular))
        offset = seen.offset  # at this size, the error's too
        return cls(
            seen.margin, seen.smallest, kinked, singular, offset, seen.adjoint_error, seen.strength,
            seen.gradient, seen.flat,
        )  # fmt: skip

    @classmethod
    def unknown(cls, like: Tensor) -> "Diagnosis":
        """Of instances that have no gradient, ``(B,)``."""
        no = [torch.zeros_like(like, dtype=torch.bool) for _ in range(3)]
        nan = [torch.full_like(like, torch.nan) for _ in range(6)]
        return cls(nan[0], nan[1], no[0], no[1], nan[2], nan[3], nan[4], nan[5], no[2])

    @property
    def error(self) -> Tensor:
        """An estimate of the relative error of the gradient, all causes together, ``(B,)``.

        Infinite where there is no unique gradient to be off from.
        """
        estimate = SAFETY * (self.forward_error + self.adjoint_error) + _ROUNDING
        return torch.where(self.degenerate, torch.inf, estimate)

    @property
    def degenerate(self) -> Tensor:
        """Where there is no unique derivative."""
        return self.kinked | self.singular


def diagnose(
    phi: ProgramLinearization, bars: Bars, adjoint: FoldedAdjoint, seen: Screen, deadline: Deadline = NEVER
) -> Diagnosis:
    """Examine every instance of a batch.

    Args:
        phi: the iteration at the solutions.
        bars: the loss gradients.
        adjoint: of them, with its remainder.
        seen: what the screen saw of it.
        deadline: after which linear systems are solved no further.
    """
    settings = AdjointSettings(deadline=deadline)
    unseen, lost = _unseen(phi, bars, adjoint)
    if not phi.u.shape[-1]:
        no, nothing = torch.zeros_like(unseen), torch.zeros_like(lost)
        return Diagnosis(
            seen.margin, seen.smallest, no, unseen, nothing, lost, seen.strength, seen.gradient, seen.flat
        )
    du, kinks = phi.offset(), phi.kinks()
    far = reach(kinks, du)
    on_kink = kinks.margin <= far
    doubt = (100 * du.abs().amax(-1) / kinks.size).clamp(_SINGULAR, _LARGEST_SINGULAR)
    smallest, singular = _null_direction(phi, bars, doubt, adjoint)
    # Where the gradient is felt on a kink its sides are compared; elsewhere both may be active, and singular.
    aside = _ASIDE * far * on_kink * kinks.interior
    kinked = (on_kink & (adjoint.remainder.weight > FELT)).any(-1)
    if len(rows := kinked.nonzero().squeeze(-1)):
        kinked[rows] = _sides_differ(phi.take(rows), aside[rows], _of(bars, rows), settings)
    if len(rows := (on_kink.any(-1) & ~kinked & ~singular).nonzero().squeeze(-1)):
        active = phi.take(rows).moved(-aside[rows])
        kinked[rows] = _null_direction(active, _of(bars, rows), doubt[rows], None)[1]
    return Diagnosis(
        margin=seen.margin,
        smallest=smallest,
        kinked=kinked,
        singular=singular | unseen,
        forward_error=forward_error(phi, du, seen.offset, bars, adjoint, settings),
        adjoint_error=torch.maximum(seen.adjoint_error, lost),
        strength=seen.strength,
        gradient=seen.gradient,
        flat=seen.flat,
    )


def _sides_differ(phi: ProgramLinearization, aside: Tensor, bars: Bars, settings: AdjointSettings) -> Tensor:
    """Whether the gradient changes with the side of the kinks: u ± ``aside`` ``(b, k)``; ``(b,)``.

    What changes smoothly changes half as much half as far aside, and a jump as much: so where the sides seem
    to differ they are extrapolated to the kink itself.
    """
    floor = gradient_floor(phi, *bars)
    sides = [_beside(phi, shift, bars, settings) for shift in (aside, -aside)]
    differ = _apart(sides, floor)
    rows = differ.nonzero().squeeze(-1)
    if len(rows):
        part, near, of_rows = phi.take(rows), 0.5 * aside[rows], _of(bars, rows)
        nearer = [_beside(part, shift, of_rows, settings) for shift in (near, -near)]
        limits = [
            (2 * half[0] - whole[0][rows], torch.maximum(half[1], whole[1][rows]))
            for half, whole in zip(nearer, sides, strict=True)
        ]
        differ[rows] = _apart(limits, floor[rows])
    return differ


def _beside(
    phi: ProgramLinearization, shift: Tensor, bars: Bars, settings: AdjointSettings
) -> tuple[Tensor, Tensor]:
    """The gradient where u is moved by ``shift`` ``(b, k)``, and the residual of its adjoint, ``(b,)``."""
    adjoint = fold(phi.moved(shift), *bars, Auto(least_norm=False), settings)
    return on_moving(phi, adjoint.p, adjoint.v), adjoint.residual


def _apart(sides: Sequence[tuple[Tensor, Tensor]], floor: Tensor) -> Tensor:
    """Whether two gradients differ, or one of them does not exist, ``(b,)``."""
    (here, left), (there, right) = sides
    size = torch.maximum(torch.maximum(here.norm(dim=-1), there.norm(dim=-1)), floor)
    same = (here - there).norm(dim=-1) <= _SIDES_AGREE * size
    return ~(same & (torch.maximum(left, right) <= _SIDES_AGREE))


def _null_direction(
    phi: ProgramLinearization, bars: Bars, doubt: Tensor, adjoint: FoldedAdjoint | None
) -> tuple[Tensor, Tensor]:
    """An upper bound of J's smallest singular value, and where J is singular in a way that matters.

    What inverse iteration makes small is looked at; and what least squares leave of the adjoint system, which
    is a null vector that the loss sees.

    Args:
        doubt: what ‖J w‖/‖w‖ cannot be told from zero, ``(B,)``.
        adjoint: whose remainder is looked at, if any.
    """
    smallest = torch.full_like(doubt, torch.inf)
    singular = torch.zeros_like(doubt, dtype=torch.bool)
    for w in inverse_iterates(phi):
        found = _examine(phi, w, bars, doubt)
        smallest, singular = torch.minimum(smallest, found[0]), singular | found[1]
    if adjoint is not None:
        rows = (~(adjoint.residual <= UNSOLVED) & ~singular).nonzero().squeeze(-1)
        if len(rows):
            left = normalized(adjoint.remainder.r[rows])
            found = _examine(phi.take(rows), left, _of(bars, rows), doubt[rows])
            smallest[rows], singular[rows] = torch.minimum(smallest[rows], found[0]), found[1]
    return smallest, singular


def _examine(phi: ProgramLinearization, w: Tensor, bars: Bars, doubt: Tensor) -> tuple[Tensor, Tensor]:
    """‖J w‖ for w of length 1, ``(b,)``, and where w leads to a null vector that matters, ``(b,)``.

    w ← w − N J w leaves a null vector as it is, and of anything else only what N ≈ J⁻¹ is wrong about.
    """
    Jw, smallest = stretch(phi, w)
    singular = torch.zeros_like(smallest, dtype=torch.bool)
    rows = (~(smallest >= SUSPECT)).nonzero().squeeze(-1)
    if not len(rows):
        return smallest, singular
    phi, w, Jw = phi.take(rows), w[rows], Jw[rows]
    purified = smallest[rows]
    for _ in range(_PURIFICATIONS):
        w = normalized(w - phi.relaxation * phi.inverse(Jw))
        Jw, purified = stretch(phi, w)
    smallest[rows] = torch.minimum(purified, smallest[rows])
    singular[rows] = (smallest[rows] <= doubt[rows]) & _matters(phi, w, _of(bars, rows))
    return smallest, singular


def _unseen(phi: ProgramLinearization, bars: Bars, adjoint: FoldedAdjoint) -> tuple[Tensor, Tensor]:
    """Where the loss looks at a direction that neither P nor A sees, ``(B,)``, and how much of it is lost.

    No point of the splitting knows that direction: t = x̄ − Pp − Aᵀv is (I − MM⁺)x̄, whatever w is.
    """
    lost = relative_norm(adjoint.remainder.t, bars[0])
    unseen = phi.blind & ~(lost <= UNSOLVED)
    return unseen, torch.where(unseen, lost, 0.0)


def _matters(phi: ProgramLinearization, w: Tensor, bars: Bars) -> Tensor:
    """Whether null vectors ``w`` of J concern what the loss sees or what parameters move, ``(b,)``."""
    entries = phi.program.entries
    # A part at the level of rounding is none, but would be large beside itself.
    dx, dy = (_relative(part) for part in phi.direction(w, floor=FELT))
    ties = dy > FELT
    seen = ((dx > FELT) & (bars[0] != 0)).any(-1) | (ties & (bars[1] != 0)).any(-1)
    inequalities = ties[:, entries.structure.cones.zero :]
    return seen | (inequalities.any(-1) & ties[:, entries.moving_rows.on(dy.device)].any(-1))


def _relative(v: Tensor) -> Tensor:
    """|vᵢ| over the largest of the instance; zero where all are."""
    if not v.shape[-1]:
        return v
    largest = v.abs().amax(-1, keepdim=True)
    return v.abs() / torch.where(largest > 0, largest, torch.ones_like(largest))


def _of(bars: Bars, rows: Tensor) -> Bars:
    return bars[0][rows], bars[1][rows]
