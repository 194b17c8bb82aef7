"""One step of sequential quadratic programming.

    minimize f(x)    subject to h(x) = 0,  c(x) ≤ 0

Nocedal and Wright, "Numerical Optimization", 2006, chapter 18: x ← x + αd, where d solves

    minimize ½dᵀHd + ∇f(x)ᵀd    subject to h(x) + h′(x)d = 0,  c(x) + c′(x)d ≤ 0

The fixed points, d = 0, are the points that satisfy the KKT conditions, whatever the positive definite H is;
and as d = 0 there, H has no part in the derivative of the fixed point either, so it needs none of its own.
With H = ∇²f and linear constraints Φ = (1 − α)I along the active ones: α = 1 is Newton's method, whose Φ is 0
there. The program is solved for z = x + d: in d the fixed point would be a zero made of rounding.
"""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from cvxfold.checks import require_positive
from cvxfold.fold.updates.derivatives import gradient, jacobian
from cvxfold.torch import CvxpyLayer

Function = Callable[..., Tensor]
"""Of a point and the parameters."""


class SQPStep:
    """One SQP step on x ``(n,)`` or ``(B, n)``; the quadratic program is solved by a cvxfold layer.

    Args:
        objective: f(x, *params), a number or, for a batch, one for each instance.
        equalities: h(x, *params), ``(…, p)``, if there are any.
        inequalities: c(x, *params), ``(…, m)``, if there are any.
        hessian: H(x, *params), ``(…, n, n)``, positive definite; None for that of f, by autograd. With curved
            constraints or a nonconvex f it is to be given: the step then is no longer Newton's, and ρ(Φ) may
            exceed 1, but I − Φ is invertible where the solution is regular.
        step: α.
        equalities_jacobian, inequalities_jacobian: h′(x, *params) ``(…, p, n)`` and c′(x, *params)
            ``(…, m, n)``, made of torch operations, for the second derivatives are theirs; None for autograd,
            whose p and m products, each with a tape of its own, are slow where there are many constraints.
    """

    def __init__(
        self,
        objective: Function,
        equalities: Function | None = None,
        inequalities: Function | None = None,
        hessian: Function | None = None,
        step: float = 1.0,
        equalities_jacobian: Function | None = None,
        inequalities_jacobian: Function | None = None,
    ) -> None:
        require_positive("step", step)
        self.objective, self.equalities, self.inequalities = objective, equalities, inequalities
        self.hessian, self.step = hessian, step
        self._jacobians = (equalities_jacobian, inequalities_jacobian)
        for name, function, matrix in (
            ("equalities", equalities, equalities_jacobian),
            ("inequalities", inequalities, inequalities_jacobian),
        ):
            if matrix is not None and function is None:
                raise ValueError(f"{name}_jacobian: expected None where there are no {name}, got a function")
        self._layers: dict[tuple[int, int, int], CvxpyLayer] = {}

    def __call__(self, x: Tensor, *params: Any) -> Tensor:
        """The next x.

        Raises:
            ValueError: H is not positive definite, or values or Jacobians are not of their shapes.
        """
        R = self._root(x, params)
        values = [R, gradient(self.objective, x, params) - _times(R.mT, _times(R, x))]
        sizes = [x.shape[-1], 0, 0]
        for place, constraints in ((1, self.equalities), (2, self.inequalities)):
            if constraints is not None:
                value, matrix = self._linearized(place, constraints, x, params)
                sizes[place] = value.shape[-1]
                values += [value - _times(matrix, x), matrix] if value.shape[-1] else []
        n, p, m = sizes
        (z,) = self._layer(n, p, m)(*values)
        return x + self.step * (z - x)

    def _linearized(
        self, place: int, constraints: Function, x: Tensor, params: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        """Values ``(…, p)`` and their Jacobian ``(…, p, n)``."""
        given = self._jacobians[place - 1]
        if given is None:
            return jacobian(constraints, x, params)
        value, matrix = constraints(x, *params), given(x, *params)
        if matrix.shape != (*x.shape[:-1], value.shape[-1], x.shape[-1]):
            name = ("equalities", "inequalities")[place - 1]
            raise ValueError(
                f"{name}_jacobian: expected a tensor of shape (…, p, n), {tuple(value.shape)} and "
                f"{tuple(x.shape)} being those of values and x, got {tuple(matrix.shape)}"
            )
        return value, matrix

    def _root(self, x: Tensor, params: tuple[Any, ...]) -> Tensor:
        """R with RᵀR = H, off the tape, ``(…, n, n)``."""
        plain = x.detach()
        if self.hessian is not None:
            with torch.no_grad():
                H = self.hessian(plain, *params)
        else:
            with torch.enable_grad():
                H = jacobian(
                    lambda z, *rest: gradient(self.objective, z, rest), plain.requires_grad_(), params
                )[1]
        root, failed = torch.linalg.cholesky_ex(H.detach(), upper=True)
        if bool((failed > 0).any()):
            raise ValueError(
                "hessian: expected positive definite matrices, got others; give a hessian of your own, such "
                "as that of a convex part of the objective"
            )
        return root

    def _layer(self, n: int, p: int, m: int) -> CvxpyLayer:
        """The quadratic program of n variables, p equalities and m inequalities; made at its first use."""
        if (n, p, m) not in self._layers:
            z, R, g = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n)
            parameters: list[cp.Parameter] = [R, g]
            constraints: list[cp.Constraint] = []
            for size, equal in ((p, True), (m, False)):
                if size:
                    value, matrix = cp.Parameter(size), cp.Parameter((size, n))
                    parameters += [value, matrix]
                    constraints.append(value + matrix @ z == 0 if equal else value + matrix @ z <= 0)
            problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(R @ z) + g @ z), constraints)
            self._layers[n, p, m] = CvxpyLayer(problem, parameters, [z])
        return self._layers[n, p, m]


def _times(matrix: Tensor, v: Tensor) -> Tensor:
    return (matrix @ v.unsqueeze(-1)).squeeze(-1)
