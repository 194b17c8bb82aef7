"""Whether a gradient can be trusted: kinks, singular systems, and how large its error is.

With (p, v) the adjoint, z = R (A p − ȳ) and D = DΠ_K(u), the adjoint system is D v = (I − D) z
(the transposed KKT system's second row), and J = (I − Φ)/α.

- *Kinks.* Where u lies on a kink of Π_K, D may be any of several matrices. Two of them are tried, those of
  u moved into K and into K°: where both give the same gradient on what parameters reach, nothing is lost;
  where not, there is no unique derivative. Blocks on which v and z vanish need no trial: (p, v) answers on
  both sides. But it need not be the only answer where they are active too, so that system is looked at as
  the next point says.
- *Singular J.* (:mod:`cvxfold.gradient.singular`)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.near import places, some
from cvxfold.deadline import NEVER, Deadline
from cvxfold.gradient.adjoint import Bars, FoldedAdjoint, bars_of, fold, on_moving
from cvxfold.gradient.error import forward_error
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import (
    FELT,
    NEGLIGIBLE,
    SAFETY,
    Screen,
    gradient_floor,
    reach,
)
from cvxfold.gradient.singular import SIDES_AGREE, null_direction, unseen_directions, unseen_of
from cvxfold.methods import AdjointSettings, Auto

_SINGULAR = 1e-12  # ‖J w‖/‖w‖ of a null vector
_LARGEST_SINGULAR = 1e-6  # where u is not accurate, neither is J
_ASIDE = 4  # u is moved off a kink by this many times what cannot be told from zero
_ROUNDING = 2e-13  # of sums over many terms, which no first order tells; calibrated: docs/robustness.md


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

        Both are signed sums of many small parts, neither of which knows of the other: they add in squares.
        Infinite where there is no unique gradient to be off from.
        """
        estimate = SAFETY * torch.hypot(self.forward_error, self.adjoint_error) + _ROUNDING
        return torch.where(self.degenerate, torch.inf, estimate)

    @property
    def degenerate(self) -> Tensor:
        """Where there is no unique derivative."""
        return self.kinked | self.singular


def diagnose(
    phi: ProgramLinearization,
    bars: Bars,
    adjoint: FoldedAdjoint,
    seen: Screen,
    felt: Tensor,
    deadline: Deadline = NEVER,
    looks: Bars | None = None,
) -> Diagnosis:
    """Examine every instance of a batch.

    Args:
        phi: the iteration at the solutions.
        bars: the loss gradients.
        adjoint: of them, with its remainder.
        seen: what the screen saw of it.
        felt: the norm of the least change of a gradient that is felt beside the others of the batch.
        deadline: after which linear systems are solved no further.
        looks: loss gradients that are zero where nobody looks, if ``bars`` are none (of tangents).
    """
    settings = AdjointSettings(deadline=deadline)
    unseen, lost = unseen_directions(phi, bars, adjoint)
    if looks is not None:
        unseen = unseen | unseen_of(phi, looks)
    if not phi.u.shape[-1]:
        no, left = torch.zeros_like(unseen), torch.maximum(seen.adjoint_error, lost)
        return Diagnosis(
            seen.margin, seen.smallest, no, unseen, seen.offset, left, seen.strength, seen.gradient, seen.flat
        )
    du, kinks = phi.offset(), phi.kinks()
    far = reach(kinks, du)
    on_kink = kinks.margin <= far
    doubt = (100 * (du * kinks.curved).abs().amax(-1) / kinks.size).clamp(_SINGULAR, _LARGEST_SINGULAR)
    looks = bars if looks is None else looks
    smallest, singular = null_direction(phi, looks, doubt, adjoint)
    # Where the gradient is felt on a kink its sides are compared; elsewhere both may be active, and singular.
    aside = _ASIDE * far * on_kink * kinks.interior
    kinked = (on_kink & (adjoint.remainder.weight > FELT)).any(-1)
    some_felt, some_on_kink, some_inexact = some(kinked, on_kink, ~(seen.offset <= NEGLIGIBLE))
    if some_felt:
        rows = places(kinked)
        kinked[rows] = _sides_differ(phi.take(rows), aside[rows], bars_of(bars, rows), felt, settings)
    if some_on_kink and len(rows := places(on_kink.any(-1) & ~kinked & ~singular)):
        active = phi.take(rows).moved(-aside[rows])
        kinked[rows] = null_direction(
            active, bars_of(looks, rows), doubt[rows], adjoint.take(rows), remainder=False
        )[1]
    return Diagnosis(
        margin=seen.margin,
        smallest=smallest,
        kinked=kinked,
        singular=singular | unseen,
        forward_error=forward_error(phi, du, seen.offset, bars, adjoint, settings)
        if some_inexact
        else seen.offset,
        adjoint_error=torch.maximum(seen.adjoint_error, lost),
        strength=seen.strength,
        gradient=seen.gradient,
        flat=seen.flat,
    )


def _sides_differ(
    phi: ProgramLinearization, aside: Tensor, bars: Bars, felt: Tensor, settings: AdjointSettings
) -> Tensor:
    """Whether the gradient changes with the side of the kinks, by what is ``felt``: u ± ``aside``; ``(b,)``.

    What changes smoothly changes half as much half as far aside, and a jump as much: so where the sides seem
    to differ they are extrapolated to the kink itself.
    """
    floor = gradient_floor(phi, *bars).clamp_min(felt / SIDES_AGREE)
    sides = [_beside(phi, shift, bars, settings) for shift in (aside, -aside)]
    differ = _apart(sides, floor)
    rows = places(differ)
    if len(rows):
        part, near, of_rows = phi.take(rows), 0.5 * aside[rows], bars_of(bars, rows)
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
    same = (here - there).norm(dim=-1) <= SIDES_AGREE * size
    return ~(same & (torch.maximum(left, right) <= SIDES_AGREE))
