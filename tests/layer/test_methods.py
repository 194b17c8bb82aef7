"""Every way through the layer gives the same numbers: refined or not, and each backward method."""

from unittest import mock

import pytest
import torch

import cvxfold
from cvxfold.engines.tensors.engine import TensorEngine
from cvxfold.fold import Auto
from problems.cases import case, errors, evaluate, make_layer
from problems.marks import long, sliced

NAMES = [
    "dense_qp5",
    "dense_qp20",
    "portfolio",
    "mpc",
    "robust_portfolio",
    "ball_least_squares",
    "many_cones",
]
MORE = [
    *NAMES,
    "mpc_absolute",
    "scalars",
    "equality_qp_duals",
    "least_squares",
    "constant_qp",
    "total_variation",
    "multi_label_duals",
    "logistic",
    "nearest_correlation_duals",
    "log_determinant",
    "powers_duals",
    "mixture",
]
METHODS = [
    "direct",
    "gmres",
    "lfpi",
    "anderson",
    "bicgstab",
    "preconditioned_gmres",
    "preconditioned_lfpi",
    "preconditioned_anderson",
    "preconditioned_bicgstab",
]


PAIRS = [(name, method) for name in MORE for method in METHODS]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(
            *pair, marks=long if pair[0] not in ("dense_qp20", "many_cones") and PAIRS.index(pair) % 4 else ()
        )
        for pair in PAIRS
    ],
)
def test_each_method_meets_the_reference(name: str, method: str) -> None:
    c = case(name)
    layer = make_layer(c, backward=method)
    _, gradients = evaluate(layer, c)
    report = layer.report.backward
    assert report.method.startswith(method.removeprefix("preconditioned_"))
    assert ("preconditioned" in report.method) == method.startswith("preconditioned_")
    assert report.converged.all()
    assert report.residual.max() <= 1e-8
    assert errors(gradients, c.gradients).max() < 1e-6


@pytest.mark.parametrize("name", MORE)
def test_converges_without_refinement(name: str) -> None:
    c = case(name)
    layer = make_layer(c, refine=False)
    values, gradients = evaluate(layer, c)
    forward = layer.report.forward
    assert forward.status == [cvxfold.Status.SOLVED] * 8
    assert (torch.as_tensor(forward.newton_steps) == 0).all()
    assert (torch.as_tensor(forward.iterations) > 0).all()
    assert errors(values, c.values).max() < 1e-5
    assert errors(gradients, c.gradients).max() < 1e-4


@pytest.mark.parametrize("name", sliced(NAMES, lambda name: name not in ("dense_qp5", "robust_portfolio")))
def test_methods_agree_without_refinement(name: str) -> None:
    c = case(name)
    found = []
    for method in METHODS:
        layer = make_layer(c, refine=False, backward=method)
        found.append(evaluate(layer, c)[1])
        assert layer.report.backward.converged.all()
    for other in found[1:]:
        assert errors(other, found[0]).max() < 1e-6


def test_refinement_improves_the_solution() -> None:
    c = case("dense_qp20")
    rough = errors(evaluate(make_layer(c, refine=False), c)[0], c.values).max()
    refined = errors(evaluate(make_layer(c), c)[0], c.values).max()
    assert refined < 1e-11
    assert refined < rough


@pytest.mark.parametrize("name", ["dense_qp20", "portfolio", "many_cones"])
def test_lfpi_contracts_at_the_rate_it_reports(name: str) -> None:
    """Between two tolerances the error falls by their ratio: iterations ≈ log(ratio) / log(rate)."""
    c = case(name)
    counts, reports = [], []
    for tolerance in (1e-4, 1e-8):
        layer = make_layer(c, backward="lfpi", backward_tol=tolerance)
        evaluate(layer, c)
        reports.append(layer.report.backward)
        counts.append(torch.as_tensor(reports[-1].iterations).double())
        assert (reports[-1].residual <= tolerance).all()
    rate = reports[-1].rate
    assert ((rate > 0) & (rate < 1)).all()
    slowest = counts[1].argmax()
    forecast = torch.log(torch.tensor(1e-4)).double() / torch.log(rate[slowest].double())
    assert 0.5 < forecast / (counts[1] - counts[0])[slowest] < 2


def test_history_records_the_descent() -> None:
    c = case("dense_qp20")
    layer = make_layer(c, backward="lfpi")
    evaluate(layer, c)
    report = layer.report.backward
    history = report.history
    assert history.shape == (int(report.iterations.max()), 8)
    for instance, count in enumerate(report.iterations.tolist()):
        own = history[:, instance]
        assert own[:count].isfinite().all()
        assert own[count:].isnan().all(), "what an instance did not do is NaN"
        assert own[count - 1] <= 1e-9 < own[count // 2] < own[0]


def test_gmres_needs_fewer_iterations_than_lfpi() -> None:
    c = case("dense_qp20")
    counts = {}
    for method in ("gmres", "lfpi"):
        layer = make_layer(c, backward=method)
        evaluate(layer, c)
        counts[method] = torch.as_tensor(layer.report.backward.iterations).max()
    assert counts["gmres"] < counts["lfpi"]


def test_a_looser_backward_tolerance_gives_a_looser_gradient() -> None:
    """Guards against a method that ignores its tolerance."""
    c = case("dense_qp20")
    found = {}
    for tolerance in (1e-2, 1e-9):
        layer = make_layer(c, backward="lfpi", backward_tol=tolerance)
        found[tolerance] = errors(evaluate(layer, c)[1], c.gradients).max()
        assert layer.report.backward.residual.max() <= tolerance
    assert found[1e-9] < 1e-3 * found[1e-2]


def test_the_default_method_with_other_settings_is_not_the_default() -> None:
    """Without least norm the adjoint of a singular system is what preconditioned GMRES leaves of it."""
    c = case("dense_qp5", 2)
    layer = make_layer(c, backward=Auto(least_norm=False))
    with mock.patch.object(
        TensorEngine, "differentiate", side_effect=AssertionError("the default was asked")
    ):
        _, gradients = evaluate(layer, c)
    assert errors(gradients, c.gradients).max() < 1e-7
