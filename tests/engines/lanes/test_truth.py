"""What the kernels find, against dense numpy and an independent reference; and who has no solution."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.engines.choose import engine_for
from cvxfold.engines.protocol import Solution, SolveRequest
from cvxfold.engines.settings import ForwardSettings
from cvxfold.problem.program import Program
from cvxfold.studies.fuzz.cones import cones_of
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate, make_layer
from problems.families import minimize, mpc
from problems.marks import needs_lanes
from problems.programs import dense
from problems.reference import Reference

pytestmark = needs_lanes
F64 = torch.float64
NAMES = [
    "dense_qp20", "portfolio", "mpc", "linear_program_duals", "many_cones_duals", "log_sum_exp",
    "powers_duals", "mixture_duals", "constant_qp", "no_rows",
]  # fmt: skip


def solved(name: str, batch: int = 9) -> tuple[Any, Program, Solution]:
    """A layer, its programs and their solutions by the lanes engine."""
    c = case(name, batch)
    layer = make_layer(c, engine="lanes")
    _, values, _ = layer.program(*c.params)
    program = Program(layer.session.entries, values, batch)
    engine = engine_for(program.entries, "lanes")
    return layer, program, engine.solve(program, SolveRequest(ForwardSettings()))


@pytest.mark.parametrize("name", NAMES)
def test_solutions_satisfy_the_optimality_conditions(name: str) -> None:
    """To 1e-10, relative; s and y by projections in numpy that the kernels know nothing of."""
    layer, program, found = solved(name)
    family = case(name, 9).family
    reference = Reference(family.problem, family.parameters, family.variables)
    assert found.engine == "lanes"
    assert found.solved.all()
    for i in range(program.batch):
        P, q, A, b = dense(layer._canonical, program.values, i)
        x, y, s = (v[i].numpy() for v in (found.x, found.y, found.s))
        P = 0.5 * (P + P.T)
        scale = 1 + max(np.abs(v).max(initial=0) for v in (q, b, A @ x, A.T @ y, P @ x))
        assert np.abs(A @ x + s - b).max(initial=0) < 1e-10 * scale
        assert np.abs(P @ x + q + A.T @ y).max() < 1e-10 * scale
        for cone in cones_of(reference.tensors.cone_dims):
            rows = cone.rows
            np.testing.assert_allclose(cone.project(s[rows] - y[rows])[0], s[rows], atol=1e-9 * scale)
        assert abs(s @ y) < 1e-9 * scale * (1 + np.abs(x).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 9])
def test_values_and_gradients_are_those_of_the_reference(name: str, batch: int) -> None:
    c = case(name, batch, 2)
    layer = make_layer(c, engine="lanes", on_unconverged="raise")
    values, gradients = evaluate(layer, c)
    assert layer.report.engine == "lanes"
    assert errors(values, c.values).max() < 1e-8
    assert errors(gradients, c.gradients).max() < 1e-7


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_gradients_against_differences_of_another_solver() -> None:
    """Clarabel at tight tolerances, central differences, a problem with three kinds of cones."""
    epsilon, tight = 1e-3, dict.fromkeys(["tol_gap_abs", "tol_gap_rel", "tol_feas"], 1e-12)
    x, a, r = cp.Variable(4), cp.Parameter(4), cp.Parameter()
    cost = cp.sum_squares(x - a) + 0.1 * cp.sum(cp.exp(x))
    problem = minimize(cost, cp.norm(x[:3]) <= r, x[3] >= 0.2, cp.sum(x) == 0.5)
    layer = CvxpyLayer(problem, [a, r], [x], engine="lanes", on_unconverged="raise")
    params = [torch.tensor([1.0, -0.5, 0.8, 0.1], dtype=F64), torch.tensor(0.7, dtype=F64)]
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)

    def loss(shift: np.ndarray) -> float:
        a.value, r.value = params[0].numpy() + shift[:4], params[1].numpy() + shift[4]
        problem.solve(solver="CLARABEL", **tight)
        assert x.value is not None
        return float(weights.numpy() @ x.value)

    steps = epsilon * np.eye(5)
    expected = [(loss(step) - loss(-step)) / (2 * epsilon) for step in steps]
    leaves = [p.requires_grad_() for p in params]
    found = torch.autograd.grad(layer(*leaves)[0] @ weights, leaves)
    np.testing.assert_allclose(torch.cat([found[0], found[1][None]]), expected, rtol=1e-5, atol=1e-5)


def trouble(cone: bool) -> tuple[CvxpyLayer, list[Tensor]]:
    """½‖x₁, x₂‖² + qᵀx over Ax ≤ b and perhaps a ball: 1 is infeasible, 4 unbounded, 7 is NaN."""
    x, q, A, b = cp.Variable(4), cp.Parameter(4), cp.Parameter((4, 4)), cp.Parameter(4)
    rows = [A @ x <= b, x[:3] >= -2, x[:3] <= 2, *([cp.norm(x[:2]) <= 1.5] if cone else [])]
    layer = CvxpyLayer(
        minimize(0.5 * cp.sum_squares(x[:2]) + q @ x, *rows), [q, A, b], [x], engine="lanes",
        on_unsolvable="nan", on_unconverged="ignore",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    q_value = torch.randn(11, 4, dtype=F64, generator=generator)
    A_value = torch.randn(11, 4, 4, dtype=F64, generator=generator)
    A_value[:, :2] = torch.tensor([[0, 0, 0, 1.0], [0, 0, 0, -1.0]])
    return layer, [q_value, A_value, 1 + torch.rand(11, 4, dtype=F64, generator=generator)]


@pytest.mark.parametrize("cone", [False, True], ids=["qp", "socp"])
def test_instances_without_a_solution_among_others(cone: bool) -> None:
    layer, (q, A, b) = trouble(cone)
    (expected,) = layer(q, A, b)
    b[1, 0], b[1, 1] = -2, 1  # x₄ ≤ −2 and x₄ ≥ −1
    A[4, 0, 3], A[4, 2:, 3], q[4, 3] = 0, 0, -1
    q[7, 2] = torch.nan
    (found,) = layer(q.requires_grad_(), A, b)
    (gradient,) = torch.autograd.grad(found.nan_to_num().square().sum(), q)
    assert layer.report is not None
    statuses = [str(status) for status in layer.report.forward.status]
    assert [statuses[i] for i in (1, 4, 7)] == ["infeasible", "unbounded", "invalid"]
    others = [i for i in range(11) if i not in (1, 4, 7)]
    assert [statuses[i] for i in others] == ["solved"] * 8
    assert torch.equal(found[others], expected[others])
    assert found[[1, 4, 7]].isnan().all()
    assert (gradient[[1, 4, 7]] == 0).all()
    assert gradient.isfinite().all()
    assert (layer.report.forward.certificate[[1, 4]] <= 1e-7).all()


def least_norm(c: float, engine: Any) -> tuple[CvxpyLayer, Tensor]:
    """‖x − c‖² + 0.5‖x₁, x₂‖: at c₁ = c₂ = 0 the cone is at its apex, strictly."""
    x, a = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - a) + 0.5 * cp.norm(x[:2])), [a], [x], engine=engine)
    return layer, torch.tensor([c, 0.0, 1.0], dtype=F64, requires_grad=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("engine", ["lanes", "tensors"])
def test_a_cone_at_its_apex_is_no_kink(engine: Any) -> None:
    """Nor is a norm constraint that holds with room to spare, whose multiplier is zero."""
    layer, c = least_norm(0.1, engine)
    (x,) = layer(c)
    (gradient,) = torch.autograd.grad(x.sum(), c)
    torch.testing.assert_close(x.detach(), torch.tensor([0.0, 0.0, 1.0], dtype=F64), atol=1e-9, rtol=0)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, 1.0], dtype=F64), atol=1e-9, rtol=0)
    v, a = cp.Variable(3), cp.Parameter(3)
    rows = [cp.norm(v) <= 5, cp.norm(v[:2]) <= v[2] + 9, cp.norm(v - a) <= 1]
    loose = CvxpyLayer(minimize(cp.sum_squares(v - a), *rows), [a], [v], engine=engine)
    value = torch.tensor([[0.5, -0.2, 1.0], [0.0, 0.0, 0.0]], dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loose(value)[0].sum(), value)
    torch.testing.assert_close(gradient, torch.ones(2, 3, dtype=F64), atol=1e-8, rtol=0)
    assert loose.report is not None
    assert loose.report.backward is not None
    assert [str(verdict) for verdict in loose.report.backward.verdict] == ["converged"] * 2


@pytest.mark.parametrize("engine", ["lanes", "tensors"])
def test_a_norm_constraint_that_only_just_holds_is_a_kink(engine: Any) -> None:
    v, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(v - a), cp.norm(v) <= 1), [a], [v], engine=engine)
    value = torch.tensor([[0.6, 0.8], [0.3, 0.2], [3.0, 4.0]], dtype=F64, requires_grad=True)
    (x,) = layer(value)
    with pytest.warns(UserWarning, match=r"instances \[0\] are degenerate"):
        (gradient,) = torch.autograd.grad(x.sum(), value)
    torch.testing.assert_close(gradient[1], torch.ones(2, dtype=F64))
    expected = (torch.eye(2, dtype=F64) - value[2].outer(value[2]).detach() / 25).sum(0) / 5
    torch.testing.assert_close(gradient[2], expected)


@pytest.mark.filterwarnings("error")
def test_a_gradient_that_vanishes_is_not_accused() -> None:
    """A control at its bound does not move with the state where all begins: 1e-22 is no gradient."""
    family = mpc(3, 2, 1)
    params = [p.requires_grad_() for p in family.sample(2, 1)]
    layer = CvxpyLayer(family.problem, family.parameters, family.variables, engine="lanes")
    controls = layer(*params)[1]
    gradients = torch.autograd.grad(controls[0].flatten()[0], params)
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients)
