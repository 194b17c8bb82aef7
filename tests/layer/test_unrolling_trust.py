"""What the report says of unrolled gradients that are not exact: truncated, or from a cold start."""

from typing import Any

import cvxpy as cp
import pytest
import torch

from cvxfold import Verdict
from cvxfold.fold import Unrolled
from cvxfold.layer.options import BackwardMethod, LayerOptions
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate, make_layer
from problems.families import minimize
from problems.marks import sliced

FAMILIES = [
    "dense_qp20",
    "portfolio",
    "mpc",
    "robust_portfolio",
    "semidefinite_program_duals",
    "multi_label",
    "powers",
]


@pytest.mark.parametrize(
    "name", sliced(FAMILIES, lambda name: name not in ("dense_qp20", "robust_portfolio"))
)
@pytest.mark.parametrize("start", ["solution", "cold"])
def test_the_error_estimate_covers_what_was_cut_off(name: str, start: Any) -> None:
    """Against the gradients of the reference; not by more than a thousand times where that says something."""
    c = case(name, 4)
    for depth in (5, 20, 60, 200):
        layer = make_layer(c, backward=Unrolled(depth, start=start), on_unconverged="ignore")
        _, gradients = evaluate(layer, c)
        error = errors(gradients, c.gradients)
        backward = layer.report.backward
        large = error > 1e-9  # below, the reference is no better
        assert (backward.error >= error)[large].all(), (depth, backward.error, error)
        assert (backward.error <= 1e3 * error)[large].all(), (depth, backward.error, error)
        assert all(verdict is not Verdict.DEGENERATE for verdict in backward.verdict)
        told = torch.tensor([verdict is not Verdict.CONVERGED for verdict in backward.verdict])
        assert told[error > 1e-5].all()


def test_the_residual_of_a_cold_start_is_that_of_lfpi_where_phi_is_constant() -> None:
    """On equalities alone F is affine, so it does not matter where the iterations begin."""
    generator = torch.Generator().manual_seed(3)
    G = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    x, a = cp.Variable(6), cp.Parameter(6)
    problem = minimize(cp.sum_squares(x - a) + cp.square(x[0]), G.numpy() @ x == 1)
    value = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    found = []
    methods: list[BackwardMethod] = [Unrolled(4, start="cold"), "lfpi"]
    for method in methods:
        more: LayerOptions = {"penalty": 0.1, "on_unconverged": "ignore", "backward": method}
        if method == "lfpi":
            more |= {"backward_max_iters": 4, "backward_tol": 1e-300}
        layer = CvxpyLayer(problem, [a], [x], **more)
        layer(value.clone().requires_grad_())[0][:, 0].sum().backward()
        assert layer.report is not None
        assert layer.report.backward is not None
        found.append(layer.report.backward.residual)
    torch.testing.assert_close(*found, rtol=1e-9, atol=0)
    assert found[0].min() > 1e-3


def test_before_there_is_a_solution_nothing_is_called_degenerate() -> None:
    """A linear program whose solution is unique; the iterate after a few steps is nowhere near."""
    x, a = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(
        minimize(a @ x, x >= 0, cp.sum(x) == 1), [a], [x],
        backward=Unrolled(4, start="cold"), on_unconverged="ignore",
    )  # fmt: skip
    values = torch.tensor([[1.0, 2.0, 3.0], [0.3, 0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(values)[0][:, 0].sum(), values)
    assert gradient.abs().max() > 1e-2  # and the derivative of a vertex is zero
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.verdict == [Verdict.FORWARD_INEXACT] * 2
    assert (layer.report.backward.error > 1e-2).all()


@pytest.mark.parametrize("start", ["solution", "cold"])
def test_every_backward_pass_is_judged(start: Any) -> None:
    x, a = cp.Variable(3), cp.Parameter(3)
    cost = cp.sum_squares(cp.multiply([1, 2, 3], x) - a)
    layer = CvxpyLayer(
        minimize(cost, cp.norm(x) <= 0.2), [a], [x],
        backward=Unrolled(6, start=start), on_unconverged="ignore",
    )  # fmt: skip
    seen = []
    layer.on_report(lambda report: report.backward and seen.append(report.backward))
    value = torch.tensor([[1.0, 0.5, -0.3]], dtype=torch.float64, requires_grad=True)
    (out,) = layer(value)
    out.sum().backward(retain_graph=True)
    out[:, 1].sum().backward()
    alone = CvxpyLayer(
        minimize(cost, cp.norm(x) <= 0.2), [a], [x],
        backward=Unrolled(6, start=start), on_unconverged="ignore",
    )  # fmt: skip
    alone(value)[0][:, 1].sum().backward()
    assert len(seen) == 2
    assert alone.report is not None
    assert alone.report.backward is not None
    torch.testing.assert_close(seen[1].residual, alone.report.backward.residual)
    assert abs(float(seen[1].residual) / float(seen[0].residual) - 1) > 1e-3


@pytest.mark.parametrize("start", ["solution", "cold"])
def test_instances_without_a_solution_have_no_estimate(start: Any) -> None:
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(
        minimize(cp.sum_squares(x - a), x >= 0), [a], [x],
        backward=Unrolled(300, start=start), on_unsolvable="nan",
    )  # fmt: skip
    value = torch.tensor([[1.0, 0.5], [torch.nan, 1.0], [-1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    (out,) = layer(value)
    out[[0, 2]].sum().backward()
    assert layer.report is not None
    assert layer.report.backward is not None
    assert [str(status) for status in layer.report.forward.status] == ["solved", "invalid", "solved"]
    assert layer.report.backward.verdict == [Verdict.CONVERGED, Verdict.NO_SOLUTION, Verdict.CONVERGED]
    assert layer.report.backward.error.isnan().tolist() == [False, True, False]
    assert value.grad is not None
    torch.testing.assert_close(value.grad, torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]).double())
