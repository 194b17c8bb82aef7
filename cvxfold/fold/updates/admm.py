"""ADMM for quadratic programs, on a state of the size of the constraints.

    minimize ½xᵀPx + qᵀx    subject to l ≤ Ax ≤ u

The alternating direction method of multipliers on the split Ax = z (Stellato, Banjac, Goulart, Bemporad and
Boyd, "OSQP: an operator splitting solver for quadratic programs", 2020, without its σ) keeps (z, y); both are
functions of v = Ax + y/ρ alone, so that is the state:

    z = Π(v)     y = ρ(v − z)     (P + ρAᵀA) x = Aᵀ(ρz − y) − q     v ← v + α(Ax − z)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.checks import require_positive
from cvxfold.fold.projections import box


@dataclass(frozen=True)
class ADMM:
    """One iteration on the state v ``(…, m)``. It converges for every ρ > 0, 0 < α < 2 and semidefinite P.

    Args:
        program: (P, q, A, l, u) of the parameters, ``(…, n, n)``, ``(…, n)``, ``(…, m, n)`` and ``(…, m)``
            twice; P + AᵀA must be positive definite; bounds may be infinite, and equal for an equality.
        penalty: ρ.
        relaxation: α.

    Raises:
        ValueError: ρ or α is out of range.
    """

    program: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]
    penalty: float = 1.0
    relaxation: float = 1.6

    def __post_init__(self) -> None:
        require_positive("penalty", self.penalty)
        require_positive("relaxation", self.relaxation)
        if self.relaxation >= 2:
            raise ValueError(f"relaxation: expected a number between 0 and 2, got {self.relaxation!r}")

    def __call__(self, v: Tensor, *params: Any) -> Tensor:
        """The next state, ``(…, m)``."""
        x, z, _ = self._parts(v, params)
        A = self.program(*params)[2]
        return v + self.relaxation * (_times(A, x) - z)

    def primal(self, v: Tensor, *params: Any) -> Tensor:
        """x, ``(…, n)``: the solution, at the fixed point."""
        return self._parts(v, params)[0]

    def dual(self, v: Tensor, *params: Any) -> Tensor:
        """y, ``(…, m)``: the multipliers, at the fixed point positive at upper bounds."""
        return self._parts(v, params)[2]

    def state(self, x: Tensor, y: Tensor, *params: Any) -> Tensor:
        """v ``(…, m)`` of a solution and its multipliers: what a solver is to return."""
        return _times(self.program(*params)[2], x) + y / self.penalty

    def _parts(self, v: Tensor, params: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor]:
        P, q, A, low, high = self.program(*params)
        z = box(v, low, high)
        y = self.penalty * (v - z)
        factor = torch.linalg.cholesky(P + self.penalty * A.mT @ A)
        right = _times(A.mT, self.penalty * z - y) - q
        return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1), z, y


def _times(A: Tensor, x: Tensor) -> Tensor:
    return (A @ x.unsqueeze(-1)).squeeze(-1)
