"""What is refused by name: problems whose solutions have no derivative, and what cvxpy gets wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp
from cvxpy.constraints.finite_set import FiniteSet
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ConeMatrixStuffing

MIXED_INTEGER = "problem: is mixed-integer; its solution map has no derivative"
_SYMMETRIC = ("symmetric", "PSD", "NSD", "diag", "hermitian")


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
    if is_parameter and has["sparsity"]:
        yield "sparse parameters are not supported; use a vector of their entries"
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


_MISREAD = (
    "problem: {what} is taken along axis {axis} of an expression of shape {shape}; cvxpy's canonical form of "
    "norms along an axis other than 0 is wrong with more than two dimensions: bring that axis to the front "
    "(cp.transpose), or write a norm for each matrix"
)
