"""Losses on multipliers alone, or beside variables: closed forms, and no false alarm.

Of min cᵀx + ½ xᵀPx, A x ≤ b with the rows A₀ active, the gradient of ȳᵀy + x̄ᵀx is −p in c and v in b, where
P p + A₀ᵀv = x̄ and A₀ p = ȳ₀.
"""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.marks import long

F64 = torch.float64
n, m, BATCH = 4, 9, 5


def drawn(
    curvature: float, unit: float, seed: int
) -> tuple[CvxpyLayer, Tensor, Tensor, Tensor, list[list[int]]]:
    """A layer, A, c and b ``(B, ·)``, and the rows that are active; ``unit`` is that of the objective."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    x, c, b = cp.Variable(n), cp.Parameter(n), cp.Parameter(m)
    objective = c @ x + (0.5 * curvature * unit * cp.sum_squares(x) if curvature else 0)
    rows = A @ x <= b
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective), [rows]), [c, b], [x, rows.dual_variables[0]])
    active = [sorted(rng.permutation(m)[: n if not curvature else rng.integers(1, n)]) for _ in range(BATCH)]
    y, s = np.zeros((BATCH, m)), 0.1 + rng.random((BATCH, m))
    for i, those in enumerate(active):
        y[i, those], s[i, those] = unit * (0.1 + rng.random(len(those))), 0
    at = rng.standard_normal((BATCH, n))
    c_values, b_values = (torch.from_numpy(v) for v in (-curvature * unit * at - y @ A, at @ A.T + s))
    return layer, torch.from_numpy(A), c_values, b_values, active


@pytest.mark.parametrize("looks", [0.0, 1e-9, 1.0])
@pytest.mark.parametrize("unit", [1e-6, 1.0, pytest.param(1e6, marks=long)])
@pytest.mark.parametrize("curvature", [0.0, 1.0])
def test_the_gradient_of_multipliers_is_right_and_nothing_is_said(
    engine: str, curvature: float, unit: float, looks: float
) -> None:
    layer, A, c, b, active = drawn(curvature, unit, 3)
    on_x, on_y = looks * torch.linspace(1, 2, n, dtype=F64), torch.linspace(-1, 2, m, dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, y = layer(c.requires_grad_(), b.requires_grad_())
        by_c, by_b = torch.autograd.grad((x @ on_x).sum() + (y @ on_y).sum(), [c, b])
    report = layer.report
    assert report is not None
    assert report.backward is not None
    assert report.backward.verdict == [cvxfold.Verdict.CONVERGED] * BATCH
    assert (report.backward.residual < 1e-9).all()
    for i, those in enumerate(active):
        rows, k = A[those], len(those)
        corner = curvature * unit * torch.eye(n, dtype=F64)
        system = torch.cat([torch.cat([corner, rows.T], 1), torch.cat([rows, torch.zeros(k, k)], 1)])
        right = torch.linalg.solve(system, torch.cat([on_x, on_y[those]]))
        p, v = right[:n], torch.zeros(m, dtype=F64)
        v[those] = right[n:]
        off, size = torch.cat([by_c[i] + p, by_b[i] - v]).norm(), torch.cat([p, v]).norm()
        assert off <= torch.minimum(report.backward.error[i], torch.tensor(1e-6)) * size


def test_a_variable_that_nothing_sees_does_not_matter_to_multipliers(engine: str) -> None:
    """x₂ stands nowhere, and the loss looks at y₁ = −c."""
    x, c = cp.Variable(2), cp.Parameter()
    rows: list[cp.Constraint] = [x[0] >= 1, 0 * x[1] <= 1]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c * x[0]), rows), [c], [rows[0].dual_variables[0]])
    value = torch.tensor([1.0, 2.0, 3.0], dtype=F64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (y,) = layer(value)
        (gradient,) = torch.autograd.grad(y.square().sum(), [value])
    torch.testing.assert_close(gradient, 2 * value.detach())
