"""Douglas–Rachford splitting in one m-vector: the operator F whose fixed points are the solutions.

With the state u, the penalty R = diag(ρ), M = P + AᵀRA and a relaxation 0 < α < 2:

    s(u) = Π_K(u)                y(u) = R (s − u)
    x(u) = M⁻¹ (Aᵀ R (b − 2s + u) − q)
    g(u) = b − s − A x           F(u) = u + α g(u)

u = F(u) exactly when (x, s, y) solves the program. With D = DΠ_K(u) the derivative is

    Φ = ∂F/∂u = I − α J,         J = D + A M⁻¹ Aᵀ R (I − 2D)

F is averaged (Eckstein and Bertsekas, 1992), so the iteration cannot diverge where there is a solution.
"""

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones import ProductDerivative
from cvxfold.cones.autodiff import project
from cvxfold.engines.linear.least_norm import LeastNorm
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.settings import RELAXATION
from cvxfold.engines.tensors.program import ConeProgram

# ρ on equalities, as a multiple of ρ elsewhere. 10, 100 and 1000 take alike many iterations on random QPs,
# portfolios and MPC; the floor of the residuals grows in proportion (1e-13, 1e-12, 1e-11 at n = 100).
ZERO_CONE_PENALTY = 10.0


def penalty_pattern(program: ConeProgram) -> Tensor:
    """The diagonal of R for ρ = 1, ``(m,)``: larger on equalities, constant in each non-separable cone."""
    pattern = program.q.new_ones(program.cone.dim)
    pattern[: program.cone.dims.zero] = ZERO_CONE_PENALTY
    return pattern


@dataclass(frozen=True)
class Iterate(Batched):
    """The point that a state u stands for: x ``(B, n)``; u, s, y and g = b − s − Ax ``(B, m)``."""

    u: Tensor
    x: Tensor
    s: Tensor
    y: Tensor
    g: Tensor


class Splitting:
    """F, its derivative and its factored M, for a batch of programs and a penalty.

    M is shared by the batch where P, A and the penalty are, and then factored once.

    Args:
        program: equilibrated.
        penalty: ρ, ``(1,)`` or ``(B,)``.
        relaxation: α in (0, 2).
        look: whether to look for instances whose M is singular; otherwise these yield NaN, and are unsettled.

    Attributes:
        looked: whether somebody has.
        equality_gram: AᵀA over the equality rows, ``(1|B, n, n)``: their weights never change.
    """

    def __init__(
        self, program: ConeProgram, penalty: Tensor, relaxation: float = RELAXATION, look: bool = True
    ) -> None:
        self.program, self.alpha = program, relaxation
        zero = program.cone.dims.zero
        equalities, rest = program.A.values[:, :zero], program.A.values[:, zero:]
        self.equality_gram = equalities.mT @ equalities
        # AᵀRA for ρ = 1: another penalty takes no further product of matrices.
        self._gram = ZERO_CONE_PENALTY * self.equality_gram + rest.mT @ rest
        self._penalize(penalty, look)

    def _penalize(self, penalty: Tensor, look: bool) -> None:
        self.penalty, self.looked = penalty, look
        self.R = penalty.unsqueeze(-1) * penalty_pattern(self.program)
        self._normal = LeastNorm.of(self._M, look)

    @property
    def _M(self) -> Tensor:
        return self.program.P.values + self.penalty.view(-1, 1, 1) * self._gram

    @property
    def size(self) -> Tensor:
        """The largest diagonal entry of M, ``(1|B,)``."""
        of_P, of_A = (part.diagonal(dim1=-2, dim2=-1) for part in (self.program.P.values, self._gram))
        diagonal = of_P + self.penalty.unsqueeze(-1) * of_A
        return diagonal.amax(-1) if diagonal.shape[-1] else diagonal.new_ones(len(diagonal))

    def solve_normal(self, rhs: Tensor) -> Tensor:
        """M⁻¹ rhs, ``(B, n)``; where [P; A] lacks full column rank, the least-norm solution M⁺ rhs."""
        return self._normal.solve(rhs)

    @property
    def rank_deficient(self) -> Tensor:
        """Whether M of an instance is singular: there is something that neither P nor A sees; ``(1|B,)``."""
        return self._normal.deficient

    def free_descent(self) -> Tensor | None:
        """−q on the null space of M, ``(B, n)``: where it is not zero the objective falls forever along it.

        Zero for instances whose M is regular; None where all are.
        """
        if self._normal.inverse is None:
            return None
        q = self.program.q
        falling = Matrix(self._M).mv(self._normal.solve(q)) - q
        return torch.where(self.rank_deficient.unsqueeze(-1), falling, 0.0)

    def evaluate(self, u: Tensor, rough: bool = False) -> Iterate:
        """The point (x, s, y) and the residual g of a state ``u`` ``(B, m)``; ``rough`` as for a cone."""
        s, x, g = self._split(u, rough)
        return Iterate(u, x, s, self.R * (s - u), g)

    def _split(self, u: Tensor, rough: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """s, x and g of a state."""
        cone = self.program.cone
        s = project(cone, u) if u.requires_grad else cone.project(u, rough)
        x = self.solve_normal(self.program.A.rmv(self.R * (self.program.b - 2 * s + u)) - self.program.q)
        return s, x, self.program.b - s - self.program.A.mv(x)

    def run(self, u: Tensor, steps: int, rough: bool = False) -> Tensor:
        """Apply F ``steps`` times to ``u`` ``(B, m)``, by projections that are exact or ``rough``."""
        for _ in range(steps):
            u = u + self.alpha * self._split(u, rough)[2]
        return u

    def jacobian(self, D: ProductDerivative, v: Tensor) -> Tensor:
        """J v for ``v`` ``(B, m)``."""
        reflected = D.apply(lambda d: 1 - 2 * d, v)
        return D.apply(lambda d: d, v) + self.program.A.mv(
            self.solve_normal(self.program.A.rmv(self.R * reflected))
        )

    def jacobian_transposed(self, D: ProductDerivative, w: Tensor) -> Tensor:
        """Jᵀ w for ``w`` ``(B, m)``: D w + (I − 2D) R A M⁻¹ Aᵀ w."""
        lifted = self.R * self.program.A.mv(self.solve_normal(self.program.A.rmv(w)))
        return D.apply(lambda d: d, w) + D.apply(lambda d: 1 - 2 * d, lifted)

    def state(self, s: Tensor, y: Tensor) -> Tensor:
        """u = s − R⁻¹ y, the fixed point that a solution stands for under this penalty; ``(B, m)``."""
        return s - y / self.R

    def with_penalty(self, penalty: Tensor, look: bool = True) -> "Splitting":
        """The operator of the same program and relaxation under another penalty ``(1|B,)``."""
        other = copy(self)
        other._penalize(penalty, look)
        return other

    @property
    def some_unsettled(self) -> Tensor:
        """Whether M of any instance is singular and nobody has looked, ``()``."""
        none = self.penalty.new_zeros((), dtype=torch.bool)
        return none if self.looked else self._normal.factor.unsettled.any()

    def rebind(self, program: ConeProgram) -> "Splitting":
        """The operator of another program with the same P and A, without factoring again."""
        other = copy(self)
        other.program = program
        return other

    def take(self, index: Tensor) -> "Splitting":
        """Keep the instances ``index`` ``(b,)``; what is shared stays shared."""
        part = self.rebind(self.program.take(index))
        part.penalty, part.R, part._gram, part.equality_gram = (
            value if value.shape[0] == 1 else value[index]
            for value in (self.penalty, self.R, self._gram, self.equality_gram)
        )
        part._normal = self._normal.take(index)
        return part
