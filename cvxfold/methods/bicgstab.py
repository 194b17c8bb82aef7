"""BiCGSTAB for the adjoint system: two products and a constant amount of memory per iteration.

van der Vorst, "Bi-CGSTAB: a fast and smoothly converging variant of Bi-CG for the solution of nonsymmetric
linear systems", 1992. With S = (I − Φᵀ) N and a shadow residual r̂, one iteration is

    ρ = ⟨r̂, r⟩     p ← r + (ρ/ρ₋)(α/ω)(p − ωv)     v = S p     α = ρ/⟨r̂, v⟩
    s = r − αv     t = S s     ω = ⟨t, s⟩/⟨t, t⟩     w ← w + N(αp + ωs)     r ← s − ωt

N = I, or the approximate inverse. Where ρ, ⟨r̂, v⟩ or ω vanishes the instance starts again from its residual.
The updated r drifts from the true residual, by which it is replaced at every look (van der Vorst and Ye,
"Residual replacement strategies for Krylov subspace iterative methods", 2000).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.methods.adjoint import AdjointSettings, Attempt, interval, label
from cvxfold.methods.best import Best
from cvxfold.methods.history import History, compact, relative_norm
from cvxfold.methods.linearization import Linearization

_DEFAULT_ITERS = 10_000
_CHECK_EVERY = 10  # iterations between looks: each costs a product
_BREAKDOWN = 1e-13  # a cosine below this is rounding
_LOST = 1e8  # growth of the residual over the best one, after which the digits are gone
_DRIFT = 0.1  # of the true residual: the recurrences are worth nothing any more


@dataclass(frozen=True)
class BiCGSTAB:
    """Stabilized biconjugate gradients.

    Args:
        preconditioned: whether to use the linearization's approximate inverse on the right.
    """

    preconditioned: bool = False
    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Iterate until each instance's true residual is within the tolerance."""
        limit = settings.max_iters or _DEFAULT_ITERS
        every = interval(_CHECK_EVERY, self.preconditioned)
        out, history = torch.zeros_like(rhs), History(rhs.shape[0])
        index = torch.arange(rhs.shape[0], device=rhs.device)
        best, state = Best.zero(rhs), _State.at(rhs)
        recent = Best.zero(rhs)  # since the last look, by the updated residual
        since: list[Tensor] = []
        for k in range(1, limit + 1):
            going = recent.residual > settings.tol
            state.advance(phi, going, self.preconditioned)
            residual = relative_norm(state.r, rhs)
            recent.offer(state.w, state.r, residual)
            state.go_back(~(residual <= _LOST * best.residual), best)
            since.append(torch.where(going, residual, torch.nan))
            if k % every and k < limit and not settings.deadline.passed:
                continue
            r = rhs - (state.w - phi.vjp(state.w))
            residual, drift = relative_norm(r, rhs), relative_norm(r - state.r, rhs)
            for row in _corrected(torch.stack(since), residual):
                history.append(row, index)
            since = []
            best.offer(recent.w, recent.r, recent.residual + drift)  # what is known of its true residual
            best.offer(state.w, r, residual)
            out[index] = best.w
            state.r, state.fresh = r, state.fresh | (drift > _DRIFT * residual)
            recent = Best(state.w, r, residual, best.largest)
            left = (best.residual > settings.tol).nonzero().squeeze(-1)
            if len(left) < len(index):
                index, rhs, phi = index[left], rhs[left], phi.take(left)
                best, recent, state = best.take(left), recent.take(left), state.take(left)
            if len(left) == 0 or settings.deadline.passed:
                break
        return Attempt.ended(out, compact(history.stack(out)), label("bicgstab", self.preconditioned), index)


@dataclass
class _State(Batched):
    """What one iteration hands to the next: vectors ``(b, m)`` and, by instance, scalars ``(b, 1)``."""

    w: Tensor
    r: Tensor
    shadow: Tensor
    p: Tensor
    v: Tensor
    rho: Tensor
    alpha: Tensor
    omega: Tensor
    fresh: Tensor  # ``(b,)``: starts again from r

    @classmethod
    def at(cls, rhs: Tensor) -> "_State":
        """At w = 0."""
        zero, one = torch.zeros_like(rhs), rhs.new_ones(rhs.shape[0], 1)
        return cls(zero, rhs, rhs, zero, zero, one, one, one, one.squeeze(-1) > 0)

    def advance(self, phi: Linearization, going: Tensor, preconditioned: bool) -> None:
        """One iteration of the instances that are ``going`` ``(b,)``; the others stay where they are."""
        moving = going.unsqueeze(-1)
        rho, orthogonal = _dot(self.shadow, self.r)
        self.shadow = torch.where(orthogonal, self.r, self.shadow)
        rho = torch.where(orthogonal, _dot(self.r, self.r)[0], rho)
        beta = rho / self.rho * self.alpha / self.omega
        following = self.r + beta * (self.p - self.omega * self.v)
        p = torch.where(self.fresh.unsqueeze(-1) | orthogonal, self.r, following)
        p_hat = phi.inverse_transposed(p) if preconditioned else p
        v = p_hat - phi.vjp(p_hat)
        overlap, broken = _dot(self.shadow, v)
        alpha = torch.where(broken | ~moving, 0.0, rho / overlap)
        s = self.r - alpha * v
        s_hat = phi.inverse_transposed(s) if preconditioned else s
        t = s_hat - phi.vjp(s_hat)
        overlap, flat = _dot(t, s)
        omega = torch.where(flat | ~moving, 0.0, overlap / t.square().sum(-1, keepdim=True))
        self.w = torch.where(moving, self.w + alpha * p_hat + omega * s_hat, self.w)
        self.r = torch.where(moving, s - omega * t, self.r)
        self.p, self.v, self.rho, self.alpha, self.omega = p, v, rho, alpha, omega
        self.fresh = ((alpha == 0) | (omega == 0)).squeeze(-1)
        # Where r̂ = r is orthogonal to S r it would be so again: r̂ gets a part along v.
        other = torch.where(broken, _unit(self.r) + _unit(v), self.r)
        self.shadow = torch.where(self.fresh.unsqueeze(-1), other, self.shadow)

    def go_back(self, lost: Tensor, to: Best) -> None:
        """Start the instances that are ``lost`` ``(b,)`` again from another iterate."""
        where = lost.unsqueeze(-1)
        self.w, self.r = torch.where(where, to.w, self.w), torch.where(where, to.r, self.r)
        self.shadow = torch.where(where, to.r, self.shadow)
        self.fresh = self.fresh | lost


def _corrected(history: Tensor, residual: Tensor) -> Tensor:
    """``history`` ``(k, b)``, NaN after an instance stopped, with the true residual as its last entry."""
    rows = torch.arange(len(history), device=history.device).unsqueeze(-1)
    return torch.where(rows == (~history.isnan()).sum(0) - 1, residual, history)


def _dot(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """⟨a, b⟩ ``(b, 1)``, and whether it is no more than rounding."""
    product = (a * b).sum(-1, keepdim=True)
    size = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    return product, product.abs() <= _BREAKDOWN * size


def _unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
