"""Linear fixed-point iteration: what backpropagation through an unrolled solver computes.

    w ← Φᵀ w + ū

From w = 0, K steps are exactly the gradient of K iterations unrolled at the fixed point, and the error
falls like ρ(Φ)ᴷ (Kotary, Christopher, Dinh and Fioretto, arXiv 2312.17394, section 4).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.fold.adjoint import AdjointSettings, Attempt, History, relative_norm
from cvxfold.fold.linearization import Linearization

_DEFAULT_ITERS = 50_000
_CHECK_EVERY = 20  # iterations between looks at who has converged: each look waits for the device


@dataclass(frozen=True)
class LFPI:
    """Linear fixed-point iteration."""

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Iterate until each instance's residual ‖wₖ₊₁ − wₖ‖/‖ū‖ is within the tolerance."""
        limit = settings.max_iters or _DEFAULT_ITERS
        out, history = torch.zeros_like(rhs), History(rhs.shape[0])
        index = torch.arange(rhs.shape[0], device=rhs.device)
        w = torch.zeros_like(rhs)
        for k in range(1, limit + 1):
            following = phi.vjp(w) + rhs
            residual = relative_norm(following - w, rhs)
            before, w = w, following
            history.append(residual, index)
            if k % _CHECK_EVERY and k < limit:
                continue
            # What was measured is the residual of the w before the last step.
            out[index] = torch.where((residual <= settings.tol).unsqueeze(-1), before, w)
            left = (~(residual <= settings.tol)).nonzero().squeeze(-1)
            if len(left) == 0:
                break
            if len(left) < len(index):
                index, w, rhs, phi = index[left], w[left], rhs[left], phi.take(left)
        return Attempt(out, history.stack(rhs), "lfpi")
