"""Moore–Penrose inverses of symmetric positive semidefinite matrices, batched."""

import torch
from torch import Tensor

from cvxfold.linear.matrix import Matrix

_RANK = 1e-12  # eigenvalues below this fraction of the largest count as zero


def pseudoinverse(S: Tensor) -> Matrix:
    """S⁺ of ``S`` ``(1|B, n, n)`` by its eigenvalues."""
    values, vectors = torch.linalg.eigh(S)
    zero = values <= _RANK * values[..., -1:].clamp_min(torch.finfo(S.dtype).tiny)
    inverse = torch.where(zero, 0.0, 1 / torch.where(zero, 1.0, values))
    return Matrix((vectors * inverse.unsqueeze(-2)) @ vectors.mT)
