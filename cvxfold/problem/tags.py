"""Tags: parameters of our own in a problem, by which its canonical form tells where leaves and duals stand.

cvxpy keeps its leaves in its own order, by triangles, in real and imaginary parts, and its dual variables by
cones. Instead of knowing how, ask the form itself:

1. A leaf X that is wanted gets a constraint X = T with a tag T. The row of the canonical form in which an
   entry of T stands says how that entry of X is made of the form's variables and parameters.
2. A dual variable that is wanted gets a tag T added to its argument of the constraint. It is, by definition,
   what the optimal value owes to T: −(∂b/∂T)ᵀ y, with the sign that cvxpy's Lagrangian gives to the
   constraint's class.
3. Rows of the first kind and the columns of all tags are dropped again (:mod:`cvxfold.problem.location`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
from cvxpy.constraints.nonpos import Inequality, NonPos
from cvxpy.constraints.zero import Equality

_SUBTRACTED = (cp.Zero, Equality, Inequality, NonPos)
"""Constraints whose Lagrangian is f + ⟨dual, argument⟩; for the others it is f − ⟨dual, argument⟩."""


@dataclass(frozen=True)
class Tag:
    """What stands for a leaf's or an argument's entries.

    Args:
        shape: of what is tagged.
        real, imaginary: the parameters, of that shape; None where there is no such part.
        is_complex: whether what is tagged is, also where it has no entries.
        sign: of a dual variable beside the multipliers; 1 for leaves.
    """

    shape: tuple[int, ...]
    real: cp.Parameter | None
    imaginary: cp.Parameter | None
    is_complex: bool
    sign: float = 1.0

    @classmethod
    def of(cls, expression: Any, sign: float = 1.0) -> "Tag":
        """A tag for an expression; without entries, neither part is there."""
        shape, is_complex = tuple(expression.shape), bool(expression.is_complex())
        if expression.size == 0:
            return cls(shape, None, None, is_complex, sign)
        real = None if expression.is_imag() else cp.Parameter(shape)
        imaginary = cp.Parameter(shape) if is_complex else None
        return cls(shape, real, imaginary, is_complex, sign)

    @property
    def expression(self) -> Any:
        """The tag as an expression; None where there is nothing to tag."""
        if self.imaginary is None:
            return self.real
        return 1j * self.imaginary if self.real is None else self.real + 1j * self.imaginary


@dataclass(frozen=True)
class Argument:
    """An argument of a constraint, which a dual variable belongs to.

    Args:
        constraint: its id. position: of the argument.
    """

    constraint: int
    position: int


def argument_of(problem: cp.Problem, dual: cp.Variable) -> Argument | None:
    """The argument that a dual variable belongs to; None where it is no dual variable of the problem."""
    for constraint in problem.constraints:
        for position, own in enumerate(constraint.dual_variables):
            if own.id == dual.id:
                return Argument(constraint.id, position)
    return None


def tagged(
    problem: cp.Problem, leaves: Sequence[Any], arguments: Sequence[Argument]
) -> tuple[cp.Problem, list[Tag], list[Tag]]:
    """The problem with tags: steps 1 and 2 above.

    Args:
        problem: left as it is.
        leaves: variables and parameters of it.
        arguments: of its constraints.

    Returns:
        A problem of the same solutions where tags are zero, and the tags of leaves and arguments.
    """
    of_leaves = [Tag.of(leaf) for leaf in leaves]
    constraints = {constraint.id: constraint for constraint in problem.constraints}
    of_arguments = []
    for argument in arguments:
        constraint = constraints[argument.constraint]
        sign = 1.0 if isinstance(constraint, _SUBTRACTED) else -1.0
        tag = Tag.of(_tagged_part(constraint, argument.position), sign)
        of_arguments.append(tag)
        if tag.expression is not None:
            arguments_with_tag = list(constraint.args)
            arguments_with_tag[argument.position] = arguments_with_tag[argument.position] + tag.expression
            constraints[argument.constraint] = constraint.copy(arguments_with_tag)
    named = [
        leaf == tag.expression
        for leaf, tag in zip(leaves, of_leaves, strict=True)
        if tag.expression is not None
    ]
    return cp.Problem(problem.objective, [*constraints.values(), *named]), of_leaves, of_arguments


def _tagged_part(constraint: Any, position: int) -> Any:
    """What a dual variable is a multiplier of: lhs − rhs of equations and inequalities, else an argument."""
    two_sided = isinstance(constraint, Equality | Inequality)
    return constraint.expr if two_sided else constraint.args[position]
