"""The report of a call."""

import json
import pickle
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.report.report import Report
from cvxfold.torch import CvxpyLayer
from problems.cases import case, evaluate, make_layer
from problems.families import minimize


def test_report() -> None:
    c = case("portfolio", 4)
    layer = make_layer(c)
    params = [p.clone().requires_grad_() for p in c.params]
    (w,) = layer(*params)
    forward = layer.report.forward
    assert [s.value for s in forward.status] == ["solved"] * 4
    for entry in (forward.iterations, forward.newton_steps):
        assert entry.shape == (4,)
        assert (entry >= 0).all()
    for entry in (forward.primal_residual, forward.dual_residual, forward.gap):
        assert entry.shape == (4,)
        assert ((entry >= 0) & (entry < 1e-7)).all()
    assert forward.seconds > 0
    not_yet = layer.report.backward
    assert not_yet is None
    before = str(layer.report)
    w.sum().backward()
    backward = layer.report.backward
    assert backward.method.startswith(("auto", "direct", "gmres", "lfpi"))
    for entry in (backward.iterations, backward.residual, backward.rate, backward.converged):
        assert entry.shape == (4,)
    assert backward.history.shape[1] == 4
    assert backward.seconds > 0
    after = str(layer.report)
    assert "solved" in before.lower()
    assert backward.method in after
    assert after != before


def test_report_of_a_large_batch_stays_short() -> None:
    c = case("portfolio", 64)
    layer = make_layer(c)
    evaluate(layer, c)
    lines = str(layer.report).splitlines()
    assert 2 <= len(lines) <= 30
    assert max(len(line) for line in lines) <= 120


@pytest.mark.parametrize("bounded", [False, True])
def test_gradient_that_does_not_exist_is_not_called_converged(bounded: bool) -> None:
    """c₁x₁ + ½x₀² + c₀x₀ with c₁ = 0: any x₁ is a solution, so the residual must not look like success."""
    x, c = cp.Variable(2), cp.Parameter(2)
    constraints = [x >= -3, x <= 3] if bounded else []
    layer = CvxpyLayer(
        minimize(c @ x + 0.5 * cp.square(x[0]), *constraints), [c], [x], on_unconverged="ignore"
    )
    costs = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    (solution,) = layer(costs)
    torch.testing.assert_close(solution[:, 0], -costs[:, 0], atol=1e-9, rtol=0)
    solution.sum().backward()
    report: Any = layer.report
    assert not report.backward.converged.any()
    assert (report.backward.residual > 1e-3).all()
    assert costs.grad is not None
    assert costs.grad.abs().max() < 1e3


@pytest.mark.parametrize("kind", ["layer", "solver", "folded"])
def test_before_the_first_call_a_report_tells_of_no_instance(kind: str) -> None:
    """Code that logs, and type checkers, need no case of their own for it."""
    solver, folded = cvxfold.FoldedSolver(), cvxfold.fold(lambda x: x / 2, start=torch.ones(2))
    report: Report = {
        "layer": lambda: make_layer(case("constant_qp", 1)).report,
        "solver": lambda: solver.report,
        "folded": lambda: folded.report,
    }[kind]()
    assert report.forward.status == []
    assert report.backward is None
    assert report.to_dict()["forward/solved"] == 0.0
    assert "by nobody yet" in str(report)


def test_statuses_and_verdicts_are_their_names() -> None:
    """0 ≤ x ≤ c is infeasible for c < 0."""
    x, c = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(minimize(cp.square(x - 3), x >= 0, x <= c), [c], [x], on_unsolvable="nan")
    bounds = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    layer(bounds)[0].nansum().backward()
    report: Any = layer.report
    assert report.forward.status == ["solved", "infeasible", "solved"]
    assert report.backward.verdict == ["converged", "no solution", "converged"]
    assert report.backward.verdict.count("converged") == 2
    assert "infeasible" in report.forward.status
    assert [f"{kind}" for kind in report.forward.status] == ["solved", "infeasible", "solved"]
    assert json.loads(json.dumps(report.backward.verdict)) == report.backward.verdict
    both = [*report.forward.status, *report.backward.verdict]
    again = pickle.loads(pickle.dumps(both))
    assert [(one is another, repr(one)) for one, another in zip(both, again, strict=True)] == [
        (True, repr(one)) for one in both
    ]
    for asked in ("infeasible", cvxfold.Status.INFEASIBLE):
        assert report.forward.instances(asked) == [1]
    for unknown in ("infeasable", "INFEASIBLE", None, cvxfold.Verdict.SLOW):
        with pytest.raises(ValueError, match="'solved', 'unconverged', 'infeasible', 'unbounded', 'invalid'"):
            report.forward.instances(unknown)


def test_a_layer_in_a_terminal() -> None:
    x, A, c = cp.Variable(3, name="x"), cp.Parameter((2, 3), name="A"), cp.Parameter(name="c")
    layer = CvxpyLayer(minimize(cp.sum_squares(A @ x - c), x >= 0), [A, c], [x], tol=1e-6)
    line = "CvxpyLayer(parameters: A 2×3, c scalar; returns: x 3; options: tol=1e-06)"
    assert str(layer) == repr(layer) == line
    assert f"(0): {line}" in str(torch.nn.Sequential(layer))
