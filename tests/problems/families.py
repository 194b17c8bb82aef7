"""Problem families for the tests: a parametrized CVXPY problem and a sampler of its parameters.

Every sampler draws instances with a unique solution at which the solution map is differentiable (with
probability one), so the answers and the gradients are facts to compare with, not choices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from numpy.random import Generator

Instance = tuple[np.ndarray | float, ...]


@dataclass(frozen=True)
class Family:
    """A parametrized problem and a sampler: ``sample(batch, seed)`` gives tensors ``(batch, *shape)``."""

    name: str
    problem: cp.Problem
    parameters: list[cp.Parameter]
    variables: list[cp.Variable]
    sample: Callable[[int, int], tuple[torch.Tensor, ...]]


def minimize(cost: Any, *constraints: Any) -> cp.Problem:
    """A minimization problem (cvxpy types ``x <= y`` as a bool, hence Any)."""
    return cp.Problem(cp.Minimize(cost), list(constraints))


def stacked(draw: Callable[[Generator], Instance]) -> Callable[[int, int], tuple[torch.Tensor, ...]]:
    """A sampler that draws ``batch`` instances and stacks them to float64 tensors."""

    def sample(batch: int, seed: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng(seed)
        instances = [draw(rng) for _ in range(batch)]
        columns = zip(*instances, strict=True)
        return tuple(torch.from_numpy(np.stack([np.asarray(p, float) for p in ps])) for ps in columns)

    return sample


def dense_qp(n: int = 20, duals: bool = False) -> Family:
    """½‖Lᵀx‖² + qᵀx, Gx ≤ h, Ax = b with everything varying; the constraints hold at a random point."""
    m, k = n, max(1, n // 4)
    x = cp.Variable(n)
    L, q = cp.Parameter((n, n)), cp.Parameter(n)
    G, h = cp.Parameter((m, n)), cp.Parameter(m)
    A, b = cp.Parameter((k, n)), cp.Parameter(k)
    below: Any = G @ x <= h
    equal: Any = A @ x == b
    problem = minimize(0.5 * cp.sum_squares(L.T @ x) + q @ x, below, equal)

    def draw(rng: Generator) -> Instance:
        x0 = rng.standard_normal(n)
        L = rng.standard_normal((n, n)) / np.sqrt(n) + 0.5 * np.eye(n)
        G = rng.standard_normal((m, n)) / np.sqrt(n)
        A = rng.standard_normal((k, n)) / np.sqrt(n)
        h = G @ x0 + rng.uniform(0.05, 0.5, m)
        return L, rng.standard_normal(n), G, h, A, A @ x0

    variables = [x, *below.dual_variables, *equal.dual_variables] if duals else [x]
    return Family(f"dense_qp{n}", problem, [L, q, G, h, A, b], variables, stacked(draw))


def portfolio(n: int = 20, k: int = 5) -> Family:
    """Markowitz: −μᵀw + ½‖Fᵀw‖² + 0.05‖w‖², 1ᵀw = 1, w ≥ 0, with μ and the factor root F varying."""
    w = cp.Variable(n)
    mu, F = cp.Parameter(n), cp.Parameter((n, k))
    cost = -mu @ w + 0.5 * cp.sum_squares(F.T @ w) + 0.05 * cp.sum_squares(w)
    problem = minimize(cost, cp.sum(w) == 1, w >= 0)

    def draw(rng: Generator) -> Instance:
        return 0.1 * rng.standard_normal(n), 0.5 * rng.standard_normal((n, k))

    return Family(f"portfolio{n}", problem, [mu, F], [w], stacked(draw))


def portfolio_mu(n: int = 50, k: int = 5) -> Family:
    """Markowitz with a fixed risk model: only the expected returns μ vary."""
    rng = np.random.default_rng(7)
    F = 0.3 * rng.standard_normal((n, k))
    d = rng.uniform(0.1, 0.3, n)
    w = cp.Variable(n)
    mu = cp.Parameter(n)
    risk = cp.sum_squares(F.T @ w) + cp.sum_squares(cp.multiply(d, w))
    problem = minimize(-mu @ w + risk, cp.sum(w) == 1, w >= 0)
    sample = stacked(lambda rng: (0.1 * rng.standard_normal(n),))
    return Family(f"portfolio_mu{n}", problem, [mu], [w], sample)


def mpc(horizon: int = 10, states: int = 4, inputs: int = 2, absolute: bool = False) -> Family:
    """Track a reference with boxes on inputs and states; initial state and reference vary.

    ``absolute`` writes the input's box as |u| ≤ 0.5. That gives the canonical form a variable v with
    |u| ≤ v ≤ 0.5, which is not unique, while x, u and their derivatives still are.
    """
    rng = np.random.default_rng(11)
    M = np.eye(states) + 0.2 * rng.standard_normal((states, states))
    A = M * (0.98 / np.abs(np.linalg.eigvals(M)).max())
    B = rng.standard_normal((states, inputs))
    x, u = cp.Variable((horizon + 1, states)), cp.Variable((horizon, inputs))
    start, target = cp.Parameter(states), cp.Parameter((horizon, states))
    cost = cp.sum_squares(x[1:] - target) + 0.1 * cp.sum_squares(u)
    box = [cp.abs(u) <= 0.5] if absolute else [u <= 0.5, u >= -0.5]
    dynamics = [x[0] == start, x[1:] == x[:-1] @ A.T + u @ B.T]
    problem = minimize(cost, *dynamics, *box, x[1:] <= 3, x[1:] >= -3)

    def draw(rng: Generator) -> Instance:
        phase, rate = rng.uniform(0, 2 * np.pi, states), rng.uniform(0.2, 1.0, states)
        return 0.5 * rng.standard_normal(states), 1.5 * np.sin(np.arange(horizon)[:, None] * rate + phase)

    return Family(f"mpc{horizon}x{states}", problem, [start, target], [x, u], stacked(draw))


def robust_portfolio(n: int = 15) -> Family:
    """−μᵀw + ‖Sᵀw‖₂, 1ᵀw = 1, w ≥ 0: one second-order cone, no quadratic term."""
    w = cp.Variable(n)
    mu, S = cp.Parameter(n), cp.Parameter((n, n))
    problem = minimize(-mu @ w + cp.norm(S.T @ w, 2), cp.sum(w) == 1, w >= 0)

    def draw(rng: Generator) -> Instance:
        return 0.1 * rng.standard_normal(n), np.eye(n) + 0.3 * rng.standard_normal((n, n))

    return Family(f"robust_portfolio{n}", problem, [mu, S], [w], stacked(draw))


def ball_least_squares(n: int = 10) -> Family:
    """‖Ax − b‖² with ‖Cx − d‖₂ ≤ r: the ball is active for some instances and not for others."""
    x = cp.Variable(n)
    A, b = cp.Parameter((2 * n, n)), cp.Parameter(2 * n)
    C, d, r = cp.Parameter((n, n)), cp.Parameter(n), cp.Parameter(nonneg=True)
    problem = minimize(cp.sum_squares(A @ x - b), cp.norm(C @ x - d, 2) <= r)

    def draw(rng: Generator) -> Instance:
        A = rng.standard_normal((2 * n, n)) / np.sqrt(n)
        C = np.eye(n) + 0.3 * rng.standard_normal((n, n)) / np.sqrt(n)
        return A, rng.standard_normal(2 * n), C, 0.3 * rng.standard_normal(n), rng.uniform(0.3, 5.0)

    return Family(f"ball_least_squares{n}", problem, [A, b, C, d, r], [x], stacked(draw))


def many_cones(sizes: tuple[int, ...] = (3, 3, 3, 2, 5), duals: bool = False) -> Family:
    """½‖x − z‖² with ‖C_i x_i − c_i‖₂ ≤ r_i on blocks of equal and unequal sizes, and one coupling row."""
    n = sum(sizes)
    x = cp.Variable(n)
    z, c, r = cp.Parameter(n), cp.Parameter(n), cp.Parameter(len(sizes))
    blocks = [slice(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
    cones = [cp.SOC(r[i], x[rows] - c[rows]) for i, rows in enumerate(blocks)]
    total: Any = cp.sum(x) <= 1
    problem = minimize(0.5 * cp.sum_squares(x - z), *cones, total)

    def draw(rng: Generator) -> Instance:
        centre = 0.3 * rng.standard_normal(n) - 0.2
        return 1.5 * rng.standard_normal(n), centre, rng.uniform(0.5, 2.0, len(sizes))

    variables = [x]
    if duals:
        variables += [v for cone in cones for v in cone.dual_variables] + list(total.dual_variables)
    return Family("many_cones", problem, [z, c, r], variables, stacked(draw))


def least_absolute(m: int = 3, n: int = 2) -> Family:
    """½‖Ax − b‖₁ with x ≥ 0: the README example of cvxpylayers, an LP."""
    x = cp.Variable(n)
    A, b = cp.Parameter((m, n)), cp.Parameter(m)
    problem = minimize(0.5 * cp.pnorm(A @ x - b, p=1), x >= 0)

    def draw(rng: Generator) -> Instance:
        A = rng.standard_normal((m, n))
        return A, A @ np.abs(rng.standard_normal(n)) + 0.5 * rng.standard_normal(m)

    return Family(f"least_absolute{m}x{n}", problem, [A, b], [x], stacked(draw))


def linear_program(n: int = 8, duals: bool = False) -> Family:
    """cᵀx with Gx ≤ h: the data are built around a vertex with n active rows and positive multipliers."""
    m = 2 * n
    x = cp.Variable(n)
    c, G, h = cp.Parameter(n), cp.Parameter((m, n)), cp.Parameter(m)
    rows: Any = G @ x <= h
    problem = minimize(c @ x, rows)

    def draw(rng: Generator) -> Instance:
        G = rng.standard_normal((m, n)) / np.sqrt(n)
        G[:n] += np.eye(n)
        slack, y = rng.uniform(0.1, 1.0, m), rng.uniform(0.1, 1.0, m)
        slack[:n], y[n:] = 0, 0
        order = rng.permutation(m)
        return -G.T @ y, G[order], (G @ rng.standard_normal(n) + slack)[order]

    variables = [x, *rows.dual_variables] if duals else [x]
    return Family(f"linear_program{n}", problem, [c, G, h], variables, stacked(draw))


def equality_qp(n: int = 12, k: int = 4, duals: bool = False) -> Family:
    """½‖x‖² + qᵀx with Ax = b: only the zero cone."""
    x = cp.Variable(n)
    q, A, b = cp.Parameter(n), cp.Parameter((k, n)), cp.Parameter(k)
    rows: Any = A @ x == b
    problem = minimize(0.5 * cp.sum_squares(x) + q @ x, rows)

    def draw(rng: Generator) -> Instance:
        return rng.standard_normal(n), rng.standard_normal((k, n)), rng.standard_normal(k)

    variables = [x, *rows.dual_variables] if duals else [x]
    return Family("equality_qp", problem, [q, A, b], variables, stacked(draw))


def least_squares(m: int = 12, n: int = 6) -> Family:
    """‖Ax − b‖² + λ‖x‖² without constraints, λ a scalar parameter."""
    x = cp.Variable(n)
    A, b, lam = cp.Parameter((m, n)), cp.Parameter(m), cp.Parameter(nonneg=True)
    problem = minimize(cp.sum_squares(A @ x - b) + lam * cp.sum_squares(x))

    def draw(rng: Generator) -> Instance:
        return rng.standard_normal((m, n)), rng.standard_normal(m), rng.uniform(0.1, 1.0)

    return Family("least_squares", problem, [A, b, lam], [x], stacked(draw))


def no_rows(n: int = 6) -> Family:
    """½xᵀPx + qᵀx with constant P: the canonical form has no rows at all."""
    x = cp.Variable(n)
    q = cp.Parameter(n)
    root = np.random.default_rng(3).standard_normal((n, n))
    P = root @ root.T / n + 0.1 * np.eye(n)
    problem = minimize(0.5 * cp.quad_form(x, cp.psd_wrap(P)) + q @ x)
    return Family("no_rows", problem, [q], [x], stacked(lambda rng: (rng.standard_normal(n),)))


def total_variation(n: int = 30) -> Family:
    """½‖x − y‖² + λ Σ|xᵢ₊₁ − xᵢ|: denoise a step signal; the signal y and the weight λ vary."""
    x = cp.Variable(n)
    y, lam = cp.Parameter(n), cp.Parameter(nonneg=True)
    problem = minimize(0.5 * cp.sum_squares(x - y) + lam * cp.norm1(cp.diff(x)))

    def draw(rng: Generator) -> Instance:
        steps = np.repeat(rng.standard_normal(3), n // 3)
        return steps + 0.2 * rng.standard_normal(n), rng.uniform(0.2, 0.6)

    return Family(f"total_variation{n}", problem, [y, lam], [x], stacked(draw))


def constant_qp(n: int = 15) -> Family:
    """½xᵀPx + qᵀx with Gx ≤ h, −1 ≤ x ≤ 1 where everything but q is constant."""
    rng = np.random.default_rng(5)
    root, G, h = rng.standard_normal((n, n)), rng.standard_normal((n // 2, n)), rng.uniform(0.5, 1.0, n // 2)
    x = cp.Variable(n)
    q = cp.Parameter(n)
    cost = 0.5 * cp.quad_form(x, cp.psd_wrap(root @ root.T / n + 0.1 * np.eye(n))) + q @ x
    problem = minimize(cost, G @ x <= h, x <= 1, x >= -1)
    return Family("constant_qp", problem, [q], [x], stacked(lambda rng: (rng.standard_normal(n),)))


def scalars() -> Family:
    """Scalar and matrix parameters, a scalar, a vector and a matrix variable, coupled by constraints."""
    t, x, Y = cp.Variable(), cp.Variable(4), cp.Variable((3, 4))
    a, weight, C = cp.Parameter(), cp.Parameter(nonneg=True), cp.Parameter((3, 4))
    cost = cp.sum_squares(Y - C) + weight * cp.sum_squares(x) + cp.square(t - a) + a * cp.sum(x)
    problem = minimize(cost, cp.sum(Y, axis=0) <= x, Y >= -0.5, Y[:, 0] <= t, t <= 0.8)

    def draw(rng: Generator) -> Instance:
        return rng.standard_normal(()), rng.uniform(0.5, 2.0), rng.standard_normal((3, 4))

    return Family("scalars", problem, [a, weight, C], [Y, t, x], stacked(draw))


FAMILIES: dict[str, Callable[[], Family]] = {
    "dense_qp5": lambda: dense_qp(5),
    "dense_qp20": lambda: dense_qp(20),
    "dense_qp50": lambda: dense_qp(50),
    "dense_qp100": lambda: dense_qp(100),
    "dense_qp5_duals": lambda: dense_qp(5, duals=True),
    "portfolio": portfolio,
    "portfolio_mu": portfolio_mu,
    "mpc": mpc,
    "mpc_absolute": lambda: mpc(absolute=True),
    "robust_portfolio": robust_portfolio,
    "ball_least_squares": ball_least_squares,
    "many_cones": many_cones,
    "many_cones_duals": lambda: many_cones(duals=True),
    "least_absolute": least_absolute,
    "least_absolute_tall": lambda: least_absolute(12, 4),
    "linear_program": linear_program,
    "linear_program_duals": lambda: linear_program(duals=True),
    "equality_qp": equality_qp,
    "equality_qp_duals": lambda: equality_qp(duals=True),
    "least_squares": least_squares,
    "no_rows": no_rows,
    "total_variation": total_variation,
    "constant_qp": constant_qp,
    "scalars": scalars,
}
