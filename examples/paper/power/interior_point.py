"""A primal-dual interior-point method for equalities and bounds, batched.

    minimize f(x)    subject to h(x) = 0,  l ≤ x ≤ u

Nocedal and Wright, "Numerical Optimization", 2006, chapter 19, without a line search, as is usual for power
flows (Wang, Murillo-Sánchez, Zimmerman and Thomas, "On computational issues of market-based optimal power
flow", IEEE Trans. Power Syst. 22, 2007):

    1. residuals of the KKT conditions, with complementarity relaxed to μ
    2. Newton's step on them, the multipliers y, z of the bounds eliminated
    3. as far as the iterate stays inside of the bounds, and y, z positive
    4. μ ← σ (average complementarity)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CENTRING, TO_THE_BOUNDARY = 0.1, 0.9995  # σ, and the share of the way that is taken


@dataclass(frozen=True)
class Program:
    """f and h by their derivatives, of x ``(B, n)``.

    Args:
        gradient: ∇f(x), ``(B, n)``. mismatch: h(x), ``(B, p)``. jacobian: h′(x), ``(B, p, n)``.
        hessian: of f + λᵀh at (x, λ), ``(B, n, n)``.
        low, high: bounds, ``(n,)``, infinite where there are none.
    """

    gradient: Callable[[Tensor], Tensor]
    mismatch: Callable[[Tensor], Tensor]
    jacobian: Callable[[Tensor], Tensor]
    hessian: Callable[[Tensor, Tensor], Tensor]
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Point:
    """x ``(B, n)``, λ ``(B, p)``, multipliers of the bounds ``(B, n)`` each, and the residual ``(B,)``.

    The residual is NaN where no KKT point was found.
    """

    x: Tensor
    equality: Tensor
    below: Tensor
    above: Tensor
    residual: Tensor

    def newton(self, program: Program) -> Tensor:
        """The matrix of Newton's step here, multipliers of the bounds eliminated, ``(B, n + p, n + p)``."""
        weights = self.below / (self.x - program.low) + self.above / (program.high - self.x)
        H = program.hessian(self.x, self.equality) + torch.diag_embed(weights)
        J = program.jacobian(self.x)
        zeros = J.new_zeros(len(J), J.shape[-2], J.shape[-2])
        return torch.cat([torch.cat([H, J.mT], -1), torch.cat([J, zeros], -1)], -2)


@torch.no_grad()
def minimize(program: Program, x: Tensor, tol: float = 1e-11, most: int = 60) -> Point:
    """A KKT point, from x strictly inside of the bounds.

    Args:
        program: the problem.
        x: the start, ``(B, n)``.
        tol: on the maximum norm of the KKT conditions' residual.
        most: iterations.
    """
    low, high = program.low, program.high
    bounded = torch.stack([low.isfinite(), high.isfinite()])
    multipliers = torch.zeros_like(program.mismatch(x))
    y, z = (bounded.unsqueeze(1) * torch.ones_like(x)).unbind()
    residual = torch.full_like(x[:, 0], torch.inf)
    for k in range(most + 1):
        J, h = program.jacobian(x), program.mismatch(x)  # 1
        to_low, to_high = x - low, high - x
        products = torch.where(bounded[0], y * to_low, 0), torch.where(bounded[1], z * to_high, 0)
        slope = program.gradient(x) + (J.mT @ multipliers.unsqueeze(-1)).squeeze(-1) - y + z
        residual = torch.cat([slope, h, *products], dim=-1).abs().amax(-1)
        going = (residual > tol).unsqueeze(-1)
        if k == most or not bool(going.any()):
            break
        mu = (CENTRING / bounded.sum() * (products[0] + products[1]).sum(-1)).unsqueeze(-1)  # 4
        right = torch.cat([-slope - y + z + mu / to_low - mu / to_high, -h], dim=-1)
        system = Point(x, multipliers, y, z, residual).newton(program)
        step = torch.linalg.solve(system, right)  # 2
        dx, dm = step.split([x.shape[1], h.shape[1]], dim=-1)
        dy = torch.where(bounded[0], mu / to_low - y - y / to_low * dx, 0)
        dz = torch.where(bounded[1], mu / to_high - z + z / to_high * dx, 0)
        primal = going * torch.minimum(_room(to_low, dx), _room(to_high, -dx))  # 3
        dual = going * torch.minimum(_room(y, dy), _room(z, dz))
        x, multipliers = x + primal * dx, multipliers + dual * dm
        y, z = y + dual * dy, z + dual * dz
    residual = residual.masked_fill(~(residual <= tol), torch.nan)
    return Point(x, multipliers, y, z, residual)


def _room(value: Tensor, step: Tensor) -> Tensor:
    """How much of a step, at most 1, leaves a positive value positive, ``(B, 1)``."""
    ratio = torch.where(step < 0, -TO_THE_BOUNDARY * value / step, torch.inf)
    return ratio.amin(-1, keepdim=True).clamp(max=1.0)
