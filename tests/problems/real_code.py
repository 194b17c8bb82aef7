"""Layers of the kinds that published projects build: control, finance, matching, ranking."""

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from problems.families import minimize

F64 = torch.float64


@dataclass(frozen=True)
class Published:
    """A problem with parameters, what is asked of it, values ``(B, *shape)``, and a step for differences."""

    problem: cp.Problem
    parameters: list[cp.Parameter]
    variables: list[cp.Variable]
    values: list[torch.Tensor]
    step: float = 1e-3


def _normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def robust_portfolio() -> Published:
    """Distributionally robust: the mean return is known up to a ball, the risk is that of a factor model."""
    n, k = 6, 3
    w, mu = cp.Variable(n), cp.Parameter(n)
    factors, radius = cp.Parameter((k, n)), cp.Parameter(nonneg=True)
    cost = -mu @ w + radius * cp.norm(w, 2) + cp.sum_squares(factors @ w) + 0.1 * cp.norm(factors @ w, 2)
    problem = minimize(cost, cp.sum(w) == 1, w >= 0, w <= 0.5)
    values = [0.3 * _normal(0, 2, n), _normal(1, 2, k, n), torch.tensor([0.1, 0.3], dtype=F64)]
    return Published(problem, [mu, factors, radius], [w], values)


def control_policy() -> Published:
    """A convex control policy: the cost of a step and a root of the value function after it."""
    n, m = 4, 2
    drift, B, P_root = cp.Parameter(n), cp.Parameter((n, m)), cp.Parameter((n, n))
    u, after = cp.Variable(m), cp.Variable(n)
    problem = minimize(
        cp.sum_squares(P_root @ after) + 0.1 * cp.sum_squares(u), after == drift + B @ u, cp.norm(u, 2) <= 1
    )
    values = [2 * _normal(2, 2, n), _normal(3, 2, n, m), torch.eye(n, dtype=F64) + 0.3 * _normal(4, 2, n, n)]
    return Published(problem, [drift, B, P_root], [u], values)


def value_function_policy() -> Published:
    """The same with P itself as the parameter, semidefinite but for noise in its lower triangle."""
    n, m = 4, 2
    drift, B = cp.Parameter(n), np.asarray(_normal(3, n, m))
    P, u = cp.Parameter((n, n), PSD=True), cp.Variable(m)
    after = cp.Variable(n)
    cost = cp.quad_form(after, P) + 0.1 * cp.sum_squares(u)
    problem = minimize(cost, after == drift + B @ u, cp.norm(u, 2) <= 1)
    root = torch.eye(n, dtype=F64) + 0.3 * _normal(4, 2, n, n)
    return Published(problem, [drift, P], [u], [2 * _normal(2, 2, n), root @ root.mT])


def lyapunov_controller() -> Published:
    """Near a wished-for input, if V decreases at a rate; a slack r at a large price keeps it feasible."""
    m = 3
    u, r = cp.Variable(m), cp.Variable(nonneg=True)
    wish, slope, level = cp.Parameter(m), cp.Parameter(m), cp.Parameter()
    problem = minimize(cp.sum_squares(u - wish) + 1e4 * r, slope @ u - r <= level, cp.norm(u, "inf") <= 2)
    values = [_normal(5, 3, m), _normal(6, 3, m), torch.tensor([-0.5, 0.2, -20.0], dtype=F64)]
    return Published(problem, [wish, slope, level], [u, r], values)


def matching() -> Published:
    """A doubly stochastic matrix near scores, with an entropy, as in differentiable sorting and matching."""
    n = 4
    X, scores = cp.Variable((n, n)), cp.Parameter((n, n))
    cost = -cp.sum(cp.multiply(scores, X)) - 0.3 * cp.sum(cp.entr(X))
    problem = minimize(cost, cp.sum(X, axis=0) == 1, cp.sum(X, axis=1) == 1)
    return Published(problem, [scores], [X], [_normal(7, 2, n, n)])


def multi_period_portfolio() -> Published:
    """Three periods with costs of trading and CVaR over scenarios of the last one."""
    n, periods, scenarios, share = 4, 3, 12, 0.75
    W = cp.Variable((periods, n))
    threshold, excess = cp.Variable(), cp.Variable(scenarios, nonneg=True)
    mu, start, losses = cp.Parameter((periods, n)), cp.Parameter(n), cp.Parameter((scenarios, n))
    cost: Any = -cp.sum(cp.multiply(mu, W)) + 0.05 * cp.norm1(W[0] - start)
    cost += 0.05 * cp.norm1(W[1:] - W[:-1]) + 0.5 * cp.sum_squares(W)
    cost += 0.3 * (threshold + cp.sum(excess) / (scenarios * (1 - share)))
    problem = minimize(cost, cp.sum(W, axis=1) == 1, W >= 0, excess >= losses @ W[-1] - threshold)
    drawn = [_normal(8, 2, periods, n), _normal(9, 2, n), _normal(10, 2, scenarios, n)]
    values = [0.5 * drawn[0], torch.softmax(drawn[1], 1), drawn[2]]
    return Published(problem, [mu, start, losses], [W], values, step=1e-5)  # other faces are near


def rebalanced_portfolio() -> Published:
    """Five periods from equal weights: trades with costs, CVaR of each period; multipliers are not unique."""
    n, periods, scenarios, share = 5, 5, 20, 0.9
    w, z = cp.Variable((periods + 1, n)), cp.Variable((periods, n))
    threshold, excess = cp.Variable(periods), cp.Variable((periods, scenarios), nonneg=True)
    mu, start, returns = cp.Parameter((periods, n)), cp.Parameter(n), cp.Parameter((scenarios, n))
    cost: Any = 0
    constraints: list[Any] = [w[0] == start, w[1:] >= 0, cp.sum(w[1:], axis=1) == 1, w[1:] == w[:-1] + z]
    for t in range(periods):
        constraints.append(excess[t] >= -returns @ w[t + 1] - threshold[t])
        cost += threshold[t] + cp.sum(excess[t]) / (scenarios * (1 - share))
        cost += 0.01 * cp.norm1(z[t]) - mu[t] @ w[t + 1]
    values = [
        0.02 * _normal(1, 2, periods, n),
        torch.full((2, n), 1 / n).double(),
        0.05 * _normal(2, 2, scenarios, n),
    ]
    return Published(minimize(cost, *constraints), [mu, start, returns], [w, z], values, step=1e-6)


def tracking_portfolio() -> Published:
    """Near a benchmark b in a fixed covariance."""
    n = 5
    root = np.asarray(_normal(11, n, n))
    w, b = cp.Variable(n), cp.Parameter(n)
    risk = cp.quad_form(w - b, root @ root.T + np.eye(n))
    problem = minimize(risk, cp.sum(w) == 1, w >= 0, cp.sum(w[:2]) <= 0.3)
    return Published(problem, [b], [w], [torch.softmax(_normal(12, 3, n), 1)])


PUBLISHED = {
    one.__name__: one
    for one in (
        robust_portfolio, control_policy, value_function_policy, lyapunov_controller, matching,
        multi_period_portfolio, rebalanced_portfolio, tracking_portfolio,
    )
}  # fmt: skip
