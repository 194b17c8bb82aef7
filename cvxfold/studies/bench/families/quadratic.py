"""Quadratic programs: portfolio, dense QP, total variation, MPC, transport, lasso, a dense parameter."""

import cvxpy as cp
import numpy as np
import torch
from torch import Generator, Tensor

from cvxfold.studies.bench.families.family import (
    Family,
    Polytope,
    QuadraticProgram,
    Stated,
    minimize,
    normal,
    times,
    uniform,
)

_FACTORS = 10  # of the portfolio's risk model
_STATES, _INPUTS = 6, 3  # of the controlled system


def _portfolio(n: int) -> Stated:
    w = cp.Variable(n)
    mu, F = cp.Parameter(n), cp.Parameter((n, _FACTORS))
    risk = 0.5 * cp.sum_squares(F.T @ w) + 0.05 * cp.sum_squares(w)
    return Stated(minimize(-mu @ w + risk, cp.sum(w) == 1, w >= 0), [mu, F], [w])


def _portfolio_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    return [0.1 * normal(generator, batch, n), 0.5 * normal(generator, batch, n, _FACTORS)]


def _portfolio_matrices(mu: Tensor, F: Tensor) -> QuadraticProgram:
    n = mu.shape[-1]
    eye, ones = torch.eye(n).to(mu), torch.ones(1, n).to(mu)
    return QuadraticProgram(F @ F.mT + 0.1 * eye, -mu, -eye, ones.new_zeros(n), ones, ones.new_ones(1))


