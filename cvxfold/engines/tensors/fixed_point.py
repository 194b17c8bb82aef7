"""A solution as a fixed point of F: where the derivative is taken, and the way to the original program."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones import ProductDerivative
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.reduction.presolve import Reduced
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_KEPT = ("D", "jacobian", "proximal")  # what can be computed again


@dataclass(frozen=True)
class FixedPoint(Batched):
    """Fixed points u* = F(u*) of a batch.

    Args:
        splitting: F, of the reduced and equilibrated program.
        scaling: the equilibration. reduced: the presolve.
        point: the fixed points, in the units of that program.
        x: ``(B, n)``, in the original program and its units.
        y: ``(B, m)``, likewise.
    """

    splitting: Splitting
    scaling: Scaling
    reduced: Reduced
    point: Iterate
    x: Tensor
    y: Tensor

    @property
    def u(self) -> Tensor:
        """The state, ``(B, m')``."""
        return self.point.u

    @cached_property
    def D(self) -> ProductDerivative:
        """DΠ_K(u)."""
        return self.splitting.program.cone.derivative(self.u)

    @cached_property
    def jacobian(self) -> FactoredJacobian:
        """J here, factored once: the rows of a user's Jacobian share it."""
        return FactoredJacobian.at(self.splitting, self.u, self.D)

    def lift(self, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """A direction ``(B, n')``, ``(B, m')`` of x and y in the original program, ``(B, n)``, ``(B, m)``.

        What presolve took out follows like an adjoint of zero loss gradients.
        """
        nothing = torch.zeros_like(self.x), torch.zeros_like(self.y)
        size = self.scaling.size.unsqueeze(-1)
        dx, dy = dx * self.scaling.columns * size, dy * self.scaling.rows * size
        return self.reduced.lift_adjoint(dx, dy, *nothing)

    def regularized(self, epsilon: float) -> "FixedPoint":
        """The same with a proximal term of weight ``epsilon``, kept for the next time."""
        known = self.__dict__.get("proximal")
        if known is None or known.epsilon != epsilon:
            known = self.__dict__["proximal"] = _Regularized(epsilon, regularized(self, epsilon))
        return known.at

    def take(self, index: Tensor) -> Self:
        """Keep the instances ``index`` ``(b,)``, and what was computed of them."""
        part = super().take(index)
        for name in _KEPT:
            if name in self.__dict__:
                part.__dict__[name] = getattr(self, name).take(index)
        return part

    def release(self) -> None:
        """Forget the derivative and its factor."""
        for name in _KEPT:
            self.__dict__.pop(name, None)

    def least(self) -> None:
        """Nothing: the matrices, which are dense here, are made again of the program's entries."""


@dataclass(frozen=True)
class _Regularized(Batched):
    """A fixed point with a proximal term of weight ``epsilon``."""

    epsilon: float
    at: FixedPoint


def regularized(at: FixedPoint, epsilon: float) -> FixedPoint:
    """The same solution as that of a program with a unique derivative: a proximal term about x* is added.

    (ε/2)‖x − x*‖² with x* held constant leaves the solution where it is and makes it unique, so the gradient
    is that of x ↦ prox: of the next iterate of the proximal point algorithm (Rockafellar, "Monotone operators
    and the proximal point algorithm", 1976).

    Args:
        at: the solution.
        epsilon: ε, on the variables that presolve leaves, in their original units.
    """
    splitting, program = at.splitting, at.splitting.program
    weight = epsilon * at.scaling.columns.square()
    P = Matrix(program.P.values + torch.diag_embed(weight))
    q = program.q - weight * at.point.x
    proximal = Splitting(replace(program, P=P, q=q), splitting.penalty, splitting.alpha)
    return replace(at, splitting=proximal, point=proximal.evaluate(at.u))
