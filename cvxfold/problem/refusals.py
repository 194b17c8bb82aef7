"""What no layer is made of: bad arguments, problems without derivatives, what cvxpy gets wrong or fails on.

Messages keep cvxpylayers' first words, so that what matched on them still does.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import cvxpy as cp
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.constraints.finite_set import FiniteSet
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ConeMatrixStuffing
from cvxpy.utilities import scopes
from cvxpy.version import version

MIXED_INTEGER = "problem: is mixed-integer; its solution map has no derivative"
_SYMMETRIC = ("symmetric", "PSD", "NSD", "diag", "hermitian")
_LONGEST = 300  # characters of an expression that a message quotes
_DUAL_HINT = "a constraint's multipliers are asked for by its dual variable, constraint.dual_variables[0]"
_OF_FORMS = "Note: quad_form(x, P) with parametric P is only supported in the objective, not in constraints."
_MISREAD = (
    "problem: {what} is taken along axis {axis} of an expression of shape {shape}; cvxpy's canonical form of "
    "norms along an axis other than 0 is wrong with more than two dimensions: bring that axis to the front "
    "(cp.transpose), or write a norm for each matrix"
)


def check_parts(problem: Any, parameters: Any, variables: Any) -> None:
    """Check what a layer is made of.

    Raises:
        TypeError: no problem, or something that is no parameter.
        ValueError: parameters that are not the problem's, once each; or variables that are neither the
            problem's nor dual variables of its constraints.
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
        if isinstance(variable, cp.Constraint | list):
            hint = f"; {_DUAL_HINT}"
        elif variable is None:
            hint = f"; a value, such as constraint.dual_value, is no variable: {_DUAL_HINT}"
        elif isinstance(variable, cp.Expression) and not isinstance(variable, cp.Variable):
            hint = "; for an expression of variables add a variable and a constraint that they are equal"
        raise ValueError(
            f"Variable {_quoted(variable)} must be a subset of problem.variables or a constraint dual "
            f"variable, in variables[{number}]{hint}"
        )


def refuse(problem: cp.Problem, variables: Sequence[Any]) -> None:
    """Refuse what can be told from the problem itself.

    Args:
        problem: whose objective, constraints and leaves are looked at.
        variables: that are to be returned.

    Raises:
        ValueError: it is mixed-integer, or has leaves, norms or duals that are not supported; the message
            names them.
    """
    if problem.is_mixed_integer():
        raise ValueError("problem: has integer or boolean variables; its solution map has no derivative")
    for leaf in [*problem.variables(), *problem.parameters()]:
        for reason in _unsupported(leaf):
            kind = "variable" if isinstance(leaf, cp.Variable) else "parameter"
            raise ValueError(f"{kind} {leaf.name()}: {reason}")
    for expression in _nodes([problem.objective, *problem.constraints]):
        if isinstance(expression, FiniteSet):
            raise ValueError(
                f"problem: {expression.name()} makes it mixed-integer; its solution map has no derivative"
            )
        axis = getattr(expression, "axis", None)
        if isinstance(expression, cp.Pnorm | cp.SOC) and isinstance(axis, int):
            argument = expression.args[-1]
            if len(argument.shape) > 2 and axis % len(argument.shape):
                raise ValueError(_MISREAD.format(what=expression, axis=axis, shape=argument.shape))
    ids = {id(variable) for variable in variables}
    for constraint in problem.constraints:
        if isinstance(constraint, cp.OpRelEntrConeQuad) and any(
            id(dual) in ids for dual in constraint.dual_variables
        ):
            raise ValueError(
                "variables: duals of OpRelEntrConeQuad are not supported (cvxpy has none either)"
            )


def _unsupported(leaf: Any) -> Iterator[str]:
    has, shape = leaf.attributes, tuple(leaf.shape)
    is_parameter = isinstance(leaf, cp.Parameter)
    semidefinite = has["PSD"] or has["NSD"]
    if isinstance(leaf, cp.CallbackParam):
        yield (
            "a CallbackParam, whose value cvxpy computes, is not supported; use a Parameter, and compute its "
            "value with PyTorch, which differentiates it"
        )
    if is_parameter and has["sparsity"]:
        yield "sparse parameters are not supported; use a vector of their entries, and a constant matrix"
    if len(shape) > 2:
        for name in _SYMMETRIC:
            if has[name] and (is_parameter or name in ("diag", "hermitian") or leaf.is_complex()):
                yield (
                    f"declared {name} with shape {shape}: cvxpy supports that for single matrices only; use "
                    "one for each matrix of the stack"
                )
    if leaf.is_complex() and semidefinite:
        yield (
            "complex and semidefinite at once is not supported, as versions of cvxpy ignore one of them; "
            "declare it hermitian" + ("" if is_parameter else ", with a constraint X >> 0")
        )


