"""Folding: ``cvxfold.fold(update, …)`` folds any iteration, and this package holds what goes with it.

``cvxfold.fold`` is a function and a package at once: a module may have a class of its own, and that of this
one can be called (see "Customizing module attribute access" in Python's reference). So all of these work, in
whatever order modules are imported:

    cvxfold.fold(update, solver)                 backward=cvxfold.fold.GMRES(restart=50)
    from cvxfold.fold import GMRES, fold         from cvxfold.fold.updates import ProjectedGradient
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Unpack

from cvxfold.fold import projections
from cvxfold.fold.function import Folded, fold
from cvxfold.fold.options import FoldOptions
from cvxfold.methods import (
    GMRES,
    LFPI,
    METHODS,
    AdjointMethod,
    AdjointSettings,
    AdjointSolution,
    Anderson,
    Auto,
    BiCGSTAB,
    Direct,
    JacobianFree,
    LeastSquares,
    Linearization,
    Unrolled,
    solve_adjoint,
)

__all__ = [
    "GMRES",
    "LFPI",
    "METHODS",
    "AdjointMethod",
    "AdjointSettings",
    "AdjointSolution",
    "Anderson",
    "Auto",
    "BiCGSTAB",
    "Direct",
    "FoldOptions",
    "Folded",
    "JacobianFree",
    "LeastSquares",
    "Linearization",
    "Unrolled",
    "fold",
    "projections",
    "solve_adjoint",
]


class _CallablePackage(ModuleType):
    """This package, which is the function :func:`cvxfold.fold.function.fold` as well."""

    def __call__(
        self,
        update: Callable[..., Any],
        solver: Callable[..., Any] | None = None,
        **options: Unpack[FoldOptions],
    ) -> Folded:
        return fold(update, solver, **options)


sys.modules[__name__].__class__ = _CallablePackage
