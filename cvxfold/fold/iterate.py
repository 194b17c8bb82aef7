"""The fixed point of an update that nobody else solves for: Anderson acceleration with a safeguard.

Walker and Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 49, 2011. With
r = F(u) − u, ΔU and ΔR the last differences of iterates and of their residuals,

    1. θ = argmin ‖r − ΔR θ‖         u ← (u − ΔU θ) + (r − ΔR θ)
    2. where the new residual is much larger than the best one, forget the differences and take the plain step
       u ← F(u) from the best iterate; a plain step is taken as it comes
    3. stop where ‖r‖ ≤ tol (1 + ‖u‖), in maximum norms, or where no residual has become smaller for long
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.methods.window import Window

_STILL = 500  # steps without a smaller residual: it is rounding, or cycles
_LARGER = 2.0  # times the best residual: the model that Anderson's step rests on does not hold


@dataclass(frozen=True)
class Iterated:
    """Where an iteration ended.

    Args:
        u: ``(B, m)``. iterations: applications of F, ``(B,)``.
        residual: ‖F(u) − u‖ / (1 + ‖u‖), ``(B,)``.
    """

    u: Tensor
    iterations: Tensor
    residual: Tensor


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
    batch, m = u.shape
    best = u
    best_r = r = step(u) - u
    smallest = residual_of(u, u + r)
    taken = torch.ones(batch, dtype=torch.long, device=u.device)
    window = Window.empty(u, min(memory, m)) if min(memory, m) else None
    plain = torch.ones(batch, dtype=torch.bool, device=u.device)
    gained = 0
    for k in range(1, limit):
        going = ~(smallest <= tol)  # 3
        if deadline.passed or k - gained > _STILL or not bool((going & smallest.isfinite()).any()):
            break
        start, left = (u, r) if window is None else window.minimize(u, r)  # 1
        following = torch.where(going.unsqueeze(-1), start + left, u)
        image = step(following)
        after = image - following
        residual = residual_of(following, image)
        bad = going & ~(residual <= _LARGER * smallest) & (~plain | ~residual.isfinite())  # 2
        better = going & (residual < smallest)
        best = torch.where(better.unsqueeze(-1), following, best)
        best_r = torch.where(better.unsqueeze(-1), after, best_r)
        smallest = torch.where(better, residual, smallest)
        gained = k if bool(better.any()) else gained
        taken = torch.where(going, k + 1, taken)
        if window is not None:
            window.add(following - u, torch.where(bad.unsqueeze(-1), 0.0, after - r))
            if bool(bad.any()):
                window.forget(bad)
        u = torch.where(bad.unsqueeze(-1), best, following)
        r = torch.where(bad.unsqueeze(-1), best_r, after)
        plain = bad | (window is None)
    return Iterated(best, taken, smallest)
