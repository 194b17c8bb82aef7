"""The dual proximal gradient method; with momentum (``Accelerated``) FDPG.

Beck and Teboulle, "A fast dual proximal gradient algorithm for convex minimization and applications", Oper.
Res. Lett. 42, 2014. Minimize f(x) + g(Ax), f strongly convex. With x(y) = argmin f(x) + yᵀAx = ∇f*(−Aᵀy) the
dual is to maximize −f*(−Aᵀy) − g*(y), and its proximal gradient step is

    y ← prox_{tg*}(y + t A x(y)),     prox_{tg*}(v) = v − t prox_{g/t}(v/t)      (Moreau)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class DualProximalGradient:
    """One step on the dual variable y ``(…, p)``. Converges for t < 2σ/‖A‖², σ the modulus of f.

    Args:
        conjugate_gradient: ∇f*(z, *params), the x that maximizes zᵀx − f(x), ``(…, n)``.
        operator: A(*params), ``(…, p, n)``.
        prox: prox(z, s, *params) = argmin g(x) + ‖x − z‖²/(2s).
        step: t.
    """

    conjugate_gradient: Callable[..., Tensor]
    operator: Callable[..., Tensor]
    prox: Callable[..., Tensor]
    step: float

    def __call__(self, y: Tensor, *params: Any) -> Tensor:
        """The next y, ``(…, p)``."""
        t, A = self.step, self.operator(*params)
        v = y + t * _times(A, self.primal(y, *params))
        return v - t * self.prox(v / t, 1 / t, *params)

    def primal(self, y: Tensor, *params: Any) -> Tensor:
        """x(y), ``(…, n)``: the solution, at the fixed point."""
        return self.conjugate_gradient(-_times(self.operator(*params).mT, y), *params)


def _times(A: Tensor, x: Tensor) -> Tensor:
    return (A @ x.unsqueeze(-1)).squeeze(-1)
