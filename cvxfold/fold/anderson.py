"""Anderson acceleration of the linear fixed-point iteration.

Walker and Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 49, 2011. With r the
residual of w and ΔW, ΔR the last differences of iterates and of their residuals,

    θ = argmin ‖r − ΔR θ‖        w ← (w − ΔW θ) + γ N (r − ΔR θ)

N = I, or the approximate inverse. On a linear system r − ΔR θ is the residual of w − ΔW θ. As long as
nothing is forgotten this is GMRES (ibid., section 2), with two safeguards. Where GMRES stands still w would
be repeated for ever, so it takes plain steps until there is progress. Where the residual gets out of hand
the next step is made from the best iterate.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.fold.adjoint import (
    AdjointSettings,
    Attempt,
    History,
    compact,
    interval,
    label,
    relative_norm,
    require_count,
    require_positive,
)
from cvxfold.fold.best import Best
from cvxfold.fold.linearization import Linearization

_DEFAULT_ITERS = 10_000
_CHECK_EVERY = 10
_STILL = 1e-10  # a relative change of ‖r − ΔR θ‖ below this is standing still
_LOST = 1e8  # growth of the residual over the best one, after which the digits are gone
_REGULARIZATION = 30  # of the normal equations of unit columns, in units of roundoff times their number
_CORRECTIONS = 2  # of θ, which undo what the regularization did to all but the smallest singular values


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration.

    Args:
        memory: differences that are kept.
        step: γ.
        preconditioned: whether to use the linearization's approximate inverse.
    """

    memory: int = 10
    step: float = 1.0
    preconditioned: bool = False
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_count("memory", self.memory)
        require_positive("step", self.step)

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Iterate until each instance's best residual is within the tolerance."""
        limit = settings.max_iters or _DEFAULT_ITERS
        every = interval(_CHECK_EVERY, self.preconditioned)
        out, history = torch.zeros_like(rhs), History(rhs.shape[0])
        index = torch.arange(rhs.shape[0], device=rhs.device)
        best, window = Best.zero(rhs), _Window.empty(rhs, min(self.memory, max(rhs.shape[1], 1)))
        w, r, reached = best.w, best.r, torch.zeros_like(best.residual)
        for k in range(1, limit + 1):
            start, target = window.minimize(w, r)
            before, reached = reached, target.norm(dim=-1)
            stuck = ((reached - before).abs() <= _STILL * before).unsqueeze(-1)
            start, target = torch.where(stuck, w, start), torch.where(stuck, r, target)
            following = start + self.step * (phi.solve(target) if self.preconditioned else target)
            image = rhs - (following - phi.vjp(following))
            going = best.residual > settings.tol
            residual = torch.where(going, relative_norm(image, rhs), torch.nan)
            history.append(residual, index)
            best.offer(following, image, residual)
            sane = (residual <= _LOST * best.residual).unsqueeze(-1)
            following, image = torch.where(sane, following, best.w), torch.where(sane, image, best.r)
            window.add(following - w, image - r)
            w, r = following, image
            if k % every and k < limit and not settings.deadline.passed:
                continue
            out[index] = best.w
            left = ((best.residual > settings.tol) & residual.isfinite()).nonzero().squeeze(-1)
            if len(left) == 0 or settings.deadline.passed:
                break
            if len(left) < len(index):
                index, w, r, rhs, reached = (t[left] for t in (index, w, r, rhs, reached))
                best, window, phi = best.take(left), window.take(left), phi.take(left)
        return Attempt(out, compact(history.stack(rhs)), label("anderson", self.preconditioned))


@dataclass
class _Window:
    """The last differences, scaled so that those of the residuals have unit length.

    Args:
        dw: of the iterates, ``(b, p, m)``; zero where there is none yet.
        dr: of their residuals, ``(b, p, m)``.
        gram: ΔRᵀ ΔR, regularized, ``(b, p, p)``; its diagonal is the same where there is no difference.
        added: how many there have been.
    """

    dw: Tensor
    dr: Tensor
    gram: Tensor
    added: int = 0

    @classmethod
    def empty(cls, rhs: Tensor, size: int) -> "_Window":
        """No differences, room for ``size``."""
        none = rhs.new_zeros(rhs.shape[0], size, rhs.shape[1])
        gram = torch.eye(size, dtype=rhs.dtype, device=rhs.device) * (1 + _ridge(none))
        gram = gram.repeat(rhs.shape[0], 1, 1)
        return cls(none, none.clone(), gram)

    def add(self, dw: Tensor, dr: Tensor) -> None:
        """Put a difference in the place of the oldest."""
        slot = self.added % self.dw.shape[1]
        norm = dr.norm(dim=-1, keepdim=True)
        scale = torch.where(norm > 0, 1 / norm, 0.0)
        self.dw[:, slot], self.dr[:, slot] = scale * dw, scale * dr
        overlaps = (self.dr @ self.dr[:, slot].unsqueeze(-1)).squeeze(-1)
        self.gram[:, slot], self.gram[:, :, slot] = overlaps, overlaps
        self.gram[:, slot, slot] = 1 + _ridge(self.dr)
        self.added += 1

    def minimize(self, w: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """w − ΔW θ and its residual r − ΔR θ, the smallest there is."""
        factor, failed = torch.linalg.cholesky_ex(self.gram)
        for _ in range(1 + _CORRECTIONS):
            theta = torch.cholesky_solve(self.dr @ r.unsqueeze(-1), factor)
            theta = torch.where((failed > 0).view(-1, 1, 1), 0.0, theta).mT
            w, r = w - (theta @ self.dw).squeeze(-2), r - (theta @ self.dr).squeeze(-2)
        return w, r

    def take(self, index: Tensor) -> "_Window":
        """Keep the instances ``index`` ``(b,)``."""
        return _Window(self.dw[index], self.dr[index], self.gram[index], self.added)


def _ridge(differences: Tensor) -> float:
    return _REGULARIZATION * differences.shape[1] * torch.finfo(differences.dtype).eps
