"""The batched cone program.

minimize    ½ xᵀP x + qᵀx
subject to  A x + s = b,   s ∈ K
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones import ProductCone
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.tensors.gram import InequalityGram


@dataclass(frozen=True)
class ConeProgram(Batched):
    """A batch of cone programs over one cone.

    Args:
        P: n × n, symmetric. A: m × n. Each shared by the batch or per instance.
        q: ``(B, n)``. b: ``(B, m)``.
        cone: K.
        gram: forms AᵀWA over the inequality rows.
    """

    P: Matrix
    q: Tensor
    A: Matrix
    b: Tensor
    cone: ProductCone
    gram: InequalityGram

    @property
    def batch(self) -> int:
        """B."""
        return self.q.shape[0]

    @property
    def linear(self) -> Tensor:
        """Whether P is zero, ``(B,)``."""
        return self.P.absolute().mv(torch.ones_like(self.q)).sum(-1) == 0

    @property
    def shared(self) -> bool:
        """Whether all instances have the same P and A, so that one factor can serve them."""
        return self.P.shared and self.A.shared
