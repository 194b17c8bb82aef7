"""Other solvers as the forward pass: the same answers once finished, their own accuracy otherwise."""

import warnings
from dataclasses import replace
from typing import Any

import cvxpy as cp
import pytest
import torch
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ConeMatrixStuffing

import cvxfold
from cvxfold.engines.external import available
from cvxfold.engines.external.batch import ExternalSolver
from cvxfold.engines.external.instance import instances
from cvxfold.engines.external.through_cvxpy import CompiledForm
from cvxfold.engines.external.through_cvxpy import solve as through_cvxpy
from cvxfold.engines.outcome import Status
from cvxfold.layer.options import ForwardSolver, Options
from cvxfold.problem.program import Program
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate, make_layer, said
from problems.families import minimize

NAMES = [
    "dense_qp20", "mpc_absolute", "many_cones_duals", "linear_program_duals", "semidefinite_program_duals",
    "nearest_correlation", "multi_label", "powers_duals", "mixture_duals",
]  # fmt: skip
TIGHT = {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}
SOLVED = cvxfold.Status.SOLVED


@pytest.mark.parametrize("solver", ["SCS", "clarabel", "DIFFCP"])
@pytest.mark.parametrize("name", NAMES)
def test_finished_solutions_meet_the_reference(name: str, solver: str) -> None:
    c = case(name, 4, 2)
    layer = make_layer(c, solver=solver)
    values, gradients = evaluate(layer, c)
    assert layer.report.forward.status == [SOLVED] * 4
    assert errors(values, c.values).max() < 1e-7
    assert errors(gradients, c.gradients).max() < 1e-7
    assert layer.report.backward.converged.all()


@pytest.mark.parametrize("name", ["dense_qp20", "nearest_correlation", "powers_duals"])
def test_unfinished_solutions_are_as_good_as_the_solver(name: str) -> None:
    c = case(name, 4, 2)
    found = {}
    for eps in (1e-3, 1e-9):
        layer = make_layer(c, solver="SCS", refine=False, solver_args={"eps": eps, "max_iters": 100_000})
        values, gradients = evaluate(layer, c)
        assert (layer.report.forward.newton_steps == 0).all()
        assert (layer.report.forward.iterations > 0).all()
        found[eps] = errors(values, c.values).max(), errors(gradients, c.gradients).max()
    assert found[1e-9][0] < 1e-6
    assert found[1e-9][1] < 1e-5
    assert found[1e-3][0] > 100 * found[1e-9][0]


def test_every_solver_of_cvxpy_can_be_asked() -> None:
    """Through a cvxpy problem in cone form: all cones, with Clarabel; an LP and a QP with HiGHS."""
    c = case("mixture_duals", 3, 2)
    ours = evaluate(make_layer(c), c)[0]
    layer = make_layer(c)
    box = ExternalSolver("CLARABEL", lambda one, given: through_cvxpy("CLARABEL", one, given), None, {})
    layer._options = replace(Options.of({"on_unconverged": "raise"}), solver=ForwardSolver(box, {}))
    assert errors(evaluate(layer, c)[0], ours).max() < 1e-7
    if "HIGHS" in available():
        for name in ("linear_program_duals", "portfolio"):
            c = case(name, 2)
            layer = make_layer(c, solver="HIGHS")
            assert errors(evaluate(layer, c)[0], c.values).max() < 1e-7
            assert (layer.report.forward.iterations[layer.report.forward.newton_steps > 0] < 100).all()


