"""A look at every instance: which gradients call for a diagnosis, and what is known of the others.

Nothing here is decided; the numbers are bounds that any engine can have at hand after an adjoint.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.gradient.adjoint import FoldedAdjoint, on_moving
from cvxfold.gradient.linearization import Kinks, ProgramLinearization
from cvxfold.problem.gradients import DataGradients

FELT = 1e-7  # parts of an adjoint or of a null vector below this fraction of it do not count
NEGLIGIBLE = 1e-9  # the change of a gradient by δu that is estimated well enough to first order
CANCELS = 1e-10  # an error below this fraction of the terms that make a gradient is none that is felt
FAINT = 1e-9  # nor is one below this fraction of the largest gradient of the batch
ACCURACY = 1e-6  # an error beyond this, and beyond the backward tolerance, is worth a warning
MAGNIFIED = 100  # the tolerance's multiple that an error must exceed as well to be called ill-conditioned
SAFETY = 10.0  # calibrated: docs/robustness.md
SUSPECT = 1e-2  # ‖J w‖/‖w‖ below which J may be singular
FOUND = 1e-5  # likewise, of a null vector that several steps of inverse iteration cannot have missed
UNSOLVED = 1e-5  # relative residual above which the adjoint system may have no solution
KINK = 1e-9  # a margin below this, relative to the terms of its block, cannot be told from zero
_LEAST_KINK = 1e-13  # nor one below this, relative to the largest of the state
_LARGEST_KINK = 1e-6  # nor one below the error of u; but beyond this margin the sides can be told apart
_INVERSE_ITERATIONS = (1, 2)  # between looks; one alone leaves a null vector hidden among hundreds of rows


@dataclass(frozen=True)
class Screen(Batched):
    """What is known of each instance, each ``(B,)``.

    Args:
        margin: least distance of u to a kink of Π_K, relative to the terms of the block that has it.
        on_kink: whether that cannot be told from zero.
        smallest: ‖J w‖/‖w‖ for a w that inverse iteration finds: an upper bound of J's smallest singular
            value, and close to it where that is small.
        offset: how far u is from the solution: the relative change of the gradient by δu, to first order.
        adjoint_error: the relative error of the gradient that the adjoint system's residual causes.
        strength: the norm of the gradient relative to that of w = 0, where terms cancel; at least 1e-7 where
            it cannot be told from zero.
        gradient: its norm, on all that parameters reach.
        flat: whether it is zero to rounding while the loss looks at the solution.
        blind: whether there is a direction that neither P nor A sees.
        unsolved: whether the adjoint system is not solved.
        suspect: the ``smallest`` below which J may be singular: how well inverse iteration has
            found it, 0 where it is known not to matter.
        negligible: the ``offset`` that calls for no diagnosis.
        kinked, singular: where the engine is certain that there is no unique derivative; None for nowhere.
    """

    margin: Tensor
    on_kink: Tensor
    smallest: Tensor
    offset: Tensor
    adjoint_error: Tensor
    strength: Tensor
    gradient: Tensor
    flat: Tensor
    blind: Tensor
    unsolved: Tensor
    suspect: Tensor | float = SUSPECT
    negligible: float = NEGLIGIBLE
    kinked: Tensor | None = None
    singular: Tensor | None = None

    @property
    def felt(self) -> Tensor:
        """The norm of the least change of a gradient that is felt beside the others of the batch, ``()``."""
        return least_felt(self.gradient, self.maybe_singular)

    @property
    def maybe_singular(self) -> Tensor:
        """Where J may be singular: the gradient may be of any size there, ``(B,)``."""
        return self._suspected if self.singular is None else self._suspected | self.singular

    @property
    def _suspected(self) -> Tensor:
        """Where J may be singular for all that the engine knows, ``(B,)``."""
        return ~(self.smallest >= self.suspect) | self.blind | self.unsolved

    def ill_conditioned(self, tol: float) -> Tensor:
        """Which gradients may be off by more than adjoints within ``tol`` should be, ``(B,)``."""
        large = ~(self.adjoint_error <= max(MAGNIFIED * tol, ACCURACY))
        return large & ~unfelt(self.adjoint_error, self.strength, self.gradient, self.maybe_singular)

    def whatever_is_looked_at(self, looks: "Screen") -> "Screen":
        """Of loss gradients that do not tell who looks at what, beside the screen of some that do.

        What a null vector concerns is for a diagnosis to tell; ``looks`` shows directions that nothing sees.
        """
        return replace(self, singular=None, suspect=FOUND, unsolved=self.unsolved | looks.unsolved)

    @property
    def suspicious(self) -> Tensor:
        """Which instances call for a diagnosis, ``(B,)``."""
        near = (self.offset <= self.negligible) | (self.offset * self.strength <= CANCELS)
        return self.on_kink | self._suspected | ~near


def screen(phi: ProgramLinearization, adjoint: FoldedAdjoint, x_bar: Tensor, y_bar: Tensor) -> Screen:
    """Look at every instance of a batch.

    Args:
        phi: the iteration at the solutions.
        adjoint: of these loss gradients, with its remainder.
        x_bar: ``(B, n)``. y_bar: ``(B, m)``.
    """
    ones, blind, unsolved = adjoint.residual.new_ones(len(phi.u)), phi.blind, ~(adjoint.residual <= UNSOLVED)
    gradient = on_moving(phi, adjoint.p, adjoint.v)
    sizes = _Sizes(gradient.norm(dim=-1), gradient_floor(phi, x_bar, y_bar))
    du = phi.offset()
    change = change_by_remainder(phi, adjoint)
    share = change_by_step(phi, du, adjoint, gradient)
    margin, on_kink, smallest = torch.inf * ones, torch.zeros_like(blind), ones
    if phi.u.shape[-1]:
        kinks = phi.kinks()
        on_kink = (kinks.margin <= reach(kinks, du)).any(-1)
        smallest = torch.stack([one.length for one in inverse_iterates(phi)]).amin(0)
        margin = (kinks.margin / kinks.terms.clamp_min(torch.finfo(du.dtype).tiny)).amin(-1)
    size = sizes.fair(change + share)
    flat = ~sizes.clear(change + share) & (FELT * (change + share) <= CANCELS * sizes.floor)
    return Screen(
        margin=margin,
        on_kink=on_kink,
        smallest=smallest,
        offset=ratio(share, size),
        adjoint_error=ratio(change, size),
        strength=FELT * ratio(size, sizes.floor),
        gradient=sizes.gradient,
        flat=flat & (sizes.floor > 0),
        blind=blind,
        unsolved=unsolved,
    )


@dataclass(frozen=True)
class _Sizes:
    """The norm of the gradient, and what counts as no gradient at all, ``(B,)``."""

    gradient: Tensor
    floor: Tensor

    def clear(self, change: Tensor) -> Tensor:
        """Where a gradient that may be off by some ``change`` ``(B,)`` can be told from zero."""
        return self.gradient > SAFETY * change

    def fair(self, change: Tensor) -> Tensor:
        """What a change ``(B,)`` is relative to: a gradient that it hides has no digits of its own."""
        return torch.where(self.clear(change), self.gradient, self.gradient.maximum(self.floor))


def least_felt(gradient: Tensor, unreal: Tensor) -> Tensor:
    """What is felt beside the largest of some norms of gradients, a number, ``()``.

    Args:
        gradient: the norms, ``(B,)``. unreal: those that do not count, as there may be no gradient.
    """
    if not len(gradient):
        return gradient.new_zeros(())
    return FAINT * torch.where(unreal, 0.0, gradient.nan_to_num(0.0, 0.0)).amax()


def unfelt(error: Tensor, strength: Tensor, gradient: Tensor, unreal: Tensor) -> Tensor:
    """Whether a relative error ``(B,)`` is none that anybody feels.

    Of a gradient that cancels (to zero, at a vertex) nobody expects digits of its own; nor of one that is
    nothing beside the other gradients of the batch, to which it is added.

    Args:
        error, strength, gradient: as a :class:`Screen` has them, ``(B,)``.
        unreal: gradients that are nothing to compare with, ``(B,)``.
    """
    return (error * strength <= CANCELS) | (error * gradient <= least_felt(gradient, unreal))


def reach(kinks: Kinks, du: Tensor) -> Tensor:
    """The margin that cannot be told from zero where u may be off by ``du`` ``(B, k)``; ``(B, k)``.

    A part of the block's own terms, or what du moves the block by.
    """
    size = kinks.size.unsqueeze(-1)
    least = torch.maximum(KINK * kinks.terms, _LEAST_KINK * size)
    return torch.maximum(least, torch.minimum(10 * kinks.largest(du), _LARGEST_KINK * size))


class Tried(NamedTuple):
    """A vector w ``(b, k)`` of length 1, J w and its length ``(b,)``."""

    w: Tensor
    Jw: Tensor
    length: Tensor

    @property
    def promising(self) -> Tensor:
        """Where it may lead to a null vector, ``(b,)``."""
        return ~(self.length >= SUSPECT)


def inverse_iterates(phi: ProgramLinearization) -> list[Tried]:
    """Vectors that J makes small: after one step of inverse iteration and after more.

    One step makes w large along all directions that J makes small, more along the smallest. A linearization
    keeps them: a diagnosis looks at what a screen has looked at.
    """
    kept: dict[str, list[Tried]] = vars(phi)
    if "tried" in kept:
        return kept["tried"]
    w, found = _generic(phi.u), list[Tried]()
    for steps in _INVERSE_ITERATIONS:
        for _ in range(steps):
            w = normalized(phi.inverse(w))
        found.append(Tried(w, *stretch(phi, w)))
    kept["tried"] = found
    return found


def stretch(phi: ProgramLinearization, w: Tensor) -> tuple[Tensor, Tensor]:
    """J w ``(B, k)`` and its norm, ``(B,)``."""
    Jw = (w - phi.jvp(w)) / phi.relaxation
    return Jw, Jw.norm(dim=-1)


def change_by_remainder(phi: ProgramLinearization, adjoint: FoldedAdjoint) -> Tensor:
    """How far the gradient is off by what the adjoint leaves of its equations, and by rounding, ``(B,)``.

    What is left stands for an error of p and v: the residual times the conditioning of the system in the one
    direction that counts. It reaches the parameters as p and v do.
    """
    return on_moving(phi, *phi.off(adjoint.remainder.own)).norm(dim=-1)


def change_by_step(phi: ProgramLinearization, du: Tensor, adjoint: FoldedAdjoint, gradient: Tensor) -> Tensor:
    """How far the ``gradient`` ``(B, ·)`` moves where u moves by ``du`` ``(B, k)``, to first order, ``(B,)``.

    The projection turns, which leaves something of the adjoint's equations; x and y move too, also by what
    u does not show.
    """
    moved = phi.moved(du)
    dp, dv = phi.turned(adjoint.remainder.own, moved)
    dx, dy = phi.unshown()
    p, v = adjoint.p + dp, adjoint.v + dv
    after = DataGradients(p, v, moved.x + dx, moved.y + dy, phi.program.entries).on_moving()
    return (after - gradient).norm(dim=-1)


def gradient_floor(phi: ProgramLinearization, x_bar: Tensor, y_bar: Tensor) -> Tensor:
    """What counts as no gradient at all, ``(B,)``: a part of the one for w = 0 that rounding may leave."""
    p, v, *_ = phi.push(torch.zeros_like(phi.u), x_bar, y_bar)
    return FELT * on_moving(phi, p, v).norm(dim=-1)


def normalized(w: Tensor) -> Tensor:
    """w/‖w‖ by instance; zero where w is."""
    return w / w.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)


def ratio(change: Tensor, of: Tensor) -> Tensor:
    """change/of; zero where nothing changes."""
    return torch.where(change == 0, change, change / of.clamp_min(torch.finfo(of.dtype).tiny))


def _generic(u: Tensor) -> Tensor:
    """A vector without a preferred direction, the same at every call, ``(B, k)``."""
    places = torch.arange(1, u.shape[-1] + 1, device=u.device, dtype=u.dtype)
    return torch.cos(1.7 * places.square() + places).expand_as(u)
