"""The direct method: an approximate inverse of I − Φᵀ, corrected by iterative refinement."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.methods.adjoint import AdjointSettings, Attempt
from cvxfold.methods.history import History, relative_norm
from cvxfold.methods.linearization import Linearization

_DEFAULT_ITERS = 10
_FLOOR = 1e-14
_FAR = 2  # iterations between looks at a device that is far


@dataclass(frozen=True)
class Direct:
    """w ← w + N (ū − (I − Φᵀ) w) with N ≈ (I − Φᵀ)⁻¹, as long as that halves the residual."""

    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Refine each instance to the floor of the arithmetic; the tolerance is met on the way."""
        best = torch.zeros_like(rhs)
        best_residual = rhs.new_full((rhs.shape[0],), torch.inf)
        w, r, history = torch.zeros_like(rhs), rhs, History(rhs.shape[0])
        going = torch.ones_like(best_residual, dtype=torch.bool)
        everyone = torch.arange(rhs.shape[0], device=rhs.device)
        every = 1 if is_near(rhs) else _FAR
        limit = settings.max_iters or _DEFAULT_ITERS
        for k in range(1, limit + 1):
            w = w + phi.inverse_transposed(r)
            r = rhs - (w - phi.vjp(w))
            residual = relative_norm(r, rhs)
            history.append(torch.where(going, residual, torch.nan), everyone)
            halved = residual < 0.5 * best_residual
            better = going & (residual < best_residual)
            best = torch.where(better.unsqueeze(-1), w, best)
            best_residual = torch.where(better, residual, best_residual)
            going = going & halved & (residual > _FLOOR)
            if settings.deadline.passed or (k % every == 0 and not bool(going.any())):
                break
        better = (best_residual < 1).unsqueeze(-1)  # than nothing
        return Attempt(torch.where(better, best, 0.0), history.stack(rhs), "direct", going)