def test_statuses_come_through() -> None:
    x, low = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum(x), x >= low, x <= 1), [low], [x], solver="CLARABEL")
    values = torch.zeros(3, 2, dtype=torch.float64)
    values[1] = 2.0
    with pytest.raises(cvxfold.InfeasibleError) as infeasible:
        layer(values)
    assert infeasible.value.indices == [1]
    c = cp.Parameter(2)
    layer = CvxpyLayer(minimize(c @ x, x >= 0), [c], [x], solver="SCS")
    with pytest.raises(cvxfold.UnboundedError) as unbounded:
        layer(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
    assert unbounded.value.indices == [1]


def test_a_solver_that_gives_up_is_helped_or_named() -> None:
    c = case("dense_qp20", 3)
    layer = make_layer(c, solver="SCS", solver_args={"max_iters": 5})
    assert errors(evaluate(layer, c)[0], c.values).max() < 1e-7
    layer = make_layer(c, solver="SCS", refine=False, solver_args={"max_iters": 5})
    with pytest.warns(cvxfold.ConvergenceWarning, match=r"\[0, 1, 2\]"):
        layer(*c.params)


def test_shared_data_and_one_instance() -> None:
    c = case("portfolio_mu", 4)
    layer = make_layer(c, solver="CLARABEL", solver_args={"n_jobs_forward": 1})
    (w,) = layer(c.params[0][2])
    assert errors([w[None]], [c.values[0][2:3]]).max() < 1e-7


def test_instances_in_sparse_storage() -> None:
    """What the solvers get is the program itself: P symmetric, A and b in SCS's form."""
    c = case("dense_qp5", 2)
    layer = make_layer(c)
    layer(*c.params)
    parametrization, _ = layer._on(torch.device("cpu"))
    values = parametrization([p.double() for p in c.params])
    first = next(iter(instances(Program(layer.session.entries, values, 2))))
    assert abs(first.P - first.P.T).sum() == 0
    assert first.A.shape == (first.cones.rows, len(first.q))


def test_solver_args_of_each_solver() -> None:
    c = case("portfolio", 2)
    for given in (
        {"eps_abs": 1e-7, "eps_rel": 1e-7, "max_iters": 5000, "verbose": False},
        {"solve_method": "SCS", "acceleration_lookback": 0},
        {"solve_method": "Clarabel", **TIGHT, "max_iter": 99},
        {"solve_method": "Clarabel", "eps": 1e-9, "max_iters": 99},
        {**TIGHT, "max_iter": 2000},
    ):  # fmt: skip
        layer = make_layer(c, solver_args=given)
        assert errors(evaluate(layer, c)[0], c.values).max() < 1e-7
        assert errors(evaluate(make_layer(c), c, solver_args=given)[0], c.values).max() < 1e-7


def test_solve_method_calls_the_solver() -> None:
    """Clarabel's few iterations, not the 25 of the first round."""
    c = case("portfolio", 2)
    layer = make_layer(c)
    layer(*c.params, solver_args={"solve_method": "Clarabel"})
    assert (layer.report.forward.iterations < 25).all()


def test_one_warning_for_what_has_no_meaning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_layer(case("portfolio", 2), solver_args={"mode": "dense", "n_jobs_backward": 2})
    assert len(caught) == 1
    assert "mode, n_jobs_backward" in str(caught[0].message)
    with pytest.warns(UserWarning, match="call the layer with warm_start=True"):
        make_layer(case("portfolio", 2), solver_args={"warm_start": True})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "GUROBY"}, ["solver", "'GUROBY'", "CLARABEL", "SCS", "None"]),
        ({"solver": 3}, ["solver", "3", "SCS"]),
        ({"solver_args": {"solve_method": "ECOZ"}}, ["solve_method", "'ECOZ'", "SCS"]),
        ({"solver": "SCS", "solver_args": {"max_itters": 3}}, ["max_itters", "SCS", "max_iters"]),
        ({"solver": "CLARABEL", "solver_args": {"tol_gap": 3}}, ["tol_gap", "CLARABEL", "tol_gap_abs"]),
        ({"solver_args": {"epz": 1e-3}}, ["epz", "eps"]),
        ({"solver_args": {"max_iter": 0}}, ["max_iter", "0"]),
        ({"solver": "SCS", "solver_args": {"eps": -1.0}}, ["eps", "-1.0"]),
        ({"solver": "SCS", "solver_args": {"n_jobs_forward": 0}}, ["n_jobs_forward", "0"]),
    ],
)
def test_bad_options(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        make_layer(case("portfolio", 2), **options)
    said(error, *words)


def test_a_solver_that_cannot_is_named() -> None:
    if "HIGHS" not in available():
        pytest.skip("no HiGHS")
    c = case("many_cones", 2)
    with pytest.raises(ValueError, match="HIGHS"):
        make_layer(c, solver="HIGHS")(*c.params)


def test_status_of_the_codes() -> None:
    assert str(Status.SOLVED) == "solved"


def test_a_solver_through_cvxpy_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each instance is solved as if it were the first."""
    compiled: list[Any] = []
    apply = ConeMatrixStuffing.apply

    def counted(self: Any, problem: Any) -> Any:
        compiled.append(problem)
        return apply(self, problem)

    monkeypatch.setattr(ConeMatrixStuffing, "apply", counted)
    c = case("dense_qp5", 4)
    layer = make_layer(c)
    _, values, _ = layer.program(*c.params)
    batch = list(instances(Program(layer.session.entries, values, 4)))
    compiled.clear()
    found = [through_cvxpy("CLARABEL", one, {}) for one in batch * 3][-4:]
    assert len(compiled) == 1
    for one, outcome in zip(batch, found, strict=True):
        alone = CompiledForm("CLARABEL", one).solve(one, {})
        assert (alone.x == outcome.x).all()
        assert (alone.y == outcome.y).all()
    assert len(compiled) == 5
