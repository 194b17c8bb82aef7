"""Gradient steps: projected, proximal, and with momentum.

Beck, "First-Order Methods in Optimization", 2017, chapters 9 and 10. Fixed points are where −∇f(x) is in the
normal cone of the set (a subgradient of g), whatever the step; Φ, and so every rate, depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.fold.updates.derivatives import gradient

Function = Callable[..., Tensor]
"""Of a point and the parameters."""


@dataclass(frozen=True)
class ProjectedGradient:
    """x ← Π(x − α ∇f(x)): minimize f over a set. Converges for α < 2/L, L the Lipschitz constant of ∇f.

    Args:
        objective: f(x, *params), a number or, for a batch, one for each instance; ∇f by autograd.
        project: Π(z, *params), such as those in :mod:`cvxfold.fold.projections`.
        step: α.
    """

    objective: Function
    project: Function
    step: float | Tensor

    def __call__(self, x: Tensor, *params: Any) -> Tensor:
        """The next x, ``(…, n)``."""
        return self.project(x - self.step * gradient(self.objective, x, params), *params)


@dataclass(frozen=True)
class ProximalGradient:
    """x ← prox_{αg}(x − α ∇f(x)): minimize f + g. Converges for α < 2/L.

    Args:
        objective: f(x, *params), the smooth part.
        prox: prox(z, α, *params) = argmin g(x) + ‖x − z‖²/(2α).
        step: α.
    """

    objective: Function
    prox: Function
    step: float | Tensor

    def __call__(self, x: Tensor, *params: Any) -> Tensor:
        """The next x, ``(…, n)``."""
        return self.prox(x - self.step * gradient(self.objective, x, params), self.step, *params)


@dataclass(frozen=True)
class Accelerated:
    """x ← F(x + β(x − x₋)): any of these updates with a constant momentum.

    Of a proximal gradient step this is Nesterov's method (for f that is μ-strongly convex the best β is
    (√κ − 1)/(√κ + 1), κ = L/μ); of a dual proximal gradient step it is FDPG. The state is the pair (x, x₋),
    equal at the fixed point: that is what a solver is to return.

    Args:
        update: F, of a single tensor.
        momentum: β, at least 0 and below 1.

    Raises:
        ValueError: the momentum is out of range.
    """

    update: Callable[..., Tensor]
    momentum: float

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number from 0 to below 1, got {self.momentum!r}")

    def __call__(self, state: tuple[Tensor, Tensor], *params: Any) -> tuple[Tensor, Tensor]:
        """The next pair."""
        x, before = state
        return self.update(torch.lerp(x, before, -self.momentum), *params), x
