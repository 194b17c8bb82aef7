"""Small problems with values at which they are degenerate, and values nearby at which they are not."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold import Verdict
from cvxfold.torch import CvxpyLayer
from problems.families import minimize

Problem = tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]


def linear_program() -> Problem:
    """cᵀx over {x ≥ 0, x ≤ 1, x₁ + x₂ = 1}."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(c @ x, x >= 0, x <= 1, cp.sum(x) == 1), [c], [x]


def corner() -> Problem:
    """−x₁ − x₂ under x ≤ b and x₁ + x₂ ≤ 2: three constraints meet in a corner of the plane where b = 1."""
    x, b = cp.Variable(2), cp.Parameter(2)
    return minimize(-cp.sum(x), x <= b, cp.sum(x) <= 2), [b], [x]


def projection() -> Problem:
    """‖x − c‖² over x ≥ 0, whose projection has a kink at cᵢ = 0."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), x >= 0), [c], [x]


def twice_bounded() -> Problem:
    """‖x − c‖² over x ≥ b and 2x ≥ 2d: where b = d each bound stands twice, and they may move apart."""
    x, c, b, d = cp.Variable(2), cp.Parameter(2), cp.Parameter(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), x >= b, 2 * x >= 2 * d), [c, b, d], [x]


def ball() -> Problem:
    """‖x − c‖² over the unit ball: a kink where ‖c‖ = 1."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), cp.norm(x) <= 1), [c], [x]


def shrinkage() -> Problem:
    """½‖x − c‖² + ‖x‖₁: soft thresholding, with a kink where |cᵢ| = 1."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(0.5 * cp.sum_squares(x - c) + cp.norm1(x), x >= -9), [c], [x]


def largest_eigenvalue() -> Problem:
    """λ_max(A), which has no derivative where it is repeated."""
    t, A = cp.Variable(), cp.Parameter((3, 3), symmetric=True)
    return minimize(t, t * np.eye(3) - A >> 0), [A], [t]


def nearest_semidefinite() -> Problem:
    """The projection onto the semidefinite cone, with a kink where an eigenvalue is zero."""
    X, A = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    return minimize(cp.sum_squares(X - A), X >> 0), [A], [X]


def flat_direction() -> Problem:
    """(x₁ − c₁)² over a box for x₂, which nothing decides."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.square(x[0] - c[0]), x[1] >= -1, x[1] <= 1), [c], [x]


def exponential_edge() -> Problem:
    """‖x − c‖² over {exp(x₁) ≤ x₂}: a kink where c lies on the boundary."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), cp.exp(x[0]) <= x[1]), [c], [x]


def budget() -> Problem:
    """‖x − c‖² under Σx ≤ b, the only row: a kink where b = Σc, at which nothing of u is left."""
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    return minimize(cp.sum_squares(x - c), cp.sum(x) <= b), [c, b], [x]


def multiplier() -> Problem:
    """The multiplier of a constraint that stands twice is not unique, and is returned."""
    x, c = cp.Variable(2), cp.Parameter(2)
    once: Any = cp.sum(x) <= 1
    return minimize(cp.sum_squares(x - c), once, 2 * cp.sum(x) <= 2), [c], [x, *once.dual_variables]


Values = list[Any]
DEGENERATE: list[tuple[Callable[[], Problem], Values, Values]] = [
    # the problem, values where it is degenerate, values nearby where it is not
    (linear_program, [[1.0, 1.0]], [[1.0, 2.0]]),
    (corner, [[1.0, 1.0]], [[1.0, 0.9]]),
    (projection, [[1.0, 0.0]], [[1.0, 0.01]]),
    (projection, [[0.0, -1.0]], [[-0.01, -1.0]]),
    (twice_bounded, [[-1.0, -1.0], [0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
    (ball, [[0.6, 0.8]], [[0.7, 0.8]]),
    (ball, [[0.6, 0.8]], [[0.5, 0.8]]),
    (shrinkage, [[1.0, 2.0]], [[1.1, 2.0]]),
    (largest_eigenvalue, [np.diag([1.0, 1.0, 0.0])], [np.diag([1.0, 0.9, 0.0])]),
    (nearest_semidefinite, [np.diag([1.0, 0.0, -1.0])], [np.diag([1.0, 1.0, -1.0])]),
    (budget, [[1.0, 1.0], 2.0], [[1.0, 1.0], 1.999]),
    (budget, [[0.3, -0.2], 0.1], [[0.3, -0.2], 0.101]),
    (multiplier, [[1.0, 1.0]], [[0.3, 0.3]]),
    (exponential_edge, [[0.0, 1.0]], [[0.0, 1.1]]),
    (exponential_edge, [[0.0, 1.0]], [[0.0, 0.9]]),
]
CASES = [pytest.param(*each, id=f"{each[0].__name__}-{i}") for i, each in enumerate(DEGENERATE)]


def backward(make: Callable[[], Problem], values: Values, **options: Any) -> tuple[CvxpyLayer, list[Tensor]]:
    problem, parameters, variables = make()
    layer = CvxpyLayer(problem, parameters, variables, **options)
    inputs = [torch.as_tensor(np.asarray(v), dtype=torch.float64).requires_grad_() for v in values]
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for out in layer(*inputs):
        loss = loss + (torch.randn(out.shape, dtype=out.dtype, generator=generator) * out).sum()
    return layer, list(torch.autograd.grad(loss, inputs))


def verdict(layer: CvxpyLayer) -> list[Verdict]:
    assert layer.report is not None
    assert layer.report.backward is not None
    return layer.report.backward.verdict
