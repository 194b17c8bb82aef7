"""Quadratic programs over a box, with gradients by the KKT conditions, and an update that solves them."""

import torch
from torch import Tensor

LOW, HIGH = -0.3, 0.3


def step(x: Tensor, Q: Tensor, q: Tensor) -> Tensor:
    """Projected gradient descent on ½xᵀQx + qᵀx over the box."""
    return (x - 0.1 * ((Q @ x.unsqueeze(-1)).squeeze(-1) + q)).clamp(LOW, HIGH)


def problems(batch: int = 4, n: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Q ``(B, n, n)`` and q ``(B, n)``, both with bounds that are active and some that are not."""
    generator = torch.Generator().manual_seed(seed)
    L = torch.randn(batch, n, n, dtype=torch.float64, generator=generator)
    q = torch.randn(batch, n, dtype=torch.float64, generator=generator)
    return L @ L.mT / n + torch.eye(n, dtype=torch.float64), q


def start(Q: Tensor, q: Tensor) -> Tensor:
    return torch.zeros_like(q)


def solved(Q: Tensor, q: Tensor) -> Tensor:
    """By many plain steps."""
    x = torch.zeros_like(q)
    for _ in range(2000):
        x = step(x, Q, q)
    return x


def implicit(Q: Tensor, q: Tensor, x: Tensor, x_bar: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients on Q and q of a loss with gradient x̄: where x is free Qx + q = 0, elsewhere dx = 0."""
    on_Q, on_q = torch.zeros_like(Q), torch.zeros_like(q)
    for i in range(len(q)):
        free = (x[i] > LOW + 1e-9) & (x[i] < HIGH - 1e-9)
        on_q[i, free] = -torch.linalg.solve(Q[i][free][:, free], x_bar[i, free])
        on_Q[i] = torch.outer(on_q[i], x[i])
    return on_Q, on_q
