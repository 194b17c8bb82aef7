"""Parameters and variables without entries: cvxpy drops them, and a layer gives them back."""

from typing import Any

import cvxpy as cp
import numpy as np


def without_empty_parts(problem: cp.Problem) -> cp.Problem:
    """An equal problem in which constants stand for parameters and variables without entries.

    Args:
        problem: any. It is left as it was found.

    Returns:
        The problem, without constraints that have no entries; the others keep their dual variables.
    """
    leaves = [*problem.parameters(), *problem.variables()]
    kept = [constraint for constraint in problem.constraints if constraint.size]
    if all(leaf.size for leaf in leaves):
        return cp.Problem(problem.objective, kept)
    constraints = []
    for constraint in kept:
        copied = constraint.copy([_filled(argument) for argument in constraint.args])
        copied.dual_variables = constraint.dual_variables
        constraints.append(copied)
    return cp.Problem(problem.objective.copy([_filled(problem.objective.args[0])]), constraints)


def _filled(expression: Any) -> Any:
    if not expression.args:
        return expression if expression.size else cp.Constant(np.zeros(expression.shape))
    return expression.copy([_filled(argument) for argument in expression.args])
