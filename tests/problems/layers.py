"""All families by their names, and layers of them: cvxfold's and cvxpylayers' own."""

from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest.mock import patch

import cvxpy as cp
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

from cvxfold.layer import base
from cvxfold.problem.canonical import canonicalize
from cvxfold.problem.structure import Canonical
from cvxfold.torch import CvxpyLayer
from problems.cone_families import CONE_FAMILIES
from problems.families import FAMILIES, Family

ALL = FAMILIES | CONE_FAMILIES
VARIED = [  # families of each kind, small enough to be tried in many ways
    "dense_qp20",
    "portfolio",
    "mpc",
    "robust_portfolio",
    "many_cones",
    "nearest_correlation",
    "semidefinite_program",
    "multi_label",
    "log_sum_exp",
    "logistic",
    "powers",
    "total_variation",
    "least_absolute",
    "quadratic_form",
]
QUICK = [  # of these, the ones that the default run tries in every way
    "dense_qp20",
    "portfolio",
    "robust_portfolio",
    "nearest_correlation",
    "multi_label",
    "total_variation",
    "least_absolute",
]
IN_PLUGINS = ["dense_qp5_duals", "portfolio_mu", "mpc_absolute", "many_cones_duals", "scalars"]


@cache
def family_of(name: str) -> Family:
    """The one of that name, made once a session."""
    return ALL[name]()


_canonical_forms: dict[tuple[Any, ...], tuple[Canonical, Any]] = {}


def _form_of(
    problem: cp.Problem, parameters: Sequence[cp.Parameter], variables: Sequence[cp.Variable], **how: Any
) -> Canonical:
    """What cvxpy makes of a problem takes longer than most tests of layers, and nobody writes to it."""
    objects = problem, *parameters, *variables
    key = tuple(map(id, objects)), len(parameters), tuple(sorted(how.items()))
    if key not in _canonical_forms:  # whose objects live on, so that no other has the id of one
        _canonical_forms[key] = canonicalize(problem, parameters, variables, **how), objects
    return _canonical_forms[key][0]


def canonicalized_once() -> Any:
    """While layers are made whose canonical forms those of the same problem share."""
    return patch.object(base, "canonicalize", _form_of)


def layer_of(family: Family, **options: Any) -> Any:
    """A cvxfold layer (Any, since its report may be None and tests look into it).

    All is its own but for the canonical form, which layers of the same problem share.
    """
    with canonicalized_once():
        return CvxpyLayer(family.problem, family.parameters, family.variables, **options)


def quiet_layer_of(family: Family, **options: Any) -> Any:
    """The same, without warnings about what is not converged."""
    return layer_of(family, on_unconverged="ignore", **options)


def upstream_of(family: Family, solver: Any = None) -> UpstreamLayer:
    """The layer of cvxpylayers, with its own solver unless another is given."""
    return UpstreamLayer(family.problem, family.parameters, family.variables, solver=solver)
