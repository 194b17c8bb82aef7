"""The fixed point of an update that nobody else solves for: Anderson acceleration with a safeguard.

Walker and Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 49, 2011. With
r = F(u) − u, ΔU and ΔR the last differences of iterates and of their residuals,

    1. θ = argmin ‖r − ΔR θ‖         u ← (u − ΔU θ) + (r − ΔR θ)
    2. where that does not lower the smallest ‖r‖ so far, take the step back, forget the differences and take
       the plain step u ← F(u), which is taken as it comes; after each further rejection in turn, twice as
       many plain steps
    3. stop where ‖r‖ ≤ tol (1 + ‖u‖), in maximum norms, or where ‖r‖ has not become smaller for long

An iteration that converges so still does. Accelerated, it may find a fixed point that the iteration itself
would leave, ρ(Φ) > 1; Ritz values of Φ on the last differences tell, Φ ΔU ≈ ΔU + ΔR. Then, and where it
stops without one, plain steps are taken from the start, and if they converge what they find counts. Where
nothing converged, as may be if the update is expansive, the whole is tried again with a looser rule:
accelerated steps may double the residual.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.methods.window import Window

_STILL = 500  # steps without a smaller ‖r‖: it is rounding, or cycles, or there is no fixed point
_LONGEST = 10  # plain steps after rejections in turn are 1, 2, 4, …, 2 to this power
_LOOSER = 2.0  # growth of the smallest residual in an accelerated step of the second attempt
_LOST = 1e8  # growth of the smallest residual after which plain steps diverge
_EXPANDS = 1.01  # a Ritz value beyond this is of a fixed point that the iteration may leave
_DISTINCT = 1e-6  # relative singular values of the last differences below this are rounding
_NEAR = 1e3  # times the tolerance: who stopped there is at rounding, and another attempt would be too
_FELL = 0.5  # a residual that stays above so much of the first one has not fallen


@dataclass(frozen=True)
class Iterated:
    """Where an iteration ended.

    Args:
        u: ``(B, m)``. iterations: applications of F, ``(B,)``.
        residual: ‖F(u) − u‖ / (1 + ‖u‖), ``(B,)``.
        stopped: instances that ended as ‖F(u) − u‖ did not fall or grew without bound, ``(B,)``.
        adrift: of those ‖F(u) − u‖ / (1 + ‖start‖) where it is no smaller than at the start, otherwise 0,
            ``(B,)``; an iterate that moves away for ever makes the residual small by its own size.
        growth: an estimate of ρ(Φ) > 1 at fixed points that the iteration itself leaves, otherwise 0,
            ``(B,)``.
    """

    u: Tensor
    iterations: Tensor
    residual: Tensor
    stopped: Tensor
    adrift: Tensor
    growth: Tensor


def residual_of(u: Tensor, image: Tensor) -> Tensor:
    """‖F(u) − u‖ / (1 + ‖u‖) in maximum norms, ``(B,)``."""
    if not u.shape[1]:
        return u.new_zeros(len(u))
    return (image - u).abs().amax(-1) / (1 + u.abs().amax(-1))


def iterate(
    step: Callable[[Tensor], Tensor], u: Tensor, tol: float, limit: int, memory: int, deadline: Deadline
) -> Iterated:
    """Iterate u ← F(u), accelerated.

    Args:
        step: F, on ``(B, m)``.
        u: the start, ``(B, m)``.
        tol: on the residual.
        limit: iterations at most.
        memory: differences that are kept; 0 for plain steps.
        deadline: after which no further step is taken.
    """
    memory = min(memory, u.shape[1])
    first = step(u) - u
    state = _State.at(u, first, residual_of(u, u + first))
    count = state.run(step, memory, tol, (1, limit), deadline, strict=True)
    again = (state.growth > 0) | (state.stopped & ~(state.smallest <= _NEAR * tol))
    if memory and bool(again.any()) and count < limit:
        other = state.again(again, u, first, residual_of(u, u + first))
        count = other.run(step, 0, tol, (count, limit), deadline, strict=True)
        state.take(other, other.smallest <= tol)
    if memory and bool((state.stopped & ~(state.smallest <= _NEAR * tol)).any()) and count < limit:
        state.restart(u, first, _NEAR * tol)
        state.run(step, memory, tol, (count, limit), deadline, strict=False)
    stopped = state.stopped & ~(state.smallest <= tol)
    fell = state.lowest <= _FELL * first.norm(dim=-1)
    adrift = residual_of(u, u + state.best_r.abs().amax(-1, keepdim=True)) if u.shape[1] else state.smallest
    return Iterated(
        state.best,
        state.taken,
        state.smallest,
        stopped,
        torch.where(stopped & ~fell, adrift, 0.0),
        torch.where(state.smallest <= tol, state.growth, 0.0),
    )


@dataclass
class _State:
    """Of all instances.

    Args:
        u, r: the iterates and F(u) − u, ``(B, m)``.
        best, best_r: those of the smallest residual.
        smallest: that residual. lowest: the smallest ‖r‖. gained: when ‖r‖ was that, ``(B,)``.
        taken: applications of F, ``(B,)``.
        rejected: accelerated steps taken back in turn, ``(B,)``.
        stopped: who has ended without a solution, ``(B,)``.
        growth: a Ritz value of Φ beyond 1 at a fixed point that was found, otherwise 0, ``(B,)``.
    """

    u: Tensor
    r: Tensor
    best: Tensor
    best_r: Tensor
    smallest: Tensor
    lowest: Tensor
    gained: Tensor
    taken: Tensor
    rejected: Tensor
    stopped: Tensor
    growth: Tensor

    @classmethod
    def at(cls, u: Tensor, r: Tensor, residual: Tensor) -> "_State":
        """At the start."""
        zero = torch.zeros(len(u), dtype=torch.long, device=u.device)
        norm = r.norm(dim=-1)
        return cls(u, r, u, r, residual, norm, zero, zero + 1, zero, ~residual.isfinite(), 0 * norm)

    def again(self, some: Tensor, u: Tensor, r: Tensor, residual: Tensor) -> "_State":
        """Another attempt of ``some`` ``(B,)`` from the start."""
        other = _State.at(u, r, residual)
        other.stopped, other.taken = other.stopped | ~some, self.taken
        return other

    def take(self, other: "_State", some: Tensor) -> None:
        """Have what another attempt found for ``some`` ``(B,)``."""
        rows = some.unsqueeze(-1)
        self.best, self.best_r = (
            torch.where(rows, other.best, self.best),
            torch.where(rows, other.best_r, self.best_r),
        )
        self.smallest = torch.where(some, other.smallest, self.smallest)
        self.taken, self.growth = other.taken, torch.where(some, 0.0, self.growth)

    def restart(self, u: Tensor, r: Tensor, near: float) -> None:
        """Go back to the start with those that are not ``near`` a solution; the best iterates stay."""
        again = ~(self.smallest <= near)
        self.u = torch.where(again.unsqueeze(-1), u, self.u)
        self.r = torch.where(again.unsqueeze(-1), r, self.r)
        self.stopped = self.stopped & ~again | ~r.isfinite().all(-1)
        self.rejected, self.gained = 0 * self.rejected, torch.full_like(self.gained, -1)

    def run(
        self,
        step: Callable[[Tensor], Tensor],
        memory: int,
        tol: float,
        span: tuple[int, int],
        deadline: Deadline,
        strict: bool,
    ) -> int:
        """Iterate until all have ended; returns the number of the last iteration, plus one."""
        window = Window.empty(self.u, memory) if memory else None
        plain = torch.ones_like(self.stopped)  # whether a step is one
        wait = torch.zeros_like(self.rejected)  # plain steps to come
        begin, end = span
        self.gained = self.gained.clamp_min(begin)
        for k in range(begin, end):
            self.stopped = self.stopped | (k - self.gained > _STILL)
            going = ~(self.smallest <= tol) & ~self.stopped
            if deadline.passed or not bool(going.any()):
                return k
            start, left = (self.u, self.r) if window is None else window.minimize(self.u, self.r)
            start, left = (
                torch.where(plain.unsqueeze(-1), own, found)
                for own, found in ((self.u, start), (self.r, left))
            )
            following = torch.where(going.unsqueeze(-1), start + left, self.u)
            after = step(following) - following
            norm = after.norm(dim=-1)
            allowed = self.lowest if strict else _LOOSER * self.lowest
            bad = going & ~plain & ~(norm < allowed)
            self.stopped = self.stopped | (going & plain & ~(norm <= _LOST * self.lowest))
            self._note(following, after, going, k)
            if window is not None:
                window.add(following - self.u, torch.where(bad.unsqueeze(-1), 0.0, after - self.r))
                window.forget(bad)
                solved = (going & (self.smallest <= tol)).nonzero().squeeze(-1)
                if len(solved):
                    self.growth[solved] = _growth(window.take(solved))
            back = bad.unsqueeze(-1)
            to, to_r = (self.u, self.r) if strict else (self.best, self.best_r)
            self.u, self.r = torch.where(back, to, following), torch.where(back, to_r, after)
            wait = torch.where(bad, 2**self.rejected, wait - 1)
            self.rejected = torch.where(bad, self.rejected + strict, self.rejected - (~plain).long())
            self.rejected = self.rejected.clamp(0, _LONGEST)
            plain = (wait > 0) | (window is None)
        return end

    def _note(self, u: Tensor, r: Tensor, going: Tensor, k: int) -> None:
        """Keep what is better."""
        residual, norm = residual_of(u, u + r), r.norm(dim=-1)
        better = (going & (residual < self.smallest)).unsqueeze(-1)
        self.best, self.best_r = torch.where(better, u, self.best), torch.where(better, r, self.best_r)
        self.smallest = torch.where(better.squeeze(-1), residual, self.smallest)
        lower = going & (norm < self.lowest)
        self.lowest = torch.where(lower, norm, self.lowest)
        self.gained = torch.where(lower, k, self.gained)
        self.taken = self.taken + going


def _growth(window: Window) -> Tensor:
    """The largest Ritz value of Φ on the window's differences where it is beyond 1, otherwise 0, ``(b,)``."""
    norm = window.dw.norm(dim=-1, keepdim=True)
    scale = torch.where(norm > 0, 1 / norm, 0.0)
    basis, image = scale * window.dw, scale * (window.dw + window.dr)
    usable = image.isfinite().all(-1, keepdim=True) & basis.isfinite().all(-1, keepdim=True)
    basis, image = torch.where(usable, basis, 0.0), torch.where(usable, image, 0.0)
    projected = torch.linalg.pinv(basis.mT, rtol=_DISTINCT) @ image.mT
    largest = torch.linalg.eigvals(projected).abs().amax(-1)
    return torch.where(largest > _EXPANDS, largest, 0.0)
