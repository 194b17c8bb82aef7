"""What is imported of cvxpylayers' and cvxpy's internals is where it was, and means what it meant.

A failure here says that a version has moved them: change the bounds in pyproject.toml, or follow.
"""

import dataclasses
import importlib
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from cvxpylayers.interfaces.base import SolverInterface
from cvxpylayers.utils.parse_args import LayersContext, VariableRecovery, parse_args

ROOT = Path(__file__).parents[2]
MOVED = "cvxpylayers' internals have moved; see this test's module"


class Canonicalizer(SolverInterface):
    canon_solver = "SCS"
    supports_quad_obj = True

    def solve_torch_batch(self, *_: Any, **__: Any) -> Any:
        raise AssertionError

    derivative_torch_batch = solve_torch_batch


def context() -> LayersContext:
    """½‖x − b‖² + S x with x ≥ 0 and S symmetric: P, q, A and b all have entries."""
    x, b = cp.Variable(2), cp.Parameter(2)
    X, S = cp.Variable((2, 2), symmetric=True), cp.Parameter((2, 2), symmetric=True)
    below: Any = x >= b
    cost = cp.sum_squares(x) + cp.trace(S @ X)
    problem = cp.Problem(cp.Minimize(cost), [below, X >> np.eye(2)])
    return parse_args(
        problem, [x, X, below.dual_variables[0]], [b, S], None,
        gp=False, verbose=False, canon_backend=None, custom_solver=Canonicalizer(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("cvxpylayers.interfaces.base", "SolverInterface"),
        ("cvxpylayers.utils.parse_args", "parse_args"),
        ("cvxpylayers.utils.parse_args", "LayersContext"),
        ("cvxpylayers.utils.parse_args", "VariableRecovery"),
        ("cvxpylayers.torch.cvxpylayer", "CvxpyLayer"),
        ("cvxpylayers.torch.cvxpylayer", "scipy_csr_to_torch_csr"),
        ("cvxpy.atoms.quad_form", "QuadForm"),
        ("cvxpy.utilities.scopes", "dpp_scope"),
        ("cvxpy.utilities.scopes", "quad_form_dpp_scope"),
    ],
)
def test_names_are_there(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), MOVED


def test_arguments_and_fields() -> None:
    wanted = ["problem", "variables", "parameters", "solver"]
    taken = inspect.signature(parse_args).parameters
    assert list(taken)[:4] == wanted, MOVED
    assert {"gp", "verbose", "canon_backend", "custom_solver"} <= set(taken), MOVED
    fields = {field.name for field in dataclasses.fields(LayersContext)}
    assert {
        "parameters", "reduced_P", "q", "reduced_A", "cone_dims", "var_recover", "user_order_to_col_order",
        "gp_log_mask", "param_triu_indices", "problem", "solver_ctx",
    } <= fields, MOVED  # fmt: skip
    fields = {field.name for field in dataclasses.fields(VariableRecovery)}
    assert {"source", "primal", "dual", "shape", "unpack_fn"} <= fields, MOVED


def test_what_they_mean() -> None:
    """Shapes, orders and scales of the maps, on a problem small enough to write its entries down."""
    found: Any = context()
    primal, matrix, dual = found.var_recover
    assert (primal.source, primal.unpack_fn) == ("primal", "reshape"), MOVED
    assert (matrix.source, matrix.unpack_fn) == ("primal", "svec_primal"), MOVED
    assert (dual.source, dual.unpack_fn) == ("dual", "reshape"), MOVED
    assert found.cone_dims.nonneg == 2, MOVED
    assert list(found.cone_dims.psd) == [2], MOVED
    rows, columns = found.param_triu_indices[1]
    assert (tuple(rows), tuple(columns)) == ((0, 0, 1), (0, 1, 1)), MOVED
    # One column for each parameter entry and a last one for the constant; b fills the right-hand sides.
    width = 2 + 3 + 1
    assert found.q.shape[1] == width, MOVED
    reduced: Any = sp.csr_array(found.reduced_A.reduced_mat)
    assert reduced.shape[1] == width, MOVED
    _, _, (m, n_and_one) = found.reduced_A.problem_data_index
    assert (m, n_and_one) == (5, found.q.shape[0]), MOVED
    column = int(np.argsort(found.user_order_to_col_order)[0])
    first = 0 if column == 0 else 3
    of_b = reduced[:, first : first + 2].toarray()
    assert sorted(np.abs(of_b[of_b != 0])) == [1.0, 1.0], MOVED
    P = sp.csr_array(found.reduced_P.reduced_mat)
    assert sorted(P[:, [-1]].toarray().ravel()) == [2.0, 2.0], MOVED


def test_versions_are_bounded_and_those_installed_are_inside() -> None:
    """The upper bound stands because of what this module tests."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (bound,) = [one for one in needed if one.startswith("cvxpylayers")]
    assert "<" in bound
    most = tuple(int(part) for part in bound.partition("<")[2].split("."))
    assert tuple(int(part) for part in version("cvxpylayers").split(".")[: len(most)]) < most
