"""The backward pass of one solution: loss gradients on x and y → loss gradients on P, q, A and b.

At a fixed point u* = F(u*), with J = (I − Φ)/α the Jacobian of −g and x̄, ȳ the loss gradients,

    ū = (I − 2D) R A M⁻¹ x̄ + (D − I) R ȳ          Jᵀ w = ū
    p = M⁻¹ (x̄ − Aᵀ w)                            v = w + R A p
    q̄ = −p     b̄ = v     Ā = −(v xᵀ + y pᵀ)       P̄ = −½ (p xᵀ + x pᵀ)

(p, v) solves the transposed KKT system, whose first row is P p + Aᵀ v = x̄. So the larger of the relative
residuals of Jᵀ w = ū and of that row is a check of the gradient itself.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.cones import ProductDerivative
from cvxfold.fold import Adjoint, AdjointMethod, AdjointSettings, solve_adjoint
from cvxfold.fold.adjoint import relative_norm
from cvxfold.forward.newton import NewtonSystem
from cvxfold.forward.solution import Solution
from cvxfold.forward.splitting import Splitting
from cvxfold.linear.index import Index
from cvxfold.structure import Structure


@dataclass
class SplittingLinearization:
    """Φ of the splitting operator at a state: the engine's view of it.

    Args:
        splitting: F.
        u: the fixed points, ``(B, m)``.
        D: DΠ_K(u).
    """

    splitting: Splitting
    u: Tensor
    D: ProductDerivative

    @classmethod
    def at(cls, splitting: Splitting, u: Tensor) -> "SplittingLinearization":
        """Linearize F at ``u`` ``(B, m)``."""
        return cls(splitting, u, splitting.program.cone.derivative(u))

    @cached_property
    def _newton(self) -> NewtonSystem:
        return NewtonSystem.at(self.splitting, self.u)

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀ w = w − α Jᵀ w."""
        return w - self.splitting.alpha * self.splitting.jacobian_transposed(self.D, w)

    def jvp(self, v: Tensor) -> Tensor:
        """Φ v = v − α J v."""
        return v - self.splitting.alpha * self.splitting.jacobian(self.D, v)

    def solve(self, r: Tensor) -> Tensor:
        """(I − Φᵀ)⁻¹ r = J⁻ᵀ r / α, by the regularized factor of the finish."""
        return self._newton.solve_transposed(r) / self.splitting.alpha

    def take(self, index: Tensor) -> "SplittingLinearization":
        """Keep the instances ``index`` ``(b,)``."""
        part = SplittingLinearization(self.splitting.take(index), self.u[index], self.D.take(index))
        if "_newton" in self.__dict__:
            part.__dict__["_newton"] = self._newton.take(index)
        return part


class Entries:
    """The places of the stored data, as :class:`DataGradients` needs them.

    Args:
        structure: of the program.
    """

    def __init__(self, structure: Structure) -> None:
        self.P, self.A, self.b = (
            Index(places) for places in (structure.P_entries, structure.A_entries, structure.b_entries)
        )


@dataclass(frozen=True)
class DataGradients:
    """Loss gradients on the data of each instance, as the vectors they are made of, in original units.

    Args:
        p: of the adjoint of the optimality conditions, ``(B, n)``.
        v: of the same, ``(B, m)``.
        x: of the solution, ``(B, n)``.
        y: of the same, ``(B, m)``.
        entries: where the stored data are.
    """

    p: Tensor
    v: Tensor
    x: Tensor
    y: Tensor
    entries: Entries

    def on_q(self, shared: bool) -> Tensor:
        """q̄ ``(1|B, n)``; summed over the batch where q is shared."""
        return _summed(-self.p, shared)

    def on_b(self, shared: bool) -> Tensor:
        """The stored entries of b̄, ``(1|B, nnz b)``."""
        return _summed(self.v.index_select(1, self.entries.b.on(self.v.device)), shared)

    def on_A(self, shared: bool) -> Tensor:
        """The stored entries of Ā = −(v xᵀ + y pᵀ), ``(1|B, nnz A)``."""
        rows, columns = self.entries.A.on(self.p.device)
        if shared:
            return -(self.v.mT @ self.x + self.y.mT @ self.p)[rows, columns].unsqueeze(0)
        return -(_at(self.v, rows) * _at(self.x, columns) + _at(self.y, rows) * _at(self.p, columns))

    def on_P(self, shared: bool) -> Tensor:
        """The stored entries of P̄ = −½ (p xᵀ + x pᵀ), ``(1|B, nnz P)``."""
        rows, columns = self.entries.P.on(self.p.device)
        terms = _at(self.p, rows) * _at(self.x, columns) + _at(self.x, rows) * _at(self.p, columns)
        return _summed(-0.5 * terms, shared)


def differentiate(
    solution: Solution,
    phi: SplittingLinearization,
    x_bar: Tensor,
    y_bar: Tensor,
    method: AdjointMethod,
    settings: AdjointSettings,
) -> tuple[Tensor, Tensor, Adjoint]:
    """Fold the backward pass.

    Args:
        solution: of the forward pass.
        phi: the operator's derivative there.
        x_bar: loss gradient on x, ``(B, n)``, in original units.
        y_bar: loss gradient on y, ``(B, m)``, in original units.
        method: for the adjoint system.
        settings: its tolerance and limit.

    Returns:
        p ``(B, n)`` and v ``(B, m)`` in original units, and the adjoint they came from.
    """
    splitting, scaling = solution.splitting, solution.scaling
    A, R = splitting.program.A, splitting.R
    D = phi.D
    x_bar, y_bar = x_bar * scaling.columns, y_bar * scaling.rows
    u_bar = D.apply(lambda d: 1 - 2 * d, R * A.mv(splitting.solve_normal(x_bar)))
    u_bar = u_bar + D.apply(lambda d: d - 1, R * y_bar)
    adjoint = solve_adjoint(method, phi, u_bar, settings)
    w = splitting.alpha * adjoint.w
    pulled = A.rmv(w)
    p = splitting.solve_normal(x_bar - pulled)
    v = w + R * A.mv(p)
    largest = torch.maximum(x_bar.norm(dim=-1), pulled.norm(dim=-1)).unsqueeze(-1)
    stationarity = relative_norm(x_bar - splitting.program.P.mv(p) - A.rmv(v), largest)
    residual = torch.maximum(adjoint.residual, stationarity)
    adjoint = replace(adjoint, residual=residual, converged=residual <= settings.tol)
    return p * scaling.columns, v * scaling.rows, adjoint


def _at(v: Tensor, index: Tensor) -> Tensor:
    return v.index_select(1, index)


def _summed(gradient: Tensor, shared: bool) -> Tensor:
    return gradient.sum(0, keepdim=True) if shared else gradient
