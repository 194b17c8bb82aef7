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
from cvxpy import settings
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ConeMatrixStuffing
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpylayers.interfaces.base import SolverInterface
from cvxpylayers.utils.parse_args import LayersContext, parse_args

ROOT = Path(__file__).parents[2]
MOVED = "internals have moved; see this test's module"


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
        ("cvxpylayers.torch.cvxpylayer", "CvxpyLayer"),
        ("cvxpylayers.torch.cvxpylayer", "scipy_csr_to_torch_csr"),
        ("cvxpy.atoms.quad_form", "QuadForm"),
        ("cvxpy.utilities.scopes", "dpp_scope"),
        ("cvxpy.utilities.scopes", "quad_form_dpp_scope"),
        ("cvxpy.version", "version"),
        ("cvxpy.settings", "PARAM_PROB"),
        ("cvxpy.constraints.zero", "Equality"),
        ("cvxpy.constraints.nonpos", "Inequality"),
        ("cvxpy.constraints.finite_set", "FiniteSet"),
        ("cvxpy.reductions.dgp2dcp.dgp2dcp", "Dgp2Dcp"),
        ("cvxpy.reductions.dcp2cone.cone_matrix_stuffing", "ConeMatrixStuffing"),
        ("cvxpy.reductions.solvers.conic_solvers.scs_conif", "SCS"),
        ("cvxpy.reductions.solvers.conic_solvers.diffcp_conif", "DIFFCP"),
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
    assert {"reduced_P", "q", "reduced_A", "cone_dims", "problem", "solver_ctx"} <= fields, MOVED


def test_what_they_mean() -> None:
    """Shapes, orders and scales of the maps, on a problem small enough to write its entries down."""
    found: Any = context()
    assert found.cone_dims.nonneg == 2, MOVED
    assert list(found.cone_dims.psd) == [2], MOVED
    # One column for each parameter entry and a last one for the constant; b fills the right-hand sides.
    width = 2 + 3 + 1
    assert found.q.shape[1] == width, MOVED
    reduced: Any = sp.csr_array(found.reduced_A.reduced_mat)
    assert reduced.shape[1] == width, MOVED
    assert found.reduced_A.problem_data_index is not None, MOVED
    _, _, (m, n_and_one) = found.reduced_A.problem_data_index
    assert (m, n_and_one) == (5, found.q.shape[0]), MOVED
    of_b = [reduced[:, first : first + 2].toarray() for first in (0, 3)]  # whichever stands first
    assert [1.0, 1.0] in [sorted(np.abs(each[each != 0])) for each in of_b], MOVED
    P = sp.csr_array(found.reduced_P.reduced_mat)
    assert sorted(P[:, [-1]].toarray().ravel()) == [2.0, 2.0], MOVED


def test_what_cvxpy_keeps_of_a_canonical_form() -> None:
    """Where each parameter stands, the maps, the cones, and the reductions beside what they keep."""
    x, b = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + cp.norm(x - b)), [x >= b])
    found: Any = problem.get_problem_data(cp.SCS)
    data, chain, inverse = found
    program = data[settings.PARAM_PROB]
    assert program.param_id_to_col[b.id] == 0, MOVED
    assert program.q.shape[1] == program.reduced_A.reduced_mat.shape[1] == b.size + 1, MOVED
    assert program.reduced_P.problem_data_index is not None, MOVED
    assert (program.cone_dims.nonneg, list(program.cone_dims.soc)) == (2, [3]), MOVED
    assert not program.is_mixed_integer(), MOVED
    pairs = zip(chain.reductions, inverse, strict=False)
    (kept,) = [kept for reduction, kept in pairs if isinstance(reduction, ConeMatrixStuffing)]
    assert sum(isinstance(each, cp.SOC) for each in kept.id2cons.values()) == 1, MOVED


def test_what_cvxpy_keeps_of_a_geometric_program() -> None:
    """The logarithms of its leaves, and the constraints by their ids."""
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    below: Any = a * x >= 1
    reduction: Any = Dgp2Dcp(cp.Problem(cp.Minimize(x), [below]))
    reduced, _ = reduction.apply(reduction.problem)
    assert reduction.canon_methods._variables[x].id == reduced.variables()[0].id, MOVED
    assert reduction.canon_methods._parameters[a].id == reduced.parameters()[0].id, MOVED
    assert reduction.cons_id_map[below.id] == reduced.constraints[0].id, MOVED


def test_versions_are_bounded_and_those_installed_are_inside() -> None:
    """The upper bound stands because of what this module tests."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (bound,) = [one for one in needed if one.startswith("cvxpylayers")]
    assert "<" in bound
    most = tuple(int(part) for part in bound.partition("<")[2].split("."))
    assert tuple(int(part) for part in version("cvxpylayers").split(".")[: len(most)]) < most