def _dense_qp(n: int) -> Stated:
    x, k = cp.Variable(n), max(1, n // 5)
    L, q = cp.Parameter((n, n)), cp.Parameter(n)
    G, h = cp.Parameter((n, n)), cp.Parameter(n)
    A, b = cp.Parameter((k, n)), cp.Parameter(k)
    cost = 0.5 * cp.sum_squares(L.T @ x) + q @ x
    return Stated(minimize(cost, G @ x <= h, A @ x == b), [L, q, G, h, A, b], [x])


def _dense_qp_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    """The constraints hold at a random point, the inequalities with room."""
    k, eye = max(1, n // 5), torch.eye(n, dtype=torch.float64)
    L = normal(generator, batch, n, n) / n**0.5 + 0.5 * eye
    G, A = normal(generator, batch, n, n) / n**0.5, normal(generator, batch, k, n) / n**0.5
    inside, room = normal(generator, batch, n), uniform(generator, 0.05, 0.5, (batch, n))
    return [L, normal(generator, batch, n), G, times(G, inside) + room, A, times(A, inside)]


def _dense_qp_matrices(L: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> QuadraticProgram:
    return QuadraticProgram(L @ L.mT, q, G, h, A, b)


def _total_variation(n: int) -> Stated:
    x, y, weight = cp.Variable(n), cp.Parameter(n), cp.Parameter(nonneg=True)
    cost = 0.5 * cp.sum_squares(x - y) + weight * cp.norm1(cp.diff(x))
    return Stated(minimize(cost), [y, weight], [x])


def _total_variation_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    """Three noisy steps."""
    steps = normal(generator, batch, 3).repeat_interleave(-(-n // 3), dim=1)[:, :n]
    return [steps + 0.2 * normal(generator, batch, n), uniform(generator, 0.2, 0.6, (batch,))]


def _mpc(horizon: int) -> Stated:
    rng = np.random.default_rng(11)  # of the system, the same for all
    M = np.eye(_STATES) + 0.2 * rng.standard_normal((_STATES, _STATES))
    A = M * (0.98 / np.abs(np.linalg.eigvals(M)).max())
    B = rng.standard_normal((_STATES, _INPUTS))
    x, u = cp.Variable((horizon + 1, _STATES)), cp.Variable((horizon, _INPUTS))
    start, target = cp.Parameter(_STATES), cp.Parameter((horizon, _STATES))
    cost = cp.sum_squares(x[1:] - target) + 0.1 * cp.sum_squares(u)
    dynamics = [x[0] == start, x[1:] == x[:-1] @ A.T + u @ B.T]
    box = [u <= 0.5, u >= -0.5, x[1:] <= 3, x[1:] >= -3]
    return Stated(minimize(cost, *dynamics, *box), [start, target], [x, u])


def _mpc_values(horizon: int, batch: int, generator: Generator) -> list[Tensor]:
    """A reference of one sine for each state."""
    phase = uniform(generator, 0, 2 * np.pi, (batch, 1, _STATES))
    rate = uniform(generator, 0.2, 1.0, (batch, 1, _STATES))
    steps = torch.arange(horizon, dtype=torch.float64).reshape(1, -1, 1)
    return [0.5 * normal(generator, batch, _STATES), 1.5 * torch.sin(steps * rate + phase)]


def _marginals(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for all."""
    rng = np.random.default_rng(13)
    supply, demand = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n)
    return supply / supply.sum(), demand / demand.sum()


def _transport(n: int) -> Stated:
    supply, demand = _marginals(n)
    X, C = cp.Variable((n, n)), cp.Parameter((n, n))
    cost = cp.sum(cp.multiply(C, X)) + 0.5 * cp.sum_squares(X)
    rows = cp.sum(X, axis=1) == supply
    columns = cp.sum(X, axis=0) == demand
    return Stated(minimize(cost, rows, columns, X >= 0), [C], [X])


def _transport_projection(stated: Stated) -> Polytope:
    """Of −C, since ⟨C, X⟩ + ½‖X‖² = ½‖X + C‖² − ½‖C‖²."""
    n = stated.variables[0].shape[0]
    eye, ones = np.eye(n), np.ones((1, n))
    A = np.vstack([np.kron(eye, ones), np.kron(ones, eye)])
    return Polytope(A, np.concatenate(_marginals(n)), np.zeros(n * n), lambda C: -C.flatten(1))


def _transport_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    return [uniform(generator, 0.0, 1.0, (batch, n, n))]


def _lasso(n: int) -> Stated:
    x = cp.Variable(n)
    A, b, weight = cp.Parameter((n, n)), cp.Parameter(n), cp.Parameter(nonneg=True)
    return Stated(minimize(0.5 * cp.sum_squares(A @ x - b) + weight * cp.norm1(x)), [A, b, weight], [x])


def _lasso_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    """A tenth of the features count."""
    A = normal(generator, batch, n, n) / n**0.5
    few = normal(generator, batch, n) * (torch.arange(n) < max(2, n // 10))
    return [
        A,
        times(A, few) + 0.05 * normal(generator, batch, n),
        uniform(generator, 0.05, 0.2, (batch,)),
    ]


def _observations(n: int) -> int:
    """Of a regression on n features: the fewer the rarer."""
    return max(20, n // 25)


def _design(n: int) -> np.ndarray:
    m = _observations(n)
    return np.random.default_rng(n).standard_normal((m, n)) / m**0.5


def _regression(n: int) -> Stated:
    x = cp.Variable(n)
    b, weight = cp.Parameter(_observations(n)), cp.Parameter(nonneg=True)
    cost = 0.5 * cp.sum_squares(_design(n) @ x - b) + weight * cp.norm1(x)
    return Stated(minimize(cost), [b, weight], [x])


def _regression_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    """A tenth as many features count as there are observations."""
    m, design = _observations(n), torch.as_tensor(_design(n))
    few = normal(generator, batch, n) * (torch.arange(n) < m // 10)
    noise = 0.05 * normal(generator, batch, m)
    return [few @ design.T + noise, uniform(generator, 0.05, 0.2, (batch,))]


def _dense_parameter(n: int) -> Stated:
    x, A = cp.Variable(n), cp.Parameter((n, n))
    b, q = cp.Parameter(n), cp.Parameter(n)
    return Stated(minimize(0.5 * cp.sum_squares(x) + q @ x, A @ x <= b), [A, b, q], [x])


def _dense_parameter_values(n: int, batch: int, generator: Generator) -> list[Tensor]:
    A = normal(generator, batch, n, n) / n**0.5
    return [A, uniform(generator, 0.05, 0.5, (batch, n)), normal(generator, batch, n)]


def _dense_parameter_matrices(A: Tensor, b: Tensor, q: Tensor) -> QuadraticProgram:
    none = q.new_zeros(0)
    return QuadraticProgram(torch.eye(q.shape[-1]).to(q), q, A, b, none, none)


QUADRATIC = (
    Family(
        "portfolio",
        "Markowitz portfolio, returns and 10 risk factors varying",
        "assets",
        50,
        _portfolio,
        _portfolio_values,
        matrices=_portfolio_matrices,
    ),
    Family(
        "dense-qp",
        "dense QP, all data varying",
        "variables",
        50,
        _dense_qp,
        _dense_qp_values,
        matrices=_dense_qp_matrices,
    ),
    Family("tv", "total variation denoising", "samples", 100, _total_variation, _total_variation_values),
    Family("mpc", "model predictive control, 6 states, 3 inputs", "steps", 10, _mpc, _mpc_values),
    Family(
        "transport",
        "transport with a quadratic cost, n × n",
        "places",
        8,
        _transport,
        _transport_values,
        projection=_transport_projection,
    ),
    Family("lasso", "sparse regression, as many observations", "features", 40, _lasso, _lasso_values),
    Family(
        "regression",
        "sparse regression on a given design, 25 features an observation",
        "features",
        500,
        _regression,
        _regression_values,
        batches=(1,),
    ),
    Family(
        "dense-parameter",
        "one dense n × n parameter in A x ≤ b",
        "variables",
        150,
        _dense_parameter,
        _dense_parameter_values,
        batches=(1,),
        matrices=_dense_parameter_matrices,
    ),
)
"""Families with a quadratic cost and linear constraints."""
