"""Points and directions at which cones are tried: random, badly scaled, on edges."""

import torch
from torch import Tensor

from cvxfold.cones import Cone, ConeDims

PRODUCT = ConeDims(2, 3, (4, 4, 3, 1, 2), semidefinite=(1, 3, 3, 2), exponential=3, power=(0.2, 0.5, 0.9))


def points(dim: int, batch: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, dim, dtype=torch.float64, generator=generator)


def matrices(triangles: Tensor, order: int) -> Tensor:
    """Symmetric matrices from lower triangles, column by column, off-diagonals times √2."""
    columns, rows = torch.triu_indices(order, order)
    X = torch.zeros(len(triangles), order, order, dtype=triangles.dtype)
    entries = torch.where(rows == columns, triangles, triangles / 2**0.5)
    X[:, rows, columns] = X[:, columns, rows] = entries
    return X


def scaled(count: int, decades: float, seed: int) -> Tensor:
    """Points whose coordinates have sizes between 10^−decades and 10^decades."""
    generator = torch.Generator().manual_seed(seed)
    size = 10 ** (decades * (2 * torch.rand(count, 3, dtype=torch.float64, generator=generator) - 1))
    return size * torch.randn(count, 3, dtype=torch.float64, generator=generator).sign()


EXPONENTIAL_EDGES = [
    [0, 0, 0], [0, 0, 1], [0, 0, -1], [-1, 0, 1], [-1, 0, -1], [-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0],
    [0, 1, 1], [0, 1, -1], [-1, -1, 1], [-1, -1, -1], [0, -1, 1], [1, -1, 1], [1e-300, -1, 1],
    [-1, 1e-300, -1], [1e-8, -1, 1], [-1, 1e-8, -1], [1, 1e-8, 1], [1, 1e-8, -1], [1e300, 1e300, 1e300],
    [1e-300, 1e-300, -1e-300], [700, 1, 1], [-700, 1, -1], [1, -700, 1],
]  # fmt: skip
POWER_EDGES = [
    [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [1, 1, 1], [1, 1, -1], [-1, -1, 0], [-1, -1, 5],
    [1, -1, 0], [-1, 1, 0], [1, -1, 1e-12], [-1, 1, -1e-12], [1e-12, 1e-12, 1], [1e8, 1e-8, 1],
    [1e-8, 1e8, -1], [1e-300, 1e-300, 1e-300], [1e300, -1e300, 1e300], [0, 1, 1], [1, 0, 1], [0, -1, 1],
]  # fmt: skip


def derivative(cone: Cone, u: Tensor, v: Tensor) -> Tensor:
    return cone.derivative(u).apply(lambda d: d, v)


def packed(X: Tensor) -> Tensor:
    """Lower triangles, column by column, off-diagonals times √2, of symmetric matrices ``(B, k, k)``."""
    columns, rows = torch.triu_indices(*X.shape[1:])
    return X[:, rows, columns] * torch.where(rows == columns, 1.0, 2.0).double().sqrt()
