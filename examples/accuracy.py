"""How accurate are solutions and gradients? cvxpylayers and cvxfold against an independent reference.

Run from the repository's root: ``python examples/accuracy.py``. The reference (Clarabel, a Newton finish and
a dense adjoint, all in numpy) and the problem families are those of the test suite.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as Upstream
from rich.console import Console
from rich.table import Table

from cvxfold.torch import CvxpyLayer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from problems.cases import case, errors, evaluate  # pyright: ignore[reportMissingImports]

FAMILIES = {
    "dense_qp20": "dense QP, all data varying, 20 variables",
    "dense_qp50": "the same, 50 variables",
    "portfolio": "Markowitz portfolio",
    "mpc": "box-constrained MPC",
    "robust_portfolio": "robust portfolio (second-order cone)",
    "ball_least_squares": "least squares in balls (second-order cones)",
    "many_cones": "many second-order cones",
    "least_absolute": "least absolute deviations (linear program)",
    "total_variation": "total variation denoising",
    "nearest_correlation": "nearest correlation matrix (semidefinite cone)",
    "maximum_eigenvalue": "smallest maximum eigenvalue (semidefinite cone)",
    "multi_label": "limited multi-label projection (exponential cones)",
    "log_sum_exp": "log-sum-exp (exponential cones)",
    "logistic": "logistic regression (exponential cones)",
    "powers": "power cones, an exponent each",
    "geometric_mean": "geometric mean (second-order cones)",
    "mixture": "all cones in one problem",
}
LAYERS: dict[str, Callable[..., Any]] = {
    "cvxpylayers": Upstream,
    "cvxpylayers, eps=1e-10": lambda *args: Upstream(*args, solver_args={"eps": 1e-10}),
    "cvxfold": CvxpyLayer,
}


def main(batch: int = 8) -> None:
    """Print the largest relative error over a batch, of solutions and of gradients."""
    table = Table(title=f"largest relative error over {batch} instances: solution / gradient")
    table.add_column("problem")
    for name in LAYERS:
        table.add_column(name, justify="right")
    for family, description in FAMILIES.items():
        truth = case(family, batch)
        table.add_row(description, *(cell(make, truth) for make in LAYERS.values()))
    Console(width=140).print(table)


def cell(make: Callable[..., Any], truth: Any) -> str:
    """The largest errors of one layer on one family."""
    family = truth.family
    try:
        layer = make(family.problem, family.parameters, family.variables)
        values, gradients = evaluate(layer, truth)
    except ValueError:  # diffcp does not differentiate power cones
        return "fails"
    solution = float(errors(values, truth.values).amax())
    gradient = float(errors(gradients, truth.gradients).amax())
    return f"{solution:.0e} / {gradient:.0e}"


if __name__ == "__main__":
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Converting A to a CSC.*")
        main()
