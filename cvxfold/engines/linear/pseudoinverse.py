"""Moore–Penrose inverses of symmetric positive semidefinite matrices, batched."""

import torch
from torch import Tensor

from cvxfold.engines.linear.matrix import Matrix

_RANK = 1e-12  # eigenvalues below this fraction of the largest count as zero


def pseudoinverse(S: Tensor) -> Matrix:
    """S⁺ of ``S`` ``(1|B, n, n)`` by its eigenvalues; NaN for an instance whose entries are not finite."""
    if S.requires_grad:
        return Matrix(_on_tape(S, pseudoinverse(S.detach()).values))
    finite = S.isfinite().flatten(1).all(1).view(-1, 1, 1)
    values, vectors = torch.linalg.eigh(torch.where(finite, S, 0.0))
    zero = values <= _RANK * values[..., -1:].clamp_min(torch.finfo(S.dtype).tiny)
    inverse = torch.where(zero, 0.0, 1 / torch.where(zero, 1.0, values))
    return Matrix(torch.where(finite, (vectors * inverse.unsqueeze(-2)) @ vectors.mT, torch.nan))


def _on_tape(S: Tensor, N: Tensor) -> Tensor:
    """S⁺ with derivatives, from its value N and a range that stays as it is.

    Steps of Newton and Schulz, N ← 2N − N S N, leave the value alone and square the error that S makes
    as it moves: after two of them three derivatives are right. (Those of eigenvectors are not defined
    where eigenvalues repeat, as zero does here.)
    """
    for _ in range(2):
        N = 2 * N - N @ S @ N
    return N
