"""Comparisons that several tests look at, on families of problems."""

from functools import cache
from typing import Any

import cvxfold
from problems.families import Family
from problems.layers import family_of

OFF = ("dense_qp20", "robust_portfolio", "nearest_correlation", "portfolio")  # where cvxpylayers is off
BEST = "cvxpylayers tight, dense"


@cache
def compared(name: str) -> cvxfold.Comparison:
    """All contestants on 4 instances of a family, with finite differences."""
    family = family_of(name)
    values = family.sample(4, 0)
    return cvxfold.compare(family.problem, family.parameters, family.variables, values, finite_differences=3)


def quick(family: Family, values: Any, **options: Any) -> cvxfold.Comparison:
    """cvxfold's default method and cvxpylayers at its best."""
    options = {"methods": ("auto",), "upstream": ("tight, dense",)} | options
    return cvxfold.compare(family.problem, family.parameters, family.variables, values, **options)
