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

from cvxfold.checks import require_count, require_positive
from cvxfold.methods.adjoint import AdjointSettings, Attempt, interval, label
from cvxfold.methods.best import Best
from cvxfold.methods.history import History, compact, relative_norm
from cvxfold.methods.linearization import Linearization
from cvxfold.methods.window import Window

_DEFAULT_ITERS = 10_000
_CHECK_EVERY = 10
_STILL = 1e-10  # a relative change of ‖r − ΔR θ‖ below this is standing still
_LOST = 1e8  # growth of the residual over the best one, after which the digits are gone


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
        best, window = Best.zero(rhs), Window.empty(rhs, min(self.memory, max(rhs.shape[1], 1)))
        w, r, reached = best.w, best.r, torch.zeros_like(best.residual)
        for k in range(1, limit + 1):
            start, target = window.minimize(w, r)
            before, reached = reached, target.norm(dim=-1)
            stuck = ((reached - before).abs() <= _STILL * before).unsqueeze(-1)
            start, target = torch.where(stuck, w, start), torch.where(stuck, r, target)
            following = start + self.step * (
                phi.inverse_transposed(target) if self.preconditioned else target
            )
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
            if len(left) < len(index):
                index, w, r, rhs, reached = (t[left] for t in (index, w, r, rhs, reached))
                best, window, phi = best.take(left), window.take(left), phi.take(left)
            if len(left) == 0 or settings.deadline.passed:
                break
        return Attempt.ended(out, compact(history.stack(out)), label("anderson", self.preconditioned), index)
