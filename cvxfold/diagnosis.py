"""Whether a gradient can be trusted: kinks, singular systems, and what the forward residual alone costs.

With (p, v) the adjoint, z = R (A p − ȳ) and D = DΠ_K(u), the adjoint system is D v = (I − D) z
(the transposed KKT system's second row), and J = (I − Φ)/α.

- *Kinks.* Where u lies on a kink of Π_K, D may be any of several matrices. Two of them are tried, those of
  u moved into K and into K°: where both give the same gradient on what parameters reach, nothing is lost;
  where not, there is no unique derivative. Blocks on which v and z vanish need no trial.
- *Singular J.* J w = 0 with w ≠ 0 stands for a direction in which the solution is not determined:
  dx = M⁻¹AᵀR(I − 2D) w, ds = D w, dy = −R(I − D) w satisfy the homogeneous conditions P dx = 0, Aᵀdy = 0,
  A dx + ds = 0. It matters where dx moves a variable, or dy a multiplier, that the loss looks at, or where dy
  ties inequality rows to rows that parameters move. (Dependent equalities alone do not matter: their
  right-hand sides can move consistently only, and the adjoint of least norm is the derivative along those.)
  The null vector is found by inverse iteration with the regularized Newton factor and confirmed by an exact
  product J w.
- *Forward error.* δu = J⁻¹ g is, to first order, how far u is from the solution. Where that is not
  negligible, the gradient at u + δu is computed as well, and the difference is the estimate.
- *Adjoint error.* What is left of the adjoint system, r = ū − Jᵀw, stands for an error J⁻ᵀr of the
  adjoint: the residual times the conditioning of the system in the one direction that counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.backward import DataGradients, Entries, Folded, Optimum, SplittingLinearization, fold
from cvxfold.deadline import NEVER, Deadline
from cvxfold.fold import AdjointSettings, Auto

_KINK = 1e-9  # a margin below this, relative to the data, cannot be told from zero
_LARGEST_KINK = 1e-6  # nor one below the error of u; but beyond this margin the sides can be told apart
_SIDES_AGREE = 1e-5  # relative difference of the gradients on both sides that still counts as none
_FELT = 1e-7  # parts of the adjoint or of a null vector below this fraction of it do not count
_SUSPECT, _SINGULAR = 1e-2, 1e-9  # ‖J w‖/‖w‖ that calls for a closer look, and that of a null vector
_INVERSE_ITERATIONS = 3  # one leaves a null vector hidden among hundreds of rows
_PURIFICATIONS = 4
_SAFETY, _ROUNDING = 10.0, 1e-14  # calibrated: docs/robustness.md
_NEGLIGIBLE = 1e-11  # δu, relatively, below which first-order terms are rounding


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
        """An estimate of the relative error of the gradient, all causes together, ``(B,)``."""
        return _SAFETY * (self.forward_error + self.adjoint_error) + _ROUNDING

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
        return Diagnosis(torch.inf * ones, ones, no, no, 0 * ones, 0 * ones, ones)
    du, size = phi.newton.solve(at.point.g), _size(at)
    margin = at.splitting.program.cone.margin(u)
    error = torch.minimum(10 * du.abs().amax(-1), _LARGEST_KINK * size)
    reach = torch.maximum(_KINK * size, error).unsqueeze(-1)
    on_kink = margin <= reach
    felt = _felt(at, folded)
    kinked = (on_kink & (felt > _FELT)).any(-1)
    if bool(kinked.any()):
        rows = kinked.nonzero().squeeze(-1)
        aside = 4 * reach * on_kink * at.splitting.program.cone.interior(u)
        kinked[rows] = _sides_differ(at.take(rows), aside[rows], entries, x_bar[rows], y_bar[rows], settings)
    bound, singular = _null_direction(at, entries, x_bar, y_bar)
    if folded is None:
        adjoint_error, strength = 0 * bound, torch.ones_like(bound)
    else:
        adjoint_error, strength = _adjoint_error(at, entries, folded)
    return Diagnosis(
        margin=margin.amin(-1) / size,
        smallest=bound,
        kinked=kinked,
        singular=singular,
        forward_error=_forward_error(at, entries, du, size, x_bar, y_bar, folded, settings),
        adjoint_error=adjoint_error,
        strength=strength,
    )


def _size(at: Optimum) -> Tensor:
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
        folded = fold(at, phi, x_bar, y_bar, Auto(), settings)
        sides.append(DataGradients(folded.lifted_p, folded.lifted_v, at.x, at.y, entries).on_moving())
        residuals.append(folded.adjoint.residual)
        floor = _floor(at, entries, folded)
    size = torch.maximum(torch.maximum(*(side.norm(dim=-1) for side in sides)), floor)
    same = (sides[0] - sides[1]).norm(dim=-1) <= _SIDES_AGREE * size
    return ~(same & (torch.maximum(*residuals) <= _SIDES_AGREE))


def _null_direction(at: Optimum, entries: Entries, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
    """An upper bound of J's smallest singular value, and where J is singular in a way that matters.

    Steps of inverse iteration with N ≈ J⁻¹ make w large along directions that J makes small. Then
    w ← w − N J w leaves a null vector as it is, and of anything else only what N is wrong about.
    """
    u, phi = at.u, at.phi
    singular = torch.zeros(len(u), dtype=torch.bool, device=u.device)
    w = _generic(u)
    for _ in range(_INVERSE_ITERATIONS):
        w = _normalized(phi.newton.solve(w))
    Jw = phi.splitting.jacobian(phi.D, w)
    bound = Jw.norm(dim=-1)
    rows = (~(bound >= _SUSPECT)).nonzero().squeeze(-1)
    if not len(rows):
        return bound, singular
    part, w, Jw = phi.take(rows), w[rows], Jw[rows]
    for _ in range(_PURIFICATIONS):
        w = _normalized(w - part.newton.solve(Jw))
        Jw = part.splitting.jacobian(part.D, w)
    bound[rows] = torch.minimum(Jw.norm(dim=-1), bound[rows])
    matters = _matters(at.take(rows), part, w, entries, x_bar[rows], y_bar[rows])
    singular[rows] = (bound[rows] <= _SINGULAR) & matters
    return bound, singular


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
    dx = torch.where(dx.norm(dim=-1, keepdim=True) > _FELT, dx, 0.0)
    dy = torch.where(dy.norm(dim=-1, keepdim=True) > _FELT, splitting.R * dy, 0.0)
    dx, dy = (_relative(part) for part in at.lift(dx, dy))
    ties = dy > _FELT
    seen = ((dx > _FELT) & (x_bar != 0)).any(-1) | (ties & (y_bar != 0)).any(-1)
    return seen | (ties[:, entries.equalities :].any(-1) & ties[:, entries.moving_rows.on(dy.device)].any(-1))


def _forward_error(
    at: Optimum,
    entries: Entries,
    du: Tensor,
    size: Tensor,
    x_bar: Tensor,
    y_bar: Tensor,
    folded: Folded | None,
    settings: AdjointSettings,
) -> Tensor:
    """The relative error of the gradient that u's distance δu from the solution causes, ``(B,)``."""
    error = du.abs().amax(-1) / size
    rough = ~(error <= _NEGLIGIBLE)
    if bool(rough.any()):
        rows = rough.nonzero().squeeze(-1)
        part, bars = at.take(rows), (x_bar[rows], y_bar[rows])
        if folded is not None and bool((folded.adjoint.residual[rows] <= _NEGLIGIBLE).all()):
            here = folded.take(rows)
        else:  # what the method left unsolved is not the forward pass's fault
            here = fold(part, part.phi, *bars, Auto(), settings)
        error[rows] = error_of_step(part, entries, du[rows], *bars, here, settings)
    return error


