"""Quadratic forms of expressions with parameters, written as forms of variables.

With a quadratic objective cvxpy counts quad_form(e, P) as DPP only where no parameter stands in e: P may
hold one too. With a new variable t and the equation t = e it is quad_form(t, P): the same value, DPP for
whatever P, and what cvxpy's own canonicalization makes of it a step later.
"""

from typing import Any

import cvxpy as cp
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.utilities import scopes


def with_forms_of_variables(problem: cp.Problem) -> cp.Problem:
    """An equal problem around the same parameters, variables and dual variables.

    Args:
        problem: any. It is left as it was found.

    Returns:
        The problem in which no affine e of a quad_form(e, P) holds a parameter: variables stand there, set
        equal to e by constraints after the problem's own.
    """
    equations: list[Any] = []
    objective, constraints = problem.objective, []
    if _has_forms(objective.args[0]):
        objective = objective.copy([_rewritten(objective.args[0], equations)])
    for constraint in problem.constraints:
        if any(_has_forms(argument) for argument in constraint.args):
            copied = constraint.copy([_rewritten(argument, equations) for argument in constraint.args])
            copied.dual_variables = constraint.dual_variables
            constraints.append(copied)
        else:
            constraints.append(constraint)
    return cp.Problem(objective, [*constraints, *equations])


def _has_forms(expression: Any) -> bool:
    """Whether it contains a quadratic form of something with parameters."""
    if isinstance(expression, QuadForm) and expression.args[0].parameters():
        return True
    return any(_has_forms(argument) for argument in expression.args)


def _rewritten(expression: Any, equations: list[Any]) -> Any:
    """The expression with forms of variables; the equations that define them are appended."""
    if not _has_forms(expression):
        return expression
    if isinstance(expression, QuadForm):
        argument, matrix = expression.args
        if not argument.is_affine():
            return expression
        variable = cp.Variable(argument.shape)
        equations.append(variable == argument)
        return expression.copy([variable, matrix])
    return expression.copy([_rewritten(argument, equations) for argument in expression.args])


def allows_quadratic_objective(problem: cp.Problem) -> bool:
    """Whether cvxpy can canonicalize it for a solver that takes a quadratic objective.

    cvxpy asks for DPP in the objective alone and trips over constraints later, and over forms of what is not
    affine, such as quad_form(abs(x), P) with P ≥ 0.
    """
    if any(_has_curved_forms(part) for part in (problem.objective, *problem.constraints)):
        return False
    with scopes.quad_form_dpp_scope():
        constraints = all(constraint.is_dcp(dpp=True) for constraint in problem.constraints)
    is_dpp: Any = problem.is_dpp
    return constraints and is_dpp(quad_form_dpp="qp")


def _has_curved_forms(expression: Any) -> bool:
    if isinstance(expression, QuadForm) and not expression.args[0].is_affine():
        return True
    return any(_has_curved_forms(argument) for argument in expression.args)
