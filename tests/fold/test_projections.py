"""Projections against Clarabel, and their derivatives against finite differences."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from cvxfold.fold import projections

A = torch.tensor([1.0, -2.0, 0.5, 1.0, 0.3], dtype=torch.float64)
CENTER = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.0], dtype=torch.float64)
SETS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], list[Any]]]] = {
    "box": (lambda x: projections.box(x, -0.5, CENTER + 1), lambda v: [v >= -0.5, v <= CENTER.numpy() + 1]),
    "simplex": (projections.simplex, lambda v: [v >= 0, cp.sum(v) == 1]),
    "simplex of 3": (lambda x: projections.simplex(x, 3.0), lambda v: [v >= 0, cp.sum(v) == 3]),
    "capped simplex": (
        lambda x: projections.capped_simplex(x, 2.0, 0.7), lambda v: [v >= 0, v <= 0.7, cp.sum(v) == 2]
    ),
    "l2 ball": (
        lambda x: projections.l2_ball(x, 1.5, CENTER), lambda v: [cp.norm(v - CENTER.numpy()) <= 1.5]
    ),
    "l1 ball": (lambda x: projections.l1_ball(x, 1.5), lambda v: [cp.norm1(v) <= 1.5]),
    "linf ball": (lambda x: projections.linf_ball(x, 0.5), lambda v: [cp.norm_inf(v) <= 0.5]),
    "halfspace": (lambda x: projections.halfspace(x, A, -0.2), lambda v: [A.numpy() @ v <= -0.2]),
    "hyperplane": (lambda x: projections.hyperplane(x, A, 0.4), lambda v: [A.numpy() @ v == 0.4]),
}  # fmt: skip


def points() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = 2 * torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    x[0, 0] *= 0.05  # inside of the balls
    return x


@pytest.mark.parametrize("name", SETS)
def test_the_nearest_point(name: str) -> None:
    project, constraints = SETS[name]
    x = points()
    v, p = cp.Variable(5), cp.Parameter(5)
    nearest = cp.Problem(cp.Minimize(cp.sum_squares(v - p)), constraints(v))
    for point, found in zip(x.reshape(-1, 5), project(x).reshape(-1, 5), strict=True):
        p.value = point.numpy()
        nearest.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        torch.testing.assert_close(found, torch.as_tensor(v.value), rtol=0, atol=1e-6)
    torch.testing.assert_close(project(project(x)), project(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", SETS)
def test_the_derivative(name: str) -> None:
    x = points().requires_grad_()
    assert torch.autograd.gradcheck(SETS[name][0], x, eps=1e-7, atol=1e-7)


def test_derivatives_of_what_describes_the_set() -> None:
    x = points()[0]
    total = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    cap = (0.9 + 0.05 * torch.arange(5, dtype=torch.float64)).requires_grad_()
    radius = torch.tensor([0.5, 1.0, 0.1], dtype=torch.float64, requires_grad=True)
    a = A.clone().requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda t, c: projections.capped_simplex(x, t, c), (total, cap), eps=1e-7, atol=1e-7)
    assert check(lambda t: projections.simplex(x, t), total, eps=1e-7, atol=1e-7)
    for ball in (projections.l1_ball, projections.l2_ball, projections.linf_ball):
        assert check(lambda r, ball=ball: ball(x, r), radius, eps=1e-7, atol=1e-7)
    assert check(lambda a, b: projections.halfspace(x, a, b), (a, -total), eps=1e-7, atol=1e-7)


def test_corners() -> None:
    """All at the caps, a total of nothing, and a point at the centre."""
    x = torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    full = projections.capped_simplex(x, 3.0, 1.0)
    torch.testing.assert_close(full, torch.ones_like(x))
    torch.testing.assert_close(projections.capped_simplex(x, 0.0, 1.0), torch.zeros_like(x))
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(projections.l2_ball(zero).sum(), zero)
    torch.testing.assert_close(found, torch.ones_like(zero))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: projections.box(x, 1.0, 0.0), "box: expected low ≤ high"),
        (lambda x: projections.capped_simplex(x, 6.0), "capped_simplex: expected 0 ≤ total"),
        (lambda x: projections.simplex(x, -1.0), "expected 0 ≤ total"),
        (lambda x: projections.l2_ball(x, 0.0), "radius: expected a positive number"),
        (lambda x: projections.l1_ball(x, torch.nan), "radius: expected a positive number"),
        (lambda x: projections.halfspace(x, 0 * A, 1.0), "a: expected a normal vector"),
    ],
)
def test_bad_input(call: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(points())


def test_thousands_of_entries_with_ties_and_caps_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3000, dtype=torch.float64, generator=generator).round(decimals=1)
    cap = torch.rand(3000, dtype=torch.float64, generator=generator).round(decimals=1)
    total = torch.tensor([1e-3, 400.0, 1400.0], dtype=torch.float64)
    found = projections.capped_simplex(x, total, cap)
    torch.testing.assert_close(found.sum(-1), total, rtol=1e-12, atol=1e-12)
    for one, point, wanted in zip(found, x, total, strict=True):
        tau: Any = brentq(
            lambda t, point=point, wanted=wanted: float((point - t).clamp_min(0).minimum(cap).sum() - wanted),
            -10, 10, xtol=1e-15,
        )  # fmt: skip
        torch.testing.assert_close(one, (point - tau).clamp_min(0).minimum(cap), rtol=0, atol=1e-12)
