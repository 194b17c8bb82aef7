"""A small layer to unroll: a second-order cone and an orthant."""

from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from cvxfold.torch import CvxpyLayer
from problems.families import minimize


def small_layer(**options: Any) -> CvxpyLayer:
    """½‖x − c‖² + 0.1‖x‖ over Ax ≤ b: a second-order cone and an orthant, no kink near the data below."""
    x, A, b, c = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(2), cp.Parameter(3)
    problem = minimize(0.5 * cp.sum_squares(x - c) + 0.1 * cp.norm(x), A @ x <= b)
    return CvxpyLayer(problem, [A, b, c], [x], on_unconverged="ignore", **options)


def small_data(batch: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(batch, 2, 3, dtype=torch.float64, generator=generator)
    b = torch.randn(batch, 2, dtype=torch.float64, generator=generator)
    c = torch.randn(batch, 3, dtype=torch.float64, generator=generator)
    return tuple(value.requires_grad_() for value in (A, b, c))
