"""Cone programs: multi-label projection, robust portfolio, nearest correlation, LP, a geometric program."""

from typing import Any

import cvxpy as cp
import torch
from torch import Generator, Tensor

from cvxfold.studies.bench.families.family import Family, Stated, minimize, normal, times, uniform

_LABELS = 3


def _multi_label(n: int) -> Stated:
    y, z = cp.Variable(n), cp.Parameter(n)
    cost = -z @ y - cp.sum(cp.entr(y)) - cp.sum(cp.entr(1 - y))
    return Stated(minimize(cost, cp.sum(y) == _LABELS), [z], [y])


def _multi_label_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    return [normal(generator, batch, n)]


def _robust_portfolio(n: int) -> Stated:
    w = cp.Variable(n)
    mu, S = cp.Parameter(n), cp.Parameter((n, n))
    return Stated(minimize(-mu @ w + cp.norm(S.T @ w, 2), cp.sum(w) == 1, w >= 0), [mu, S], [w])


def _robust_portfolio_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    S = torch.eye(n, dtype=torch.float64) + normal(generator, batch, n, n) / n**0.5
    return [0.1 * normal(generator, batch, n), S]


def _nearest_correlation(n: int) -> Stated:
    X, C = cp.Variable((n, n), symmetric=True), cp.Parameter((n, n))
    semidefinite: Any = X >> 0
    return Stated(minimize(cp.sum_squares(X - C), semidefinite, cp.diag(X) == 1), [C], [X])


def _nearest_correlation_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    root = normal(generator, batch, n, n)
    return [(root + root.mT) / 2]


def _linear_program(n: int) -> Stated:
    x = cp.Variable(n)
    c, G, h = cp.Parameter(n), cp.Parameter((2 * n, n)), cp.Parameter(2 * n)
    return Stated(minimize(c @ x, G @ x <= h), [c, G, h], [x])


def _linear_program_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    """Around a vertex with n active rows and positive multipliers; the others have room there."""
    G = normal(generator, batch, 2 * n, n) / n**0.5
    G[:, :n] += torch.eye(n, dtype=torch.float64)
    room, y = (uniform(generator, 0.1, 1.0, (batch, 2 * n)) for _ in range(2))
    room[:, :n], y[:, n:] = 0, 0
    h = times(G, normal(generator, batch, n)) + room
    order = torch.randperm(2 * n, generator=generator)
    return [-times(G.mT, y), G[:, order], h[:, order]]


def _geometric(n: int) -> Stated:
    x = cp.Variable(n, pos=True)
    c, A = cp.Parameter(n, pos=True), cp.Parameter((max(1, n // 2), n), pos=True)
    problem = minimize(cp.sum(cp.multiply(c, cp.power(x, -1))), A @ x <= 1)
    return Stated(problem, [c, A], [x], gp=True)


def _geometric_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    rows = max(1, n // 2)
    return [uniform(generator, 0.5, 2.0, (batch, n)), uniform(generator, 0.2, 2.0, (batch, rows, n))]


CONIC = (
    Family(
        "multi-label",
        "multi-label projection (exponential cones)",
        "labels",
        40,
        _multi_label,
        _multi_label_values,
    ),
    Family(
        "robust-portfolio",
        "robust portfolio (second-order cone)",
        "assets",
        30,
        _robust_portfolio,
        _robust_portfolio_values,
    ),
    Family(
        "correlation",
        "nearest correlation matrix (semidefinite cone)",
        "order",
        10,
        _nearest_correlation,
        _nearest_correlation_values,
    ),
    Family(
        "lp", "linear program, all data varying", "variables", 20, _linear_program, _linear_program_values
    ),
    Family("geometric", "geometric program, resources shared", "variables", 8, _geometric, _geometric_values),
)
"""Families over other cones, and linear programs."""
