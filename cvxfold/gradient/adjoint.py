"""The adjoint of the optimality conditions: pull, fold, push, and a check of what came out.

At a fixed point u* = F(u*), with J = (I − Φ)/α the Jacobian of −g and x̄, ȳ the loss gradients,

    1. pull    ū = (I − 2D) R A M⁻¹ x̄ + (D − I) R ȳ
    2. fold    Jᵀ w = ū
    3. push    p = M⁻¹ (x̄ − Aᵀ w)                       v = w + R A p
    4. check   P p + Aᵀ v = x̄                           D v = (I − D) R (A p − ȳ)

(p, v) solves the transposed KKT system, whose rows are the last line; the first one is checked in the units
of the user's program and on its stored entries, whatever an engine did to it, the second one beside the terms
of each cone's rows, a thousand times as generously. So the largest of the relative residuals of 2 and 4 is a
check of the gradient itself. The gradients of the data follow (:mod:`cvxfold.problem.gradients`).

The residual of the first of 4 is relative to the largest of its terms, and of those that v is added up of
where the loss looks at y: v = w + R A p may be zero, as P p and x̄ are where a linear program's multipliers
are looked at.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.batches.records import Batched
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.methods import AdjointMethod, AdjointSettings, AdjointSolution, solve_adjoint
from cvxfold.methods.history import relative_norm
from cvxfold.problem.gradients import DataGradients
from cvxfold.problem.program import Program

_BY_ROW = 1e-3  # of what is left of a cone's rows over their own terms

Bars = tuple[Tensor, Tensor]
"""Loss gradients on x, ``(B, n)``, and on y, ``(B, m)``."""


@dataclass(frozen=True)
class Remainder(Batched):
    """What an adjoint leaves of its two systems.

    Args:
        r: ū − (I − Φᵀ)w, of the fixed-point iteration, ``(B, k)``.
        t: x̄ − Pp − Aᵀv, ``(B, n)``.
        weight: how much of the adjoint stands on each entry of the state, relative to the largest, ``(B,
            k)``.
        by_duals: the norm of what ȳ adds to the terms of t, ``(B,)``.
        own: the adjoint in the engine's own units.
    """

    r: Tensor
    t: Tensor
    weight: Tensor
    by_duals: Tensor
    own: Batched


@dataclass(frozen=True)
class Adjoint(Batched):
    """An adjoint (p, v), in the units of the program, and how it was found.

    Args:
        p: ``(B, n)``. v: ``(B, m)``.
        system: of the fixed-point iteration's adjoint system; what its ``residual`` and ``converged`` say
            holds for the check of (p, v) too.
    """

    p: Tensor
    v: Tensor
    system: AdjointSolution

    @property
    def residual(self) -> Tensor:
        """The larger of the relative residuals of both systems, ``(B,)``."""
        return self.system.residual


@dataclass(frozen=True)
class FoldedAdjoint(Adjoint):
    """An adjoint with what a diagnosis needs.

    Args:
        remainder: what it leaves of the systems.
    """

    remainder: Remainder


def fold(
    phi: ProgramLinearization,
    x_bar: Tensor,
    y_bar: Tensor,
    method: AdjointMethod,
    settings: AdjointSettings,
) -> FoldedAdjoint:
    """Fold the backward pass.

    Args:
        phi: the iteration at the solutions.
        x_bar: loss gradient on x, ``(B, n)``.
        y_bar: loss gradient on y, ``(B, m)``.
        method: for the adjoint system.
        settings: its tolerance and limit.
    """
    u_bar = phi.pull(x_bar, y_bar)  # 1
    system = solve_adjoint(method, phi, u_bar, settings)  # 2
    p, v, weight, own = phi.push(system.w, x_bar, y_bar)  # 3
    by_duals = terms_of_duals(phi, system.w, u_bar, y_bar)
    t, residual = check(phi.program, phi.proximal, p, v, x_bar, by_duals)  # 4
    residual = torch.maximum(residual, _BY_ROW * phi.left_of_rows(own, system.residual))
    residual = torch.maximum(system.residual, residual)
    system = replace(system, residual=residual, converged=residual <= settings.tol)
    r = u_bar - (system.w - phi.vjp(system.w))
    return FoldedAdjoint(p, v, system, Remainder(r, t, weight, by_duals, own))


def terms_of_duals(phi: ProgramLinearization, w: Tensor, u_bar: Tensor, y_bar: Tensor) -> Tensor:
    """‖ |A|ᵀ|w| ‖ times the share that ȳ has in ū, ``(B,)``: zero where the loss does not look at y.

    Args:
        phi: the iteration at the solutions.
        w: ``(B, k)``. u_bar: ū, ``(B, k)``. y_bar: ``(B, m)``.
    """
    if is_near(y_bar) and not bool(y_bar.any()):
        return y_bar.new_zeros(len(y_bar))
    share = relative_norm(phi.pull(torch.zeros_like(phi.x), y_bar), u_bar).nan_to_num(0.0).clamp_max(1.0)
    return share * phi.program.sums_of_columns(phi.alone(w)).norm(dim=-1)


def check(
    program: Program, proximal: Tensor | None, p: Tensor, v: Tensor, x_bar: Tensor, by_duals: Tensor
) -> tuple[Tensor, Tensor]:
    """t = x̄ − Pp − Aᵀv, ``(B, n)``, and how large it is beside its terms, ``(B,)``.

    Args:
        program: in its own units.
        proximal: what is added to P's diagonal, ``(n,)``, if anything.
        p: ``(B, n)``. v: ``(B, m)``. x_bar: ``(B, n)``.
        by_duals: the norm of the terms of v that the loss gradient on y brings in, ``(B,)``.
    """
    Pp, Av = program.stationary(p, v)
    if proximal is not None:
        Pp = Pp + proximal * p
    t = x_bar - Pp - Av
    largest = torch.stack([*(part.norm(dim=-1) for part in (x_bar, Pp, Av)), by_duals]).amax(0)
    return t, relative_norm(t, largest.unsqueeze(-1))


def bars_of(bars: Bars, rows: Tensor) -> Bars:
    """Those of the instances ``rows`` ``(b,)``."""
    return bars[0][rows], bars[1][rows]


def on_moving(phi: ProgramLinearization, p: Tensor, v: Tensor) -> Tensor:
    """The gradient that (p, v) gives on all that parameters reach, at the points of ``phi``; ``(B, ·)``."""
    return DataGradients(p, v, phi.x, phi.y, phi.program.entries).on_moving()
