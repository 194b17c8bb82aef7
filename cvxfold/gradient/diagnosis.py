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
  The null vector is found by inverse iteration with the regularized Newton factor and confirmed by an exact
  product J w.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.deadline import NEVER, Deadline
from cvxfold.fold import AdjointSettings, Auto
from cvxfold.fold.adjoint import relative_norm
from cvxfold.gradient.adjoint import DataGradients, Entries, Folded, Optimum, SplittingLinearization, fold
from cvxfold.gradient.error import FELT, adjoint_error, forward_error, gradient_floor

KINK = 1e-9  # a margin below this, relative to the data, cannot be told from zero
_LARGEST_KINK = 1e-6  # nor one below the error of u; but beyond this margin the sides can be told apart
_SIDES_AGREE = 1e-5  # relative difference of the gradients on both sides that still counts as none
_SUSPECT, _SINGULAR = 1e-2, 1e-9  # ‖J w‖/‖w‖ that calls for a closer look, and that of a null vector
_LARGEST_SINGULAR = 1e-6  # where u is not accurate, neither is J
_INVERSE_ITERATIONS = (1, 2)  # between looks; one alone leaves a null vector hidden among hundreds of rows
_PURIFICATIONS = 4
_SAFETY, _ROUNDING = 30.0, 3e-14  # calibrated: docs/robustness.md


@dataclass(frozen=True)
class Diagnosis:
    """What is known of each instance beside the residual of its adjoint system, each ``(B,)``.

    Args:
        margin: distance of u to the nearest kink of Π_K, relative to the largest of u, A x and b.
        smallest: ‖J w‖/‖w‖ for a w that inverse iteration finds: an upper bound of J's smallest singular
            value, and close to it where that is small.
        kinked: whether the gradient depends on which side of a kink is meant.
        singular: whether the solution, or a multiplier that the gradient needs, is not unique.
        forward_error: the relative error of the gradient that the forward residual alone causes, estimated.
        adjoint_error: likewise of what the adjoint system's residual alone causes.
        strength: the norm of the gradient relative to that of w = 0, where terms cancel; at least 1e-7.
    """

    margin: Tensor
    smallest: Tensor
    kinked: Tensor
    singular: Tensor
    forward_error: Tensor
    adjoint_error: Tensor
    strength: Tensor

    @classmethod
    def joined(cls, pieces: Sequence[tuple[Tensor, "Diagnosis"]], unknown: Tensor) -> "Diagnosis":
        """That of a batch from those of its pieces: which instances, and theirs.

        Args:
            unknown: what stands for the other instances' numbers, ``(B,)``.
        """
        no = torch.zeros_like(unknown, dtype=torch.bool)
        numbers = [unknown.clone() for _ in range(5)]
        whole = cls(numbers[0], numbers[1], no, no.clone(), *numbers[2:])
        for rows, piece in pieces:
            for name, value in vars(piece).items():
                getattr(whole, name)[rows] = value
        return whole

    @property
    def error(self) -> Tensor:
        """An estimate of the relative error of the gradient, all causes together, ``(B,)``.

        Infinite where there is no unique gradient to be off from.
        """
        estimate = _SAFETY * (self.forward_error + self.adjoint_error) + _ROUNDING
        return torch.where(self.degenerate, torch.inf, estimate)

    @property
    def degenerate(self) -> Tensor:
        """Where there is no unique derivative."""
        return self.kinked | self.singular


