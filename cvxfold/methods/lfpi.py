"""Linear fixed-point iteration: what backpropagation through an unrolled solver computes.

    w ← w + γ N (ū − (I − Φᵀ) w)          with γ = 1 and N = I:   w ← Φᵀ w + ū

From w = 0, K steps of the latter are exactly the gradient of K iterations unrolled at the fixed point, and
the error falls like ρ(Φ)ᴷ (Kotary, Christopher, Dinh and Fioretto, arXiv 2312.17394, section 4). γ is a step
size of the backward pass alone: Φ = I − αJ makes it a relaxation γα where the forward pass has α. N is I, or
the approximate inverse.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.checks import require_positive
from cvxfold.methods.adjoint import AdjointSettings, Attempt, interval, label
from cvxfold.methods.best import Best
from cvxfold.methods.history import History, compact, relative_norm, until
from cvxfold.methods.linearization import Linearization

_DEFAULT_ITERS = 50_000
_CHECK_EVERY = 20
_LOST = 1e8  # growth of the residual over the best one that was looked at: it diverges


@dataclass(frozen=True)
class LFPI:
    """Linear fixed-point iteration.

    Args:
        step: γ.
        preconditioned: whether to use the linearization's approximate inverse.
    """

    step: float = 1.0
    preconditioned: bool = False
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("step", self.step)

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Iterate until each instance's residual is within the tolerance, or out of hand."""
        limit = settings.max_iters or _DEFAULT_ITERS
        every = interval(_CHECK_EVERY, self.preconditioned)
        out, history = torch.zeros_like(rhs), History(rhs.shape[0])
        index = torch.arange(rhs.shape[0], device=rhs.device)
        best = Best.zero(rhs)
        w, r, image = best.w, best.r, rhs
        for k in range(1, limit + 1):
            w = self._step(phi, w, image, r)
            pulled = phi.vjp(w)
            image, r = pulled + rhs, rhs - (w - pulled)
            residual = relative_norm(r, rhs)
            history.append(residual, index)
            if k % every and k < limit and not settings.deadline.passed:
                continue
            sane = residual <= _LOST * best.residual
            best.offer(w, r, residual)
            out[index] = torch.where(sane.unsqueeze(-1), w, best.w)
            left = (sane & (residual > settings.tol)).nonzero().squeeze(-1)
            if len(left) < len(index):
                index, w, r, image, rhs = (t[left] for t in (index, w, r, image, rhs))
                best, phi = best.take(left), phi.take(left)
            if len(left) == 0 or settings.deadline.passed:
                break
        kept = compact(until(history.stack(out), settings.tol))
        return Attempt.ended(out, kept, label("lfpi", self.preconditioned), index)

    def _step(self, phi: Linearization, w: Tensor, image: Tensor, r: Tensor) -> Tensor:
        """The next w, from Φᵀw + ū and what that differs from w by."""
        if self.preconditioned:
            return w + self.step * phi.inverse_transposed(r)
        return image if self.step == 1 else w + self.step * r
