"""Problems with a constraint of each of cvxpy's classes, active at their solutions."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from problems.lagrangian import Optimum, solved_by_clarabel

SHAPES = [(), (3,), (2, 3), (2, 2, 2)]
Given = tuple[cp.Problem, list[cp.Parameter], list[Any]]


def distance(expression: Any, parameter: Any) -> Any:
    """Σ |x − p|² of any shape."""
    return cp.sum_squares((expression - parameter).flatten(order="C"))


def near(shape: tuple[int, ...], middle: float, rng: np.random.Generator) -> Any:
    return np.asarray(middle + 0.3 * rng.standard_normal(shape))


def inequality(shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    x, p = cp.Variable(shape), cp.Parameter(shape)
    weights = near(shape, 1.0, rng)
    return (
        cp.Problem(cp.Minimize(distance(x, p)), [cp.multiply(weights, x) <= -1.0]),
        [p],
        [near(shape, 0, rng)],
    )


def convex_inequality(shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    """Of a maximization, whose duals are those of minus the objective."""
    x, p, bound = cp.Variable(shape), cp.Parameter(shape), cp.Parameter(shape, nonneg=True)
    problem = cp.Problem(cp.Maximize(-distance(x, p)), [cp.square(x) <= bound, x >= -9])
    return problem, [p, bound], [near(shape, 2.0, rng), np.abs(near(shape, 1.0, rng))]


def equality(shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    x, p = cp.Variable(shape), cp.Parameter(shape)
    weights = near(shape, 1.0, rng)
    return (
        cp.Problem(cp.Minimize(distance(x, p)), [cp.multiply(weights, x) == 1.0]),
        [p],
        [near(shape, 0, rng)],
    )


def sign_constraints(shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    x, y, z, p = cp.Variable(shape), cp.Variable(shape), cp.Variable(shape), cp.Parameter(shape)
    weights = near(shape, 1.0, rng)
    constraints = [
        cp.NonNeg(cp.multiply(weights, x) - 1),
        cp.NonPos(cp.multiply(weights, y) + 1),
        cp.Zero(cp.multiply(weights, z) - 2),
    ]
    objective = distance(x, p) + distance(y, p) + distance(z, p)
    return cp.Problem(cp.Minimize(objective), constraints), [p], [near(shape, 0, rng)]


def three(shape: tuple[int, ...], middles: tuple[float, float, float], rng: np.random.Generator) -> Any:
    variables = [cp.Variable(shape) for _ in range(3)]
    parameters = [cp.Parameter(shape) for _ in range(3)]
    objective = sum(distance(x, p) for x, p in zip(variables, parameters, strict=True))
    return cp.Minimize(objective), variables, parameters, [near(shape, middle, rng) for middle in middles]


def exponential(shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    objective, variables, parameters, values = three(shape, (1.0, 1.0, -1.0), rng)
    return cp.Problem(objective, [cp.ExpCone(*variables)]), parameters, values


def power(shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    objective, variables, parameters, values = three(shape, (-1.0, 1.0, 3.0), rng)
    alpha = rng.uniform(0.2, 0.8, shape) if shape else 0.3
    x, y, z = variables
    return cp.Problem(objective, [cp.PowCone3D(x, y, z, alpha)]), parameters, values


def relative_entropy(shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    objective, variables, parameters, values = three(shape, (1.0, 0.5, -1.0), rng)
    x, y, z = variables
    return cp.Problem(objective, [cp.RelEntrConeQuad(x, y, z, 3, 3)]), parameters, values


def cones_along(axis: int, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """X and t with a cone for each slice along an axis."""
    count = int(np.prod(shape)) // shape[axis]
    X, t = cp.Variable(shape), cp.Variable(() if len(shape) == 1 else (count,))
    P, r = cp.Parameter(shape), cp.Parameter(t.shape)
    return X, t, cp.Minimize(distance(X, P) + distance(t, r)), [P, r], [near(shape, 0.5, rng)]


def second_order(axis: int, shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    X, t, objective, parameters, values = cones_along(axis, shape, rng)
    return cp.Problem(objective, [cp.SOC(t, X, axis=axis)]), parameters, [*values, near(t.shape, -0.2, rng)]


def powers(axis: int, shape: tuple[int, ...], rng: np.random.Generator) -> Given:
    W, z, objective, parameters, values = cones_along(axis, shape, rng)
    alpha = rng.uniform(0.2, 1.0, shape)
    alpha /= alpha.sum(axis, keepdims=True)
    constraint = cp.PowConeND(W, z, alpha, axis=axis)
    return cp.Problem(objective, [constraint]), parameters, [*values, near(z.shape, 2.0, rng)]


def semidefinite(shape: tuple[int, ...], rng: np.random.Generator, **attributes: Any) -> Given:
    X, P = cp.Variable(shape, **attributes), cp.Parameter(shape)
    bound = near((shape[-1], shape[-1]), 0, rng)
    constraint = (X >> bound @ bound.T) if attributes else (X << 2 * np.eye(shape[-1]))
    return cp.Problem(cp.Minimize(distance(X, P)), [constraint]), [P], [2 * rng.standard_normal(shape)]


BY_SHAPE: list[Callable[[tuple[int, ...], np.random.Generator], Given]] = [
    inequality,
    convex_inequality,
    equality,
    sign_constraints,
    exponential,
    power,
]
BY_AXIS = [(0, (3,)), (0, (3, 2)), (1, (3, 2)), (0, (3, 2, 2))]
STACKS = [(3, 3), (2, 2, 2), (4, 2, 2), (2, 3, 3), (2, 2, 3, 3)]


def is_optimal(problem: cp.Problem, parameters: list[cp.Parameter], values: list[Any]) -> None:
    optimum = Optimum(problem, parameters, values)
    assert max(np.abs(dual).max() for dual in optimum.duals.values()) > 0.05  # something is active
    assert optimum.slope() < 1e-6
    assert optimum.gap() < 1e-7
    optimum.put(optimum.x)
    assert problem.objective.value == pytest.approx(
        solved_by_clarabel(problem), rel=1e-5, abs=1e-5
    )  # it ends early on some