def diagnose(
    at: Optimum,
    entries: Entries,
    x_bar: Tensor,
    y_bar: Tensor,
    folded: Folded | None,
    deadline: Deadline = NEVER,
) -> Diagnosis:
    """Look at a batch.

    Args:
        at: where the derivative was taken.
        entries: of the original program.
        x_bar: loss gradient on x, ``(B, n)``, in the original program's units.
        y_bar: loss gradient on y, ``(B, m)``, likewise.
        folded: the adjoint; None where the gradient was not folded but unrolled.
        deadline: after which linear systems are solved no further.
    """
    settings = AdjointSettings(deadline=deadline)
    u, phi = at.u, at.phi
    if not u.shape[-1]:
        ones, no = u.new_ones(len(u)), torch.zeros(len(u), dtype=torch.bool, device=u.device)
        unseen, share = _unseen(at, folded, ones)
        return Diagnosis(torch.inf * ones, ones, no, unseen, 0 * ones, share, ones)
    du, size = phi.newton.solve(at.point.g), magnitude(at)
    margin = at.splitting.program.cone.margin(u)
    error = torch.minimum(10 * du.abs().amax(-1), _LARGEST_KINK * size)
    reach = torch.maximum(KINK * size, error).unsqueeze(-1)
    on_kink = margin <= reach
    felt = _felt(at, folded)
    kinked = (on_kink & (felt > FELT)).any(-1)
    doubt = (100 * du.abs().amax(-1) / size).clamp(_SINGULAR, _LARGEST_SINGULAR)
    bound, singular = _null_direction(at, phi, entries, x_bar, y_bar, folded, doubt)
    if bool(on_kink.any()):
        aside = 4 * reach * on_kink * at.splitting.program.cone.interior(u)
        rows = kinked.nonzero().squeeze(-1)
        if len(rows):
            part, bars = at.take(rows), (x_bar[rows], y_bar[rows])
            kinked[rows] = _sides_differ(part, aside[rows], entries, *bars, settings)
        rows = (on_kink.any(-1) & ~kinked & ~singular).nonzero().squeeze(-1)
        if len(rows):
            part, bars = at.take(rows), (x_bar[rows], y_bar[rows])
            active = SplittingLinearization.at(part.splitting, part.u - aside[rows])
            kinked[rows] = _null_direction(part, active, entries, *bars, None, doubt[rows])[1]
    if folded is None:
        magnified, strength = 0 * bound, torch.ones_like(bound)
    else:
        magnified, strength = adjoint_error(at, entries, folded)
        unseen, share = _unseen(at, folded, bound)
        singular, magnified = singular | unseen, torch.maximum(magnified, share)
    return Diagnosis(
        margin=margin.amin(-1) / size,
        smallest=bound,
        kinked=kinked,
        singular=singular,
        forward_error=forward_error(at, entries, du, size, x_bar, y_bar, folded, settings),
        adjoint_error=magnified,
        strength=strength,
    )


def magnitude(at: Optimum) -> Tensor:
    """What rounding is measured against, ``(B,)``: the largest of u, A x, b and what q moves A x by.

    u alone may be nothing but rounding, where every constraint is weakly active.
    """
    program = at.splitting.program
    moved = program.A.mv(at.splitting.solve_normal(program.q))
    largest = [part.abs().amax(-1) for part in (at.u, program.A.mv(at.point.x), program.b, moved)]
    return torch.stack(largest).amax(0).clamp_min(torch.finfo(at.u.dtype).tiny)


def _felt(at: Optimum, folded: Folded | None) -> Tensor:
    """How much of the adjoint stands on each row, relative to its largest entry, ``(B, m')``."""
    if folded is None:
        return torch.ones_like(at.u)
    return _relative(torch.maximum(folded.v.abs(), _z(at, folded).abs()))


def _z(at: Optimum, folded: Folded) -> Tensor:
    return at.splitting.R * (at.splitting.program.A.mv(folded.p) - folded.y_bar)


def _sides_differ(
    at: Optimum, aside: Tensor, entries: Entries, x_bar: Tensor, y_bar: Tensor, settings: AdjointSettings
) -> Tensor:
    """Whether the gradient changes with the side of the kinks: u ± ``aside`` ``(b, m')``; ``(b,)``."""
    sides, residuals, floor = [], [], 0 * at.u[:, 0]
    for shift in (aside, -aside):
        phi = SplittingLinearization.at(at.splitting, at.u + shift)
        folded = fold(at, phi, x_bar, y_bar, Auto(least_norm=False), settings)
        sides.append(DataGradients(folded.lifted_p, folded.lifted_v, at.x, at.y, entries).on_moving())
        residuals.append(folded.adjoint.residual)
        floor = gradient_floor(at, entries, folded)
    size = torch.maximum(torch.maximum(*(side.norm(dim=-1) for side in sides)), floor)
    same = (sides[0] - sides[1]).norm(dim=-1) <= _SIDES_AGREE * size
    return ~(same & (torch.maximum(*residuals) <= _SIDES_AGREE))


def _null_direction(
    at: Optimum,
    phi: SplittingLinearization,
    entries: Entries,
    x_bar: Tensor,
    y_bar: Tensor,
    folded: Folded | None,
    doubt: Tensor,
) -> tuple[Tensor, Tensor]:
    """An upper bound of J's smallest singular value, and where J is singular in a way that matters.

    Steps of inverse iteration with N ≈ J⁻¹ make w large along directions that J makes small: one step along
    all of them, more along the smallest. And what least squares leave of the adjoint system is a null vector
    that the loss sees.
    """
    bound = at.u.new_full((len(at.u),), torch.inf)
    singular = torch.zeros(len(at.u), dtype=torch.bool, device=at.u.device)
    w = _generic(at.u)
    for steps in _INVERSE_ITERATIONS:
        for _ in range(steps):
            w = _normalized(phi.newton.solve(w))
        found = _examine(at, phi, w, entries, x_bar, y_bar, doubt)
        bound, singular = torch.minimum(bound, found[0]), singular | found[1]
    if folded is not None:
        rows = (~(folded.adjoint.residual <= _SIDES_AGREE) & ~singular).nonzero().squeeze(-1)
        if len(rows):
            everyone = len(rows) == len(at.u)
            part, there = (at, phi) if everyone else (at.take(rows), phi.take(rows))
            left = _normalized(folded.r[rows])
            found = _examine(part, there, left, entries, x_bar[rows], y_bar[rows], doubt[rows])
            bound[rows], singular[rows] = torch.minimum(bound[rows], found[0]), found[1]
    return bound, singular


