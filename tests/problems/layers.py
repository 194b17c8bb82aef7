"""All families by their names, and layers of them: cvxfold's and cvxpylayers' own."""

from typing import Any

from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

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


def family_of(name: str) -> Family:
    return ALL[name]()


def layer_of(family: Family, **options: Any) -> Any:
    """A cvxfold layer (Any, since its report may be None and tests look into it)."""
    return CvxpyLayer(family.problem, family.parameters, family.variables, **options)


def quiet_layer_of(family: Family, **options: Any) -> Any:
    """The same, without warnings about what is not converged."""
    return layer_of(family, on_unconverged="ignore", **options)


def upstream_of(family: Family, solver: Any = None) -> UpstreamLayer:
    """The layer of cvxpylayers, with its own solver unless another is given."""
    return UpstreamLayer(family.problem, family.parameters, family.variables, solver=solver)
