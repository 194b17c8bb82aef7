"""Problem families over the semidefinite, exponential and power cones, like those of ``families.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.random import Generator

from problems.families import Family, Instance, minimize, stacked


def symmetric(rng: Generator, n: int) -> np.ndarray:
    """A random symmetric matrix."""
    root = rng.standard_normal((n, n))
    return (root + root.T) / 2


def multi_label(n: int = 10, k: int = 3, duals: bool = False) -> Family:
    """Limited multi-label projection: −zᵀy − H(y) − H(1 − y), 1ᵀy = k, an entropy over a capped simplex."""
    y, z = cp.Variable(n), cp.Parameter(n)
    total: Any = cp.sum(y) == k
    problem = minimize(-z @ y - cp.sum(cp.entr(y)) - cp.sum(cp.entr(1 - y)), total)
    variables = [y, *total.dual_variables] if duals else [y]
    return Family("multi_label", problem, [z], variables, stacked(lambda rng: (rng.standard_normal(n),)))


def log_sum_exp(m: int = 8, n: int = 4) -> Family:
    """Log Σ exp(Ax − b) + 0.1‖x‖²."""
    x, A, b = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m)
    problem = minimize(cp.log_sum_exp(A @ x - b) + 0.1 * cp.sum_squares(x))
    sample = stacked(lambda rng: (rng.standard_normal((m, n)), rng.standard_normal(m)))
    return Family("log_sum_exp", problem, [A, b], [x], sample)


def logistic(m: int = 15, n: int = 4, sparse: bool = False) -> Family:
    """Logistic regression on rows that carry their labels, with a ridge or with ‖x‖₁."""
    x, rows, weight = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(nonneg=True)
    penalty = cp.norm1(x) if sparse else cp.sum_squares(x)
    problem = minimize(cp.sum(cp.logistic(rows @ x)) + weight * penalty)
    sample = stacked(lambda rng: (rng.standard_normal((m, n)) - 0.3, rng.uniform(0.2, 1.0)))
    return Family("logistic", problem, [rows, weight], [x], sample)


def relative_entropy(n: int = 6) -> Family:
    """Σ KL(xᵢ, pᵢ) on the simplex with one inequality."""
    x, p, a = cp.Variable(n), cp.Parameter(n, pos=True), cp.Parameter(n)
    problem = minimize(cp.sum(cp.kl_div(x, p)), cp.sum(x) == 1, a @ x >= 0.5)

    def draw(rng: Generator) -> Instance:
        return rng.uniform(0.1, 1.0, n), 1 + rng.standard_normal(n)

    return Family("relative_entropy", problem, [p, a], [x], stacked(draw))


def nearest_correlation(n: int = 6, duals: bool = False) -> Family:
    """‖X − C‖² over the correlation matrices."""
    X, C = cp.Variable((n, n), symmetric=True), cp.Parameter((n, n))
    definite: Any = X >> 0
    unit: Any = cp.diag(X) == 1
    problem = minimize(cp.sum_squares(X - C), definite, unit)
    variables = [X, *definite.dual_variables, *unit.dual_variables] if duals else [X]
    return Family("nearest_correlation", problem, [C], variables, stacked(lambda rng: (symmetric(rng, n),)))


def maximum_eigenvalue(n: int = 6, k: int = 3) -> Family:
    """λ_max(A₀ + Σ xᵢAᵢ) + 0.05‖x‖²: at the optimum the largest eigenvalue is often multiple."""
    rng = np.random.default_rng(2)
    A = [symmetric(rng, n) for _ in range(k)]
    x, A0 = cp.Variable(k), cp.Parameter((n, n), symmetric=True)
    matrix = A0 + sum(x[i] * A[i] for i in range(k))
    problem = minimize(cp.lambda_max(matrix) + 0.05 * cp.sum_squares(x))
    return Family("maximum_eigenvalue", problem, [A0], [x], stacked(lambda rng: (symmetric(rng, n),)))


def semidefinite_program(n: int = 5, k: int = 9, duals: bool = False) -> Family:
    """⟨C, X⟩ with ⟨Aᵢ, X⟩ = bᵢ, X ⪰ 0, built around a strictly complementary, nondegenerate pair.

    With X of rank 3 and S of rank 2 it is unique where 3 ≤ k ≤ n(n + 1)/2 − 3 hold and the Aᵢ are generic.
    """
    fixed = np.random.default_rng(3)
    A = [symmetric(fixed, n) for _ in range(k)]
    X = cp.Variable((n, n), symmetric=True)
    C, b = cp.Parameter((n, n)), cp.Parameter(k)
    definite: Any = X >> 0
    rows: list[Any] = [cp.trace(A[i] @ X) == b[i] for i in range(k)]
    problem = minimize(cp.trace(C @ X), definite, *rows)

    def draw(rng: Generator) -> Instance:
        Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
        X0 = Q[:, :3] @ np.diag(rng.uniform(0.5, 2, 3)) @ Q[:, :3].T
        S0 = Q[:, 3:] @ np.diag(rng.uniform(0.5, 2, n - 3)) @ Q[:, 3:].T
        y = rng.standard_normal(k)
        return S0 + sum(v * M for v, M in zip(y, A, strict=True)), np.array([np.sum(M * X0) for M in A])

    variables = [X, *definite.dual_variables] if duals else [X]
    return Family("semidefinite_program", problem, [C, b], variables, stacked(draw))


def nuclear_norm(n: int = 4) -> Family:
    """½‖X − M‖² + 0.7‖X‖_*: singular values are thresholded."""
    X, M = cp.Variable((n, n)), cp.Parameter((n, n))
    problem = minimize(0.5 * cp.sum_squares(X - M) + 0.7 * cp.normNuc(X))
    return Family("nuclear_norm", problem, [M], [X], stacked(lambda rng: (rng.standard_normal((n, n)),)))


def log_determinant(n: int = 4) -> Family:
    """−log det X + ⟨S, X⟩ + 0.1‖X‖² over X ⪰ 0: semidefinite and exponential cones together."""
    X, S = cp.Variable((n, n), PSD=True), cp.Parameter((n, n))
    problem = minimize(-cp.log_det(X) + cp.trace(S @ X) + 0.1 * cp.sum_squares(X))

    def draw(rng: Generator) -> Instance:
        root = rng.standard_normal((n, 2 * n))
        return (root @ root.T / (2 * n),)

    return Family("log_determinant", problem, [S], [X], stacked(draw))


def powers(n: int = 5, duals: bool = False) -> Family:
    """‖x − a‖² + ‖y − b‖² − 1ᵀz with |z| ≤ x^α y^(1−α), an α for each entry."""
    x, y, z = cp.Variable(n), cp.Variable(n), cp.Variable(n)
    a, b = cp.Parameter(n), cp.Parameter(n)
    cone = cp.PowCone3D(x, y, z, np.linspace(0.15, 0.85, n))
    problem = minimize(cp.sum_squares(x - a) + cp.sum_squares(y - b) - cp.sum(z), cone)
    variables = [x, y, z, *cone.dual_variables] if duals else [x, y, z]
    sample = stacked(lambda rng: (rng.standard_normal(n), rng.standard_normal(n)))
    return Family("powers", problem, [a, b], variables, sample)


def power_loss(n: int = 4) -> Family:
    """Σ |xᵢ − aᵢ|^1.7 + ‖x‖² with power cones."""
    x, a = cp.Variable(n), cp.Parameter(n)
    problem = minimize(cp.sum(cp.power(cp.abs(x - a), 1.7, approx=False)) + cp.sum_squares(x))
    return Family("power_loss", problem, [a], [x], stacked(lambda rng: (2 * rng.standard_normal(n),)))


def geometric_mean(n: int = 5) -> Family:
    """The largest geometric mean of x with cᵀx ≤ 1 and x ≤ 0.3."""
    x, c = cp.Variable(n), cp.Parameter(n, pos=True)
    problem = cp.Problem(cp.Maximize(cp.geo_mean(x)), [c @ x <= 1, x <= 0.3])
    return Family("geometric_mean", problem, [c], [x], stacked(lambda rng: (rng.uniform(0.5, 2.0, n),)))


def quadratic_form(n: int = 5) -> Family:
    """xᵀPx + qᵀx over the simplex, shifted, with a positive semidefinite parameter P."""
    x, P, q = cp.Variable(n), cp.Parameter((n, n), PSD=True), cp.Parameter(n)
    problem = minimize(cp.quad_form(x, P) + q @ x, cp.sum(x) == 1, x >= -0.2)

    def draw(rng: Generator) -> Instance:
        root = rng.standard_normal((n, n + 2))
        return root @ root.T / n, rng.standard_normal(n)

    return Family("quadratic_form", problem, [P, q], [x], stacked(draw))


def mixture(n: int = 3, duals: bool = False) -> Family:
    """All cones in one problem, coupled by a quadratic objective and a linear row."""
    X, x, t = cp.Variable((n, n), symmetric=True), cp.Variable(n), cp.Variable(n)
    C, q = cp.Parameter((n, n)), cp.Parameter(n)
    constraints: list[Any] = [
        X >> 0,
        cp.norm(x - q) <= 0.8,
        cp.sum(x) + cp.trace(X) == 1,
        x >= -1,
        cp.PowCone3D(t, x + 2, 0.5 * x + 1.2, np.linspace(0.3, 0.7, n)),
    ]
    cost = cp.sum_squares(X - C) + cp.sum(cp.exp(x)) + cp.sum_squares(t) + q @ cp.diag(X)
    problem = minimize(cost, *constraints)

    def draw(rng: Generator) -> Instance:
        return symmetric(rng, n), 0.5 * rng.standard_normal(n)

    multipliers = [v for constraint in constraints for v in constraint.dual_variables]
    return Family("mixture", problem, [C, q], [X, x, t, *(multipliers if duals else [])], stacked(draw))


CONE_FAMILIES: dict[str, Callable[[], Family]] = {
    "multi_label": multi_label,
    "multi_label_duals": lambda: multi_label(duals=True),
    "log_sum_exp": log_sum_exp,
    "logistic": logistic,
    "logistic_sparse": lambda: logistic(sparse=True),
    "relative_entropy": relative_entropy,
    "nearest_correlation": nearest_correlation,
    "nearest_correlation_duals": lambda: nearest_correlation(duals=True),
    "maximum_eigenvalue": maximum_eigenvalue,
    "semidefinite_program": semidefinite_program,
    "semidefinite_program_duals": lambda: semidefinite_program(duals=True),
    "nuclear_norm": nuclear_norm,
    "log_determinant": log_determinant,
    "powers": powers,
    "powers_duals": lambda: powers(duals=True),
    "power_loss": power_loss,
    "geometric_mean": geometric_mean,
    "quadratic_form": quadratic_form,
    "mixture": mixture,
    "mixture_duals": lambda: mixture(duals=True),
}