def _examine(
    at: Optimum,
    phi: SplittingLinearization,
    w: Tensor,
    entries: Entries,
    x_bar: Tensor,
    y_bar: Tensor,
    doubt: Tensor,
) -> tuple[Tensor, Tensor]:
    """‖J w‖ for w of length 1, ``(b,)``, and where w leads to a null vector that matters, ``(b,)``.

    w ← w − N J w leaves a null vector as it is, and of anything else only what N is wrong about.
    """
    Jw = phi.splitting.jacobian(phi.D, w)
    bound, singular = Jw.norm(dim=-1), torch.zeros(len(w), dtype=torch.bool, device=w.device)
    rows = (~(bound >= _SUSPECT)).nonzero().squeeze(-1)
    if not len(rows):
        return bound, singular
    if len(rows) < len(w):
        at, phi, w, Jw, doubt, x_bar, y_bar = (
            at.take(rows), phi.take(rows), *(v[rows] for v in (w, Jw, doubt, x_bar, y_bar))
        )  # fmt: skip
    for _ in range(_PURIFICATIONS):
        w = _normalized(w - phi.newton.solve(Jw))
        Jw = phi.splitting.jacobian(phi.D, w)
    bound[rows] = torch.minimum(Jw.norm(dim=-1), bound[rows])
    singular[rows] = (bound[rows] <= doubt) & _matters(at, phi, w, entries, x_bar, y_bar)
    return bound, singular


def _unseen(at: Optimum, folded: Folded | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the loss looks at a direction that neither P nor A sees, ``(B,)``, and how much of it is lost.

    No point of the splitting knows that direction: t = x̄ − Pp − Aᵀv is (I − MM⁺)x̄, whatever w is.
    """
    if folded is None or not at.splitting.rank_deficient:
        return torch.zeros_like(like, dtype=torch.bool), torch.zeros_like(like)
    program, t = at.splitting.program, folded.t
    lost = relative_norm(t, t + program.P.mv(folded.p) + program.A.rmv(folded.v))
    unseen = ~(lost <= _SIDES_AGREE)
    return unseen, torch.where(unseen, lost, 0.0)


def _normalized(w: Tensor) -> Tensor:
    return w / w.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)


def _matters(
    at: Optimum, phi: SplittingLinearization, w: Tensor, entries: Entries, x_bar: Tensor, y_bar: Tensor
) -> Tensor:
    """Whether null vectors ``w`` of J concern what the loss sees or what parameters move, ``(b,)``."""
    splitting = at.splitting
    reflected = phi.D.apply(lambda d: 1 - 2 * d, w)
    dx = splitting.solve_normal(splitting.program.A.rmv(splitting.R * reflected))
    dy = phi.D.apply(lambda d: d - 1, w)
    # A part at the level of rounding is none, but would be large beside itself.
    dx = torch.where(dx.norm(dim=-1, keepdim=True) > FELT, dx, 0.0)
    dy = torch.where(dy.norm(dim=-1, keepdim=True) > FELT, splitting.R * dy, 0.0)
    dx, dy = (_relative(part) for part in at.lift(dx, dy))
    ties = dy > FELT
    seen = ((dx > FELT) & (x_bar != 0)).any(-1) | (ties & (y_bar != 0)).any(-1)
    return seen | (ties[:, entries.equalities :].any(-1) & ties[:, entries.moving_rows.on(dy.device)].any(-1))


def _generic(u: Tensor) -> Tensor:
    """A vector without a preferred direction, the same at every call, ``(B, m)``."""
    places = torch.arange(1, u.shape[-1] + 1, device=u.device, dtype=u.dtype)
    return torch.cos(1.7 * places.square() + places).expand_as(u)


def _relative(v: Tensor) -> Tensor:
    """|vᵢ| over the largest of the instance; zero where all are."""
    if not v.shape[-1]:
        return v
    largest = v.abs().amax(-1, keepdim=True)
    return v.abs() / torch.where(largest > 0, largest, torch.ones_like(largest))
