"""Optimality in the user's terms: cvxpy's Lagrangian at a layer's variables and duals, by numpy alone.

f + ⟨λ, lhs − rhs⟩ for equations and inequalities, f − ⟨λ, argument⟩ for cones, where f is minus the objective
of a maximization, and ⟨a, b⟩ is the real part of Σ conj(a) b. Nothing of cvxpy's canonical form, nor of its
recovery of duals, has a part in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpy.constraints.nonpos import Inequality
from cvxpy.constraints.zero import Equality

from cvxfold.torch import CvxpyLayer

Array = np.ndarray
STEP = 1e-5


class Optimum:
    """A layer's solution of a problem with all of its variables and dual variables.

    Args:
        problem: the problem. parameters: all of its parameters. values: of these.
        options: of the layer.
    """

    def __init__(
        self, problem: cp.Problem, parameters: Sequence[cp.Parameter], values: Sequence[Any], **options: Any
    ) -> None:
        self.problem, self.variables = problem, problem.variables()
        self.dual_variables = [
            dual for constraint in problem.constraints for dual in constraint.dual_variables
        ]
        layer = CvxpyLayer(
            problem, [*parameters], [*self.variables, *self.dual_variables], tol=1e-11, **options
        )
        found = layer(*[torch.as_tensor(value) for value in values])
        count = len(self.variables)
        self.x = [value.numpy() for value in found[:count]]
        self.duals: Mapping[int, Array] = {
            id(dual): value.numpy() for dual, value in zip(self.dual_variables, found[count:], strict=True)
        }
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = value

    def put(self, x: Sequence[Array]) -> None:
        """Values for the variables."""
        for variable, value in zip(self.variables, x, strict=True):
            variable.save_value(value)

    def lagrangian(self, x: Sequence[Array]) -> float:
        """At other values of the variables, and these duals."""
        self.put(x)
        objective: Any = self.problem.objective.value
        value = objective if isinstance(self.problem.objective, cp.Minimize) else -objective
        for constraint in self.problem.constraints:
            for dual, argument, sign in terms(constraint):
                value += sign * inner(self.duals[id(dual)], argument.value)
        return float(value)

    def slope(self, seed: int = 0, directions: int = 4) -> float:
        """The largest derivative of the Lagrangian along random directions, by central differences."""
        rng, largest = np.random.default_rng(seed), 0.0
        for _ in range(directions):
            way = [direction(variable, rng) for variable in self.variables]
            ahead, behind = (
                self.lagrangian([x + step * d for x, d in zip(self.x, way, strict=True)])
                for step in (STEP, -STEP)
            )
            largest = max(largest, abs(ahead - behind) / (2 * STEP))
        return largest

    def gap(self) -> float:
        """The largest |⟨λ, slack⟩| of a constraint."""
        self.put(self.x)
        return max(
            abs(sum(inner(self.duals[id(dual)], part.value) for dual, part, _ in terms(constraint)))
            for constraint in self.problem.constraints
        )


def terms(constraint: Any) -> list[tuple[cp.Variable, Any, float]]:
    """The dual variables of a constraint, what each is a multiplier of, and its sign in the Lagrangian."""
    if isinstance(constraint, Equality | Inequality):
        return [(constraint.dual_variables[0], constraint.expr, 1.0)]
    sign = 1.0 if isinstance(constraint, cp.Zero | cp.NonPos) else -1.0
    pairs = zip(constraint.dual_variables, constraint.args, strict=True)
    return [(dual, argument, sign) for dual, argument in pairs]


def inner(a: Array, b: Array) -> float:
    """Re Σ conj(a) b; the shapes must agree but for dimensions of size 1."""
    a, b = np.squeeze(np.asarray(a)), np.squeeze(np.asarray(b))
    assert a.shape == b.shape
    return float(np.vdot(a, b).real)


def direction(variable: cp.Variable, rng: np.random.Generator) -> Array:
    """A random change that keeps a variable's structure."""
    has, d = variable.attributes, rng.standard_normal(variable.shape)
    if variable.is_complex() and not has["imag"]:
        d = d + 1j * rng.standard_normal(variable.shape)
    if has["imag"]:
        d = 1j * d
    if has["hermitian"]:
        d = d + np.conj(np.swapaxes(d, -1, -2))
    if has["symmetric"]:
        d = d + np.swapaxes(d, -1, -2)
    if has["diag"]:
        d = d * np.eye(variable.shape[0])
    return np.asarray(d)


def solved_by_clarabel(problem: cp.Problem) -> float:
    """The optimal value by cvxpy and Clarabel at a tight tolerance; the parameters have values."""
    options = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
    value: Any = cp.Problem(problem.objective, problem.constraints).solve(cp.CLARABEL, **options)
    return float(value)
