"""S⁻¹ by a Cholesky factor, and S⁺ for those instances of a batch where S is singular."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.engines.linear.cholesky import Cholesky
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.linear.pseudoinverse import pseudoinverse


@dataclass(frozen=True)
class LeastNorm:
    """Solves S z = r for symmetric positive semidefinite S: the solution, or that of least norm.

    Args:
        factor: of S, ``(1|B, n, n)``.
        singular: positions of the singular instances, ``(d,)``.
        inverse: S⁺ of those, ``(d, n, n)``; None where there are none.
    """

    factor: Cholesky
    singular: Tensor
    inverse: Matrix | None

    @classmethod
    def of(cls, S: Tensor, look: bool = True) -> "LeastNorm":
        """Factor ``S`` ``(1|B, n, n)``; without a ``look`` singular ones yield NaN, and are unsettled."""
        factor = Cholesky.factor(S, look=look)
        nobody = torch.zeros(0, dtype=torch.long, device=S.device)
        if not factor.shifted:
            return cls(factor, nobody, None)
        singular = places(factor.shift > 0)
        return cls(factor, singular, pseudoinverse(S[singular]) if len(singular) else None)

    @property
    def deficient(self) -> Tensor:
        """Which instances are singular, ``(1|B,)``."""
        found = torch.zeros_like(self.factor.shift, dtype=torch.bool)
        found[self.singular] = True
        return found

    def solve(self, rhs: Tensor) -> Tensor:
        """S⁺ rhs for ``rhs`` ``(1|B, n)``; returns ``(B, n)``."""
        if self.inverse is None:
            return self.factor.solve(rhs)
        if len(self.factor.shift) == 1:
            return self.inverse.mv(rhs)
        rhs = rhs.expand(len(self.factor.shift), -1)
        least = self.inverse.mv(rhs[self.singular])
        return self.factor.solve(rhs).index_copy(0, self.singular, least)

    def take(self, index: Tensor) -> "LeastNorm":
        """Keep the instances ``index`` ``(b,)``; what is shared stays as it is."""
        factor = self.factor.take(index)
        if self.inverse is None or len(self.factor.shift) == 1:
            return LeastNorm(factor, self.singular, self.inverse)
        place = torch.full_like(self.factor.shift, -1, dtype=torch.long)
        place[self.singular] = torch.arange(len(self.singular), device=place.device)
        kept = place[index]
        singular = places(kept >= 0)
        inverse = Matrix(self.inverse.values[kept[singular]]) if len(singular) else None
        return LeastNorm(factor, singular, inverse)