def refuse_misread_cones(chain: Any, inverse: Sequence[Any]) -> None:
    """Refuse second-order cones along an axis other than 0 of a stack of matrices: cvxpy misorders them.

    It takes the transpose of the expression, whose first axis is the last one of the stack.

    Args:
        chain: cvxpy's reductions of a problem. inverse: what each of them has kept.

    Raises:
        ValueError: there are such cones.
    """
    for reduction, kept in zip(chain.reductions, inverse, strict=False):
        if not isinstance(reduction, ConeMatrixStuffing):
            continue
        for cone in kept.id2cons.values():
            if isinstance(cone, cp.SOC) and cone.axis != 0 and len(cone.args[1].shape) > 2:
                raise ValueError(_MISREAD.format(what="a norm", axis=cone.axis, shape=cone.args[1].shape))


def _nodes(roots: Sequence[Any]) -> Iterator[Any]:
    """All of some expression trees, what they share once, and of problems inside of them."""
    seen, front = set[int](), [*roots]
    while front:
        node = front.pop()
        if id(node) not in seen:
            seen.add(id(node))
            front.extend(node if isinstance(node, list) else node.args)
            yield node


def check_dpp(own: cp.Problem, problem: cp.Problem, *, gp: bool, quadratic: bool) -> None:
    """Check that a problem follows cvxpy's rules for parameters.

    Args:
        own: what is canonicalized. problem: the user's, which a message quotes.
        gp: whether it is a geometric program.
        quadratic: whether the objective may have a quadratic form with a parameter as its matrix.

    Raises:
        ValueError: it does not; the message says where.
    """
    is_dpp: Any = own.is_dpp
    if gp:
        text = "" if is_dpp("dgp") else "Problem must be DPP for geometric programming."
    elif quadratic:
        of_forms = f" {_OF_FORMS}" if QuadForm in problem.atoms() else ""
        text = "" if is_dpp(quad_form_dpp="qp") else f"Problem must be DPP.{of_forms}"
    else:
        text = "" if is_dpp() else "Problem must be DPP."
    if text:
        raise ValueError(f"{text}{_broken_rule(problem, gp)}")


def explained(error: Exception, problem: cp.Problem, gp: bool) -> ValueError:
    """The error to raise where cvxpy failed on a problem.

    Args:
        error: what it raised, of any type: it lets through what numpy, scipy and assertions raise.
        problem: the user's.
        gp: whether it was to be a geometric program.
    """
    said = f": {error}" if str(error) else ""
    return ValueError(
        f"problem: cvxpy {version} could not canonicalize {_culprit(problem, error, gp)} "
        f"({type(error).__name__}{said})"
    )


def _broken_rule(problem: cp.Problem, gp: bool) -> str:
    """What is wrong with a problem that is not DPP, as far as cvxpy's other rules tell."""
    misplaced = "but a parameter stands where it may not (DPP): in"
    if gp and problem.is_dgp():
        return (
            f" It is a geometric program by cvxpy's rules (DGP), {misplaced} {_offender(problem, True, gp)}"
        )
    if gp:
        return f" It is no geometric program by cvxpy's rules (DGP): {_offender(problem, False, gp)}"
    if problem.is_dcp():
        return f" It is convex by cvxpy's rules (DCP), {misplaced} {_offender(problem, True, gp)}"
    if problem.is_dgp():
        return " It is a geometric program: give gp=True."
    return f" It is not convex by cvxpy's rules (DCP): {_offender(problem, False, gp)}"


def _offender(problem: cp.Problem, dpp: bool, gp: bool) -> str:
    """The smallest part of a problem that breaks cvxpy's rules."""
    for part in (problem.objective, *problem.constraints):
        with ExitStack() as rules:
            if dpp:
                rules.enter_context(scopes.dpp_scope())
            if dpp and part is problem.objective and not gp:
                rules.enter_context(scopes.quad_form_dpp_scope())
            if not (part.is_dgp() if gp else part.is_dcp()):
                smallest = _smallest(part, gp)
                within = "" if smallest is part else f", within {_quoted(part)}"
                return f"{_quoted(smallest)}{within}"
    return "the bounds of a variable"


def _smallest(part: Any, gp: bool) -> Any:
    """The smallest part of a part that is neither convex nor concave (log-log, for gp) by the rules."""
    for argument in part.args:
        curved = (
            argument.is_log_log_convex() or argument.is_log_log_concave()
            if gp
            else argument.is_convex() or argument.is_concave()
        )
        if not curved:
            return _smallest(argument, gp)
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
