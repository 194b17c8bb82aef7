"""Folded iterations whose reports type checkers let pass."""

from typing import Any

import cvxfold


def make_folded(update: Any, solver: Any = None, **options: Any) -> Any:
    return cvxfold.fold(update, solver, **options)
