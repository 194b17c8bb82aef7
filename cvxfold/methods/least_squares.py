"""The least-norm least-squares adjoint, for where I − Φ is singular and the derivative may not exist.

CGLS (Björck, "Numerical Methods for Least Squares Problems", 1996, section 7.4): conjugate gradients on
SᵀS w = Sᵀū with S = I − Φᵀ, from w = 0, so w stays in the range of Sᵀ and tends to S⁺ū. Where the system is
consistent that is the solution of least norm; where it is not, the residual stays and says so.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.methods.adjoint import AdjointSettings, Attempt
from cvxfold.methods.history import History, relative_norm
from cvxfold.methods.linearization import Linearization

_DEFAULT_ITERS = 500
_CHECK_EVERY = 10
_STATIONARY = 1e-12  # of ‖Sᵀr‖ relative to ‖Sᵀū‖ and to ‖ū‖, as the former may itself be rounding


@dataclass(frozen=True)
class LeastSquares:
    """CGLS on the adjoint system."""

    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Iterate until each residual is within the tolerance or is orthogonal to the range of S."""
        w, r, history = torch.zeros_like(rhs), rhs.clone(), History(rhs.shape[0])
        everyone = torch.arange(rhs.shape[0], device=rhs.device)
        gradient = r - phi.jvp(r)
        direction = gradient
        size = gradient.square().sum(-1)
        floor = _STATIONARY**2 * torch.maximum(size, rhs.square().sum(-1))
        going = size > floor
        for k in range(settings.max_iters or _DEFAULT_ITERS):
            image = direction - phi.vjp(direction)
            step = _ratio(size, image.square().sum(-1)) * going
            w = w + step.unsqueeze(-1) * direction
            r = r - step.unsqueeze(-1) * image
            residual = relative_norm(r, rhs)
            history.append(torch.where(going, residual, torch.nan), everyone)
            gradient = r - phi.jvp(r)
            previous, size = size, gradient.square().sum(-1)
            direction = gradient + _ratio(size, previous).unsqueeze(-1) * direction
            going = going & (residual > settings.tol) & (size > floor)
            if settings.deadline.passed or (k % _CHECK_EVERY == 0 and not bool(going.any())):
                break
        return Attempt(w, history.stack(rhs), "least squares", going)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))
