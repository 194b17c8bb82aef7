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

import numpy as np
import torch
from torch import Tensor

from cvxfold.cones import ProductDerivative
from cvxfold.engines.reduction.presolve import Reduced
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.jacobian import NewtonSystem
from cvxfold.engines.tensors.linear.matrix import Matrix
from cvxfold.engines.tensors.splitting import Iterate, Splitting
from cvxfold.fold import Adjoint, AdjointMethod, AdjointSettings, solve_adjoint
from cvxfold.fold.adjoint import relative_norm
from cvxfold.problem.index import Index
from cvxfold.problem.structure import Moving, Structure


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
    def newton(self) -> NewtonSystem:
        """J, regularized and factored."""
        return NewtonSystem.at(self.splitting, self.u, self.D)

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀ w = w − α Jᵀ w."""
        return w - self.splitting.alpha * self.splitting.jacobian_transposed(self.D, w)

    def jvp(self, v: Tensor) -> Tensor:
        """Φ v = v − α J v."""
        return v - self.splitting.alpha * self.splitting.jacobian(self.D, v)

    def solve(self, r: Tensor) -> Tensor:
        """(I − Φᵀ)⁻¹ r = J⁻ᵀ r / α, by the regularized factor of the finish."""
        return self.newton.solve_transposed(r) / self.splitting.alpha

    def take(self, index: Tensor) -> "SplittingLinearization":
        """Keep the instances ``index`` ``(b,)``."""
        part = SplittingLinearization(self.splitting.take(index), self.u[index], self.D.take(index))
        if "newton" in self.__dict__:
            part.__dict__["newton"] = self.newton.take(index)
        return part


@dataclass(frozen=True)
class Optimum:
    """Where the derivative is taken.

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
    def phi(self) -> SplittingLinearization:
        """F linearized here; it keeps its factor, so the rows of a Jacobian share one."""
        return SplittingLinearization.at(self.splitting, self.u)

    def lift(self, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """A direction ``(B, n')``, ``(B, m')`` of x and y in the original program, ``(B, n)``, ``(B, m)``.

        What presolve took out follows like an adjoint of zero loss gradients.
        """
        nothing = torch.zeros_like(self.x), torch.zeros_like(self.y)
        size = self.scaling.size.unsqueeze(-1)
        dx, dy = dx * self.scaling.columns * size, dy * self.scaling.rows * size
        return self.reduced.lift_adjoint(dx, dy, *nothing)

    def take(self, index: Tensor) -> "Optimum":
        """Keep the instances ``index`` ``(b,)``."""
        part = Optimum(
            self.splitting.take(index), self.scaling.take(index), self.reduced.take(index),
            self.point.take(index), self.x[index], self.y[index],
        )  # fmt: skip
        if "phi" in self.__dict__:
            part.__dict__["phi"] = self.phi.take(index)
        return part


def regularized(at: Optimum, epsilon: float) -> Optimum:
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


class Entries:
    """The places of the stored data, and which of them a parameter reaches.

    Args:
        structure: of the program. moving: what parameters reach.
    """

    def __init__(self, structure: Structure, moving: Moving) -> None:
        self.P, self.A, self.b = (
            Index(places) for places in (structure.P_entries, structure.A_entries, structure.b_entries)
        )
        self.n, self.m, self.equalities = structure.n, structure.m, structure.cones.zero
        self.moving = [Index(np.flatnonzero(mask)) for mask in (moving.P, moving.q, moving.A, moving.b)]
        rows = [structure.A_entries[0][moving.A], structure.b_entries[moving.b]]
        self.moving_rows = Index(np.unique(np.concatenate(rows)))


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

    def on_moving(self) -> Tensor:
        """All that a parameter reaches, side by side, ``(B, ·)``."""
        parts = (self.on_P(False), self.on_q(False), self.on_A(False), self.on_b(False))
        kept = (
            _at(part, index.on(part.device)) for part, index in zip(parts, self.entries.moving, strict=True)
        )
        return torch.cat(list(kept), dim=1)


@dataclass(frozen=True)
class Folded:
    """An adjoint (p, v) with the loss gradients that it answers.

    Args:
        adjoint: what it was made from.
        p: ``(B, n')``, of the reduced program and in equilibrated units.
        v: ``(B, m')``, likewise.
        y_bar: ȳ ``(B, m')``, likewise.
        start: M⁻¹x̄ ``(B, n')``, likewise: p for w = 0.
        lifted_p, lifted_v: p ``(B, n)`` and v ``(B, m)`` of the original program.
        r: ū − Jᵀw, what is left of the adjoint system, ``(B, m')``.
        t: x̄ − Pp − Aᵀv, what is left of the first row of the transposed KKT system, ``(B, n')``.
    """

    adjoint: Adjoint
    p: Tensor
    v: Tensor
    y_bar: Tensor
    start: Tensor
    lifted_p: Tensor
    lifted_v: Tensor
    r: Tensor
    t: Tensor

    def take(self, index: Tensor) -> "Folded":
        """Keep the instances ``index`` ``(b,)``; the adjoint's own record stays that of the batch."""
        return Folded(
            self.adjoint, *(part[index] for part in (
                self.p, self.v, self.y_bar, self.start, self.lifted_p, self.lifted_v, self.r, self.t
            )),
        )  # fmt: skip


def right_hand_side(
    at: Optimum, phi: SplittingLinearization, x_bar: Tensor, y_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x̄ and ȳ for the reduced, equilibrated program, M⁻¹x̄ ``(B, n')``, and ū ``(B, m')``."""
    on_x, on_y = at.reduced.restrict(x_bar, y_bar)
    on_x, on_y = on_x * at.scaling.columns, on_y * at.scaling.rows
    R, D = at.splitting.R, phi.D
    start = at.splitting.solve_normal(on_x)
    u_bar = D.apply(lambda d: 1 - 2 * d, R * at.splitting.program.A.mv(start))
    return on_x, on_y, start, u_bar + D.apply(lambda d: d - 1, R * on_y)


def fold(
    at: Optimum,
    phi: SplittingLinearization,
    x_bar: Tensor,
    y_bar: Tensor,
    method: AdjointMethod,
    settings: AdjointSettings,
) -> Folded:
    """Fold the backward pass.

    Args:
        at: the solution.
        phi: F's derivative there.
        x_bar: loss gradient on x, ``(B, n)``, in the original program's units.
        y_bar: loss gradient on y, ``(B, m)``, likewise.
        method: for the adjoint system.
        settings: its tolerance and limit.
    """
    splitting, A, R = at.splitting, at.splitting.program.A, at.splitting.R
    on_x, on_y, start, u_bar = right_hand_side(at, phi, x_bar, y_bar)
    adjoint = solve_adjoint(method, phi, u_bar, settings)
    w = splitting.alpha * adjoint.w
    pulled = A.rmv(w)
    p = splitting.solve_normal(on_x - pulled)
    v = w + R * A.mv(p)
    largest = torch.maximum(on_x.norm(dim=-1), pulled.norm(dim=-1)).unsqueeze(-1)
    t = on_x - splitting.program.P.mv(p) - A.rmv(v)
    stationarity = relative_norm(t, largest)
    residual = torch.maximum(adjoint.residual, stationarity)
    adjoint = replace(adjoint, residual=residual, converged=residual <= settings.tol)
    lifted = at.reduced.lift_adjoint(p * at.scaling.columns, v * at.scaling.rows, x_bar, y_bar)
    r = u_bar - (adjoint.w - phi.vjp(adjoint.w))
    return Folded(adjoint, p, v, on_y, start, *lifted, r, t)


def _at(v: Tensor, index: Tensor) -> Tensor:
    return v.index_select(1, index)


def _summed(gradient: Tensor, shared: bool) -> Tensor:
    return gradient.sum(0, keepdim=True) if shared else gradient
