"""What is wrong with the arguments of a layer's constructor, in words.

Messages keep cvxpylayers' first words, so that what matched on them still does.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import cvxpy as cp
from cvxpy.utilities import scopes

_LONGEST = 300  # characters of an expression that a message quotes
_DUAL_HINT = "a constraint's multipliers are asked for by its dual variable, constraint.dual_variables[0]"


def check_parts(problem: Any, parameters: Any, variables: Any) -> None:
    """Check what a layer is made of.

    Raises:
        TypeError: no problem, or something that is no parameter.
        ValueError: parameters that are not the problem's, once each; variables that are not the problem's
            or dual variables of its constraints; or a kind of either that is not supported.
    """
    if not isinstance(problem, cp.Problem):
        raise TypeError(f"problem: expected a cvxpy.Problem, got {type(problem).__name__}")
    for what, given in (("parameters", parameters), ("variables", variables)):
        if not isinstance(given, list | tuple):
            raise ValueError(
                f"The layer's {what} must be provided as a list or tuple, got {type(given).__name__}"
            )
    _check_parameters(problem, parameters)
    _check_variables(problem, variables)


def _check_parameters(problem: cp.Problem, parameters: Sequence[Any]) -> None:
    for number, parameter in enumerate(parameters):
        if not isinstance(parameter, cp.Parameter):
            raise TypeError(f"parameters[{number}]: expected a cvxpy.Parameter, got {_quoted(parameter)}")
        if isinstance(parameter, cp.CallbackParam):
            raise ValueError(
                f"parameter {number} ({parameter.name()}): a CallbackParam, whose value cvxpy computes, is "
                "not supported; use a Parameter, and compute its value with PyTorch, which differentiates it"
            )
        for attribute in ("diag", "sparsity"):
            if parameter.attributes[attribute]:
                raise ValueError(
                    f"parameter {number} ({parameter.name()}): the attribute {attribute} is not supported; "
                    "use a vector of its entries, and cp.diag or a constant matrix times it"
                )
        if any(parameter is other for other in parameters[:number]):
            raise ValueError(
                "The layer's parameters must exactly match problem.parameters: "
                f"{parameter.name()} is given twice"
            )
    own = problem.parameters()
    missing = [each for each in own if not _contains(parameters, each)]
    foreign = [each for each in parameters if not _contains(own, each)]
    if missing or foreign:
        parts = [f"missing: {_names(missing)}"] if missing else []
        parts += [f"not the problem's: {_names(foreign)}"] if foreign else []
        raise ValueError(f"The layer's parameters must exactly match problem.parameters; {'; '.join(parts)}")


def _check_variables(problem: cp.Problem, variables: Sequence[Any]) -> None:
    duals = [dual for constraint in problem.constraints for dual in constraint.dual_variables]
    for number, variable in enumerate(variables):
        if isinstance(variable, cp.Variable) and _contains([*problem.variables(), *duals], variable):
            continue
        hint = ""
        if isinstance(variable, cp.Constraint):
            hint = f"; {_DUAL_HINT}"
        elif isinstance(variable, cp.Expression) and not isinstance(variable, cp.Variable):
            hint = "; for an expression of variables add a variable and a constraint that they are equal"
        raise ValueError(
            f"Variable {_quoted(variable)} must be a subset of problem.variables or a constraint dual "
            f"variable, in variables[{number}]{hint}"
        )


def explained(error: Exception, problem: cp.Problem, gp: bool) -> Exception:
    """The error to raise where cvxpy or cvxpylayers refused a problem.

    Args:
        error: what they raised. problem: the user's.
        gp: whether it was to be a geometric program.
    """
    if isinstance(error, ValueError):
        return ValueError(f"{error}{_broken_rule(problem, gp)}") if _is_of_rules(error) else error
    said = f": {error}" if str(error) else ""
    return ValueError(
        f"problem: cvxpy {version('cvxpy')} could not canonicalize {_culprit(problem, error, gp)} "
        f"({type(error).__name__}{said})"
    )


def _is_of_rules(error: Exception) -> bool:
    return str(error).startswith("Problem must be DPP")


def _broken_rule(problem: cp.Problem, gp: bool) -> str:
    """What is wrong with a problem that is not DPP, as far as cvxpy's other rules tell."""
    if gp:
        return "" if problem.is_dgp() else " It is no geometric program by cvxpy's rules (DGP)."
    if problem.is_dcp():
        return (
            " It is convex by cvxpy's rules (DCP), but a parameter stands where it may not (DPP): in "
            f"{_offender(problem, dpp=True)}"
        )
    if problem.is_dgp():
        return " It is a geometric program: give gp=True (on the command line --gp)."
    return f" It is not convex by cvxpy's rules (DCP): {_offender(problem, dpp=False)}"


def _offender(problem: cp.Problem, dpp: bool) -> str:
    """The smallest part of a problem that breaks cvxpy's rules."""
    for part in (problem.objective, *problem.constraints):
        with ExitStack() as rules:
            if dpp:
                rules.enter_context(scopes.dpp_scope())
            if dpp and part is problem.objective:
                rules.enter_context(scopes.quad_form_dpp_scope())
            if not part.is_dcp():
                smallest = _smallest(part)
                within = "" if smallest is part else f", within {_quoted(part)}"
                return f"{_quoted(smallest)}{within}"
    return "the bounds of a variable"


def _smallest(part: Any) -> Any:
    """The smallest part of a part that is neither convex nor concave by the rules that are in force."""
    for argument in part.args:
        if not (argument.is_convex() or argument.is_concave()):
            return _smallest(argument)
    return part


def _culprit(problem: cp.Problem, error: Exception, gp: bool) -> str:
    """Which part of a problem cvxpy fails on in the same way where it stands alone."""
    nothing = cp.Minimize(cp.Constant(1.0))
    parts: list[tuple[str, Any, cp.Problem]]
    parts = [("the constraint", one, cp.Problem(nothing, [one])) for one in problem.constraints]
    parts.append(("the objective", problem.objective, cp.Problem(problem.objective)))
    for what, part, alone in parts:
        try:
            alone.get_problem_data(cp.SCS, gp=gp)
        except Exception as again:
            if type(again) is type(error):
                return f"{what} {_quoted(part)}"
    return "it"


def _contains(group: Iterable[Any], one: Any) -> bool:
    """By identity: ``==`` of cvxpy's expressions makes constraints."""
    return any(one is other for other in group)


def _names(group: Iterable[cp.Parameter]) -> str:
    return ", ".join(each.name() for each in group)


def _quoted(part: Any) -> str:
    text = str(part)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