def error_of_step(
    at: Optimum,
    entries: Entries,
    du: Tensor,
    x_bar: Tensor,
    y_bar: Tensor,
    here: Folded,
    settings: AdjointSettings | None = None,
) -> Tensor:
    """The relative change of the gradient on what parameters reach where u moves by ``du``, ``(B,)``.

    Args:
        at, here: the place, and the adjoint there.
        entries: of the original program.
        du: the step, ``(B, m')``.
        x_bar, y_bar: the loss gradients of the adjoint.
    """
    now, then = at.point, at.splitting.evaluate(at.u + du)
    phi = SplittingLinearization.at(at.splitting, then.u)
    there = fold(at, phi, x_bar, y_bar, Auto(), settings or AdjointSettings())
    dx, dy = at.lift(then.x - now.x, then.y - now.y)
    before = DataGradients(here.lifted_p, here.lifted_v, at.x, at.y, entries).on_moving()
    after = DataGradients(there.lifted_p, there.lifted_v, at.x + dx, at.y + dy, entries).on_moving()
    size = torch.maximum(before.norm(dim=-1), after.norm(dim=-1))
    size = torch.maximum(size, _floor(at, entries, here))
    return _ratio((after - before).norm(dim=-1), size)


def _adjoint_error(at: Optimum, entries: Entries, folded: Folded) -> tuple[Tensor, Tensor]:
    """The relative error of the gradient on what parameters reach that r and t cause, and its strength, ``(B,)``.

    With δw = J⁻ᵀr the first row moves by δp = M⁻¹(t − Aᵀδw), and δv = δw + RAδp.
    """
    splitting, A = at.splitting, at.splitting.program.A
    dw = splitting.alpha * at.phi.solve(folded.r)
    dp = splitting.solve_normal(folded.t - A.rmv(dw))
    dp, dv = _lifted_adjoint(at, dp, dw + splitting.R * A.mv(dp))
    change = DataGradients(dp, dv, at.x, at.y, entries).on_moving().norm(dim=-1)
    gradient = DataGradients(folded.lifted_p, folded.lifted_v, at.x, at.y, entries).on_moving().norm(dim=-1)
    floor = _floor(at, entries, folded)
    size = torch.maximum(gradient, floor)
    return _ratio(change, size), _FELT * _ratio(size, floor)


def _lifted_adjoint(at: Optimum, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A change of the adjoint in the original program; adjoints are not in the units of q and b."""
    size = at.scaling.size.unsqueeze(-1)
    p, v = at.lift(p, v)
    return p / size, v / size


def _floor(at: Optimum, entries: Entries, folded: Folded) -> Tensor:
    """What counts as no gradient at all, ``(B,)``: a part of the one for w = 0 that rounding may leave."""
    first = _lifted_adjoint(at, folded.start, at.splitting.R * at.splitting.program.A.mv(folded.start))
    return _FELT * DataGradients(*first, at.x, at.y, entries).on_moving().norm(dim=-1)


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


def _ratio(change: Tensor, of: Tensor) -> Tensor:
    """change/of; zero where nothing changes."""
    return torch.where(change == 0, change, change / of.clamp_min(torch.finfo(of.dtype).tiny))
