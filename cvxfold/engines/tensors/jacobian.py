"""The Jacobian J of −g, factored: one n × n Cholesky factor serves J and its transpose.

A semismooth Newton step on g(u) = 0 solves J du = g with J = (I − Φ)/α, the matrix of the backward pass. With
a small δ (on equality rows larger in proportion to their penalty, so that δR⁻¹ρ is one number) and

    W = R (I − D)(D + δI)⁻¹          H = P + AᵀWA
    dx = H⁻¹ Aᵀ (W − R) g            du = (D + δI)⁻¹ (g − A dx)

δ regularizes degenerate vertices and redundant rows; the error it makes is removed by repeating the step.
The transposed system uses the same factor:

    t = (D + δI)⁻¹ r                 w = t − (W − R) A H⁻¹ Aᵀ t
"""

from dataclasses import dataclass

from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones import ProductDerivative
from cvxfold.engines.linear.cholesky import Cholesky
from cvxfold.engines.tensors.splitting import Splitting

DELTA = 1e-7
_SMALL = 1e-6  # H may vanish, where nothing is active; M never does


def _inverse(d: Tensor) -> Tensor:
    return 1 / (d + DELTA)


def _weight(d: Tensor) -> Tensor:
    return (1 - d) / (d + DELTA)


@dataclass(frozen=True)
class FactoredJacobian(Batched):
    """J at one state, factored.

    Args:
        splitting: the operator.
        D: the derivative of the projection at the state.
        factor: the factor of H.
    """

    splitting: Splitting
    D: ProductDerivative
    factor: Cholesky

    @classmethod
    def at(
        cls, splitting: Splitting, u: Tensor, D: ProductDerivative | None = None, look: bool = True
    ) -> "FactoredJacobian":
        """Build and factor H at the states ``u`` ``(B, m)``; D if it is known already.

        Without a ``look`` D is a rough one, and instances whose H is singular to rounding are left unsettled.
        """
        program = splitting.program
        D = D or program.cone.derivative(u, rough=not look)
        gram = splitting.equality_gram / DELTA + program.gram(program.A.values, D, _weight)
        H = program.P.values + splitting.penalty.view(-1, 1, 1) * gram
        return cls(splitting, D, Cholesky.factor(H, _SMALL * splitting.size, look))

    def inverse(self, g: Tensor) -> Tensor:
        """The step du with J du ≈ g, ``(B, m)``."""
        A = self.splitting.program.A
        dx = self.factor.solve(A.rmv(self._excess(g)))
        return self.regularized_inverse(g - A.mv(dx))

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """The adjoint w with Jᵀ w ≈ r, ``(B, m)``."""
        A = self.splitting.program.A
        t = self.regularized_inverse(r)
        return t - self._excess(A.mv(self.factor.solve(A.rmv(t))))

    def regularized_inverse(self, v: Tensor) -> Tensor:
        """(D + δI)⁻¹ v, with δ times R/ρ on equality rows."""
        splitting = self.splitting
        return splitting.penalty.unsqueeze(-1) / splitting.R * self.D.apply(_inverse, v)

    def _excess(self, v: Tensor) -> Tensor:
        """(W − R) v."""
        return self.weighted(v) - self.splitting.R * v

    def weighted(self, v: Tensor) -> Tensor:
        """W v."""
        return self.splitting.penalty.unsqueeze(-1) * self.D.apply(_weight, v)
