"""F linearized at the solutions of a batch, with Φ = I − αJ by products and J by its factor."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.cones import ProductDerivative, largest_of_block
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.adjoint_equations import ReducedAdjoint, refined_adjoint
from cvxfold.engines.tensors.adjoint_error import (
    ROUNDING,
    by_remainders,
    by_turn,
    left_of_dual,
    left_of_rows,
    shares,
    terms_of_differences,
)
from cvxfold.engines.tensors.adjoint_pairs import mended_adjoint
from cvxfold.engines.tensors.fixed_point import FixedPoint
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.pairs import Pairs
from cvxfold.engines.tensors.residuals import infinity_norm, terms
from cvxfold.engines.tensors.splitting import Iterate, Splitting
from cvxfold.gradient.linearization import Kinks, Pushed
from cvxfold.problem.program import Program


@dataclass(frozen=True)
class SplittingLinearization:
    """Φ of the splitting operator at a state.

    Args:
        program: what the solutions are of.
        at: the fixed points.
        du: how far from them the state is, ``(B, m')``; None where it is there.
        epsilon: ε of a proximal term that ``at`` has.
    """

    program: Program
    at: FixedPoint
    du: Tensor | None = None
    epsilon: float = 0.0

    @property
    def splitting(self) -> Splitting:
        """F."""
        return self.at.splitting

    @property
    def scaling(self) -> Scaling:
        """The equilibration."""
        return self.at.scaling

    @property
    def penalty(self) -> Tensor:
        """ρ."""
        return self.splitting.penalty.expand(len(self.u))

    @property
    def relaxation(self) -> float:
        """α."""
        return self.splitting.alpha

    @property
    def units(self) -> Tensor:
        """The size of q and b, by which they are divided."""
        return self.scaling.size

    @property
    def proximal(self) -> Tensor | None:
        """ε on the variables that presolve left, zero on the others, ``(n,)``; None without."""
        if not self.epsilon:
            return None
        left = self.at.point.x
        return self.at.reduced.spread_columns(left.new_full((1, left.shape[1]), self.epsilon))[0]

    @property
    def blind(self) -> Tensor:
        """Instances with a direction that neither P nor A sees, ``(B,)``."""
        return self.splitting.rank_deficient.expand(len(self.u))

    @property
    def u(self) -> Tensor:
        """The states, ``(B, m')``."""
        return self.at.u if self.du is None else self._moved

    @cached_property
    def _moved(self) -> Tensor:
        assert self.du is not None
        return self.at.u + self.du

    @property
    def x(self) -> Tensor:
        """The points that they stand for, ``(B, n)``."""
        return self._point[0]

    @property
    def y(self) -> Tensor:
        """Their multipliers, ``(B, m)``."""
        return self._point[1]

    @cached_property
    def _point(self) -> tuple[Tensor, Tensor]:
        if self.du is None:
            return self.at.x, self.at.y
        now, then = self.at.point, self.splitting.evaluate(self.u)
        dx, dy = self.at.lift(then.x - now.x, then.y - now.y)
        return self.at.x + dx, self.at.y + dy

    @cached_property
    def D(self) -> ProductDerivative:
        """DΠ_K(u)."""
        return self.at.D if self.du is None else self.splitting.program.cone.derivative(self.u)

    @cached_property
    def jacobian(self) -> FactoredJacobian:
        """J at u, factored."""
        return self.at.jacobian if self.du is None else FactoredJacobian.at(self.splitting, self.u, self.D)

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀ w = w − α Jᵀ w."""
        return w - self.splitting.alpha * self.splitting.jacobian_transposed(self.D, w)

    def jvp(self, v: Tensor) -> Tensor:
        """Φ v = v − α J v."""
        return v - self.splitting.alpha * self.splitting.jacobian(self.D, v)

    def inverse(self, r: Tensor) -> Tensor:
        """(I − Φ)⁻¹ r = J⁻¹ r / α, by the regularized factor of the finish."""
        return self.jacobian.inverse(r) / self.splitting.alpha

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """(I − Φᵀ)⁻¹ r = J⁻ᵀ r / α, by the same factor."""
        return self.jacobian.inverse_transposed(r) / self.splitting.alpha

    def offset(self) -> Tensor:
        """δu = J⁻¹ (g + e), with e what rounding may have left of the terms of both residuals, or hidden.

        And u itself is rounded: less than twice that may be rounded away again.
        """
        return self._to_solution() + 2 * ROUNDING * shares(self.u) * self.u

    def unshown(self) -> tuple[Tensor, Tensor]:
        """M⁻¹ of what P x + q + Aᵀy = 0 leaves, or rounding of its terms hides, and y with it."""
        left, hidden = left_of_dual(self.splitting, self.at.point)
        return self.at.lift(self.splitting.solve_normal(hidden - left), torch.zeros_like(self.at.point.y))

    def _to_solution(self) -> Tensor:
        """J⁻¹ (g + e)."""
        splitting = self.splitting
        point = self.at.point if self.du is None else splitting.evaluate(self.u)
        rows, columns = terms(splitting.program, point.x, point.s, point.y)
        pairs = Pairs.at(splitting, point.u)
        if pairs is not None:
            return self._offset_by_pairs(pairs, point, rows)
        columns = columns + terms_of_differences(splitting, point)
        moved = splitting.solve_normal(ROUNDING * shares(columns) * columns)
        e = ROUNDING * shares(rows) * rows
        return self.jacobian.inverse(point.g + e + splitting.program.A.mv(moved))

    def _offset_by_pairs(self, pairs: Pairs, point: Iterate, rows: Tensor) -> Tensor:
        """The same by Newton's step in x and u, with the digits of pairs; terms of ``rows`` ``(B, m)``."""
        program, x = self.splitting.program, point.x
        terms = program.P.absolute().mv(x.abs()) + program.q.abs() + pairs.transposed_terms(point.y)
        terms = terms + terms_of_differences(self.splitting, point)
        dual = program.P.mv(x) + program.q + pairs.transposed(point.y) + ROUNDING * shares(terms) * terms
        own = pairs.terms(x)
        e = pairs.written(ROUNDING * shares(rows) * rows, ROUNDING * shares(own) * own)
        g = pairs.written(point.g, -pairs.residual(x)) + e
        dx = self.jacobian.factor.solve(program.A.rmv(self.jacobian.weighted(g)) - dual)
        return self.jacobian.regularized_inverse(g - program.A.mv(dx))

    def image(self, u: Tensor) -> Tensor:
        """F(u)."""
        return self.splitting.run(u, 1)

    def pull(self, x_bar: Tensor, y_bar: Tensor) -> Tensor:
        """ū = (I − 2D) R A M⁻¹ x̄ + (D − I) R ȳ."""
        splitting, D = self.splitting, self.D
        on_x, on_y = self._restricted(x_bar, y_bar)
        start = splitting.solve_normal(on_x)
        u_bar = D.apply(lambda d: 1 - 2 * d, splitting.R * splitting.program.A.mv(start))
        return u_bar + D.apply(lambda d: d - 1, splitting.R * on_y)

    def push(self, w: Tensor, x_bar: Tensor, y_bar: Tensor) -> Pushed:
        """p = M⁻¹ (x̄ − Aᵀ w), v = w + R A p; v and z = R (A p − ȳ) tell what stands on a row."""
        splitting, A, R = self.splitting, self.splitting.program.A, self.splitting.R
        on_x, on_y = self._restricted(x_bar, y_bar)
        w = splitting.alpha * w
        p = splitting.solve_normal(on_x - A.rmv(w))
        own = refined_adjoint(self.jacobian, ReducedAdjoint(p, w + R * A.mv(p), on_x, on_y))
        own = mended_adjoint(self.jacobian, own)
        weight = torch.maximum(own.v.abs(), (R * (A.mv(own.p) - on_y)).abs())
        largest = infinity_norm(weight).unsqueeze(-1)
        weight = weight / torch.where(largest > 0, largest, torch.ones_like(largest))
        return Pushed(*self._lifted(own.p, own.v, x_bar, y_bar), weight, own)

    def off(self, adjoint: ReducedAdjoint) -> tuple[Tensor, Tensor]:
        """δp and δv for what the two equations leave, and rounding."""
        return self._alone(*by_remainders(self.jacobian, adjoint))

    def left_of_rows(self, adjoint: ReducedAdjoint, residual: Tensor) -> Tensor:
        """What D v = (I − D) R (A p − ȳ) leaves of the terms of a block, ``(B,)``."""
        return left_of_rows(self.jacobian, adjoint, residual)

    def turned(self, adjoint: ReducedAdjoint, to: "SplittingLinearization") -> tuple[Tensor, Tensor]:
        """δp and δv where D becomes that of ``to``."""
        return self._alone(*by_turn(self.jacobian, to.D, adjoint))

    def _alone(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """An adjoint in the program's units, of no loss gradients."""
        return self._lifted(p, v, torch.zeros_like(self.at.x), torch.zeros_like(self.at.y))

    def _lifted(self, p: Tensor, v: Tensor, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """An adjoint in the program's units: p ``(B, n)`` and v ``(B, m)``."""
        scaling = self.scaling
        return self.at.reduced.lift_adjoint(p * scaling.columns, v * scaling.rows, x_bar, y_bar)

    def alone(self, w: Tensor) -> Tensor:
        """v = w, in the units of the program, and what presolve's equations make of it."""
        at, batch = self.at, len(w)
        nothing = [w.new_zeros(batch, size) for size in (at.point.x.shape[1], at.x.shape[1], at.y.shape[1])]
        v = self.splitting.alpha * w * self.scaling.rows
        return at.reduced.lift_adjoint(nothing[0], v, *nothing[1:])[1]

    def direction(self, du: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
        """dx = M⁻¹AᵀR(I − 2D) δu and dy = −R(I − D) δu."""
        splitting, D = self.splitting, self.D
        least = floor * du.norm(dim=-1, keepdim=True)
        reflected = D.apply(lambda d: 1 - 2 * d, du)
        dx = splitting.solve_normal(splitting.program.A.rmv(splitting.R * reflected))
        dy = D.apply(lambda d: d - 1, du)
        dx = torch.where(dx.norm(dim=-1, keepdim=True) > least, dx, 0.0)
        dy = torch.where(dy.norm(dim=-1, keepdim=True) > least, splitting.R * dy, 0.0)
        # Presolve's rows have multipliers of dx alone, which its rounding would make ones of their own.
        dx, dy = (torch.where(d.abs() > floor * infinity_norm(d).unsqueeze(-1), d, 0.0) for d in (dx, dy))
        return self.at.lift(dx, dy)

    def kinks(self) -> Kinks:
        """Margins on each row, against the terms of the row's cone.

        Where R is large for s and y a margin may be R⁻¹y, which counts beside what y does.
        The size is the largest of u, A x, b and what q moves A x by: u alone may be nothing but rounding,
        where every constraint is weakly active.
        """
        u, program, point = self.u, self.splitting.program, self.at.point
        moved = program.A.mv(self.splitting.solve_normal(program.q))
        parts = (u, program.A.mv(point.x), program.b, moved)
        size = torch.stack([infinity_norm(part) for part in parts]).amax(0)
        rows, _ = terms(program, point.x, point.s, point.y)
        by_block = largest_of_block(torch.maximum(rows, u.abs()), program.cone)
        curved = torch.arange(u.shape[1], device=u.device) >= program.cone.dims.separable
        by_y = torch.where(curved | (u < 0), self._size_of_duals() / self.splitting.R, torch.inf)
        return Kinks(
            program.cone.margin(u),
            size.clamp_min(torch.finfo(u.dtype).tiny),
            torch.minimum(by_block, by_y),
            program.cone.interior(u),
            program.cone.blocks(u.device),
            curved,
        )

    def _size_of_duals(self) -> Tensor:
        """What y counts beside, ``(B, 1)``: the largest of q, of the terms of P x, and of y."""
        program, point = self.splitting.program, self.at.point
        of_x = infinity_norm((program.P.values * point.x.unsqueeze(-2)).flatten(1))
        size = torch.stack([infinity_norm(program.q), of_x, infinity_norm(point.y)]).amax(0)
        return torch.where(size > 0, size, torch.inf).unsqueeze(-1)

    def moved(self, du: Tensor) -> "SplittingLinearization":
        """F linearized at u + δu."""
        total = du if self.du is None else self.du + du
        return SplittingLinearization(self.program, self.at, total, self.epsilon)

    def take(self, index: Tensor) -> "SplittingLinearization":
        """Keep the instances ``index`` ``(b,)``."""
        du = None if self.du is None else self.du[index]
        part = SplittingLinearization(self.program.take(index), self.at.take(index), du, self.epsilon)
        for name in ("D", "jacobian"):
            if self.du is not None and name in self.__dict__:
                part.__dict__[name] = getattr(self, name).take(index)
        return part

    def _restricted(self, x_bar: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor]:
        """x̄ ``(B, n')`` and ȳ ``(B, m')`` for the reduced, equilibrated program."""
        on_x, on_y = self.at.reduced.restrict(x_bar, y_bar)
        return on_x * self.scaling.columns, on_y * self.scaling.rows
