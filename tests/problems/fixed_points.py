"""Fixed-point iterations that have nothing to do with cones: Φ as a dense matrix, and what is true of it."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cvxfold.fold import METHODS

EXACT = [name for name, method in METHODS.items() if method.exact]


@dataclass
class Dense:
    """Φ as a dense matrix; its approximate inverse of I − Φᵀ is off by a given relative error."""

    phi: Tensor
    error: float = 1e-3
    products: list[int] = field(default_factory=list)

    def vjp(self, w: Tensor) -> Tensor:
        self.products.append(len(w))
        return (w.unsqueeze(-2) @ self.phi).squeeze(-2)

    def jvp(self, v: Tensor) -> Tensor:
        return (self.phi @ v.unsqueeze(-1)).squeeze(-1)

    def inverse_transposed(self, r: Tensor) -> Tensor:
        eye = torch.eye(r.shape[1], dtype=r.dtype)
        inverse = torch.linalg.pinv(eye - self.phi.mT, rtol=1e-12)
        return (1 + self.error) * (inverse @ r.unsqueeze(-1)).squeeze(-1)

    def take(self, index: Tensor) -> "Dense":
        return Dense(self.phi[index], self.error, self.products)


def contraction(batch: int, m: int, radius: float, seed: int = 0) -> tuple[Dense, Tensor, Tensor]:
    """A random Φ of the given spectral radius, ū, and the solution of (I − Φᵀ) w = ū."""
    generator = torch.Generator().manual_seed(seed)
    phi = torch.randn(batch, m, m, dtype=torch.float64, generator=generator)
    phi = radius * phi / torch.linalg.eigvals(phi).abs().amax(-1).view(-1, 1, 1)
    rhs = torch.randn(batch, m, dtype=torch.float64, generator=generator)
    eye = torch.eye(m, dtype=torch.float64)
    return Dense(phi), rhs, torch.linalg.solve(eye - phi.mT, rhs.unsqueeze(-1)).squeeze(-1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(phi: Tensor, rhs: Tensor) -> Tensor:
    """The solution of (I − Φᵀ) w = ū by a dense factorization."""
    eye = torch.eye(phi.shape[-1], dtype=phi.dtype)
    return torch.linalg.solve(eye - phi.mT, rhs.unsqueeze(-1)).squeeze(-1)


def relative_error(w: Tensor, expected: Tensor) -> float:
    return float(((w - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def rotations(batch: int, pairs: int, radius: float) -> Tensor:
    """Φ with complex spectrum: scaled rotations by random angles, in a random skewed basis."""
    generator = torch.Generator().manual_seed(7)
    phi = torch.zeros(batch, 2 * pairs, 2 * pairs, dtype=torch.float64)
    for i in range(batch):
        for j in range(pairs):
            angle = float(torch.rand(1, generator=generator)) * math.pi
            scale = radius * (j + 1) / pairs
            c, s = scale * math.cos(angle), scale * math.sin(angle)
            phi[i, 2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = torch.tensor([[c, -s], [s, c]])
    T = torch.eye(2 * pairs, dtype=torch.float64) + 0.1 * random(batch, 2 * pairs, 2 * pairs, seed=8)
    return T @ phi @ torch.linalg.inv(T)


def non_normal(batch: int, m: int) -> Tensor:
    """Φ of spectral radius 0.6 and a norm far above one: LFPI grows before it converges."""
    return torch.triu(random(batch, m, m, seed=9), 1) + 0.6 * torch.eye(m, dtype=torch.float64)


@dataclass
class Inverse(Dense):
    """Φ with its approximate inverse given as a matrix."""

    inverse: Tensor = field(default_factory=lambda: torch.empty(0))

    def __init__(self, phi: Tensor, inverse: Tensor) -> None:
        super().__init__(phi)
        self.inverse = inverse

    def inverse_transposed(self, r: Tensor) -> Tensor:
        return (self.inverse @ r.unsqueeze(-1)).squeeze(-1)

    def take(self, index: Tensor) -> "Inverse":
        return Inverse(self.phi[index], self.inverse[index])
