"""Unrolled differentiation: from the solution K steps of LFPI, and exact differentiation in any case."""

import warnings
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold import Verdict
from cvxfold.fold import LFPI, Unrolled
from cvxfold.studies.allocations import peak_bytes
from cvxfold.torch import CvxpyLayer
from problems.cases import Case, case, errors, evaluate, make_layer
from problems.families import minimize
from problems.marks import long, sliced
from problems.unrolled import small_data, small_layer

CONES = [
    "dense_qp20",
    "portfolio",
    "mpc",
    "linear_program_duals",
    "robust_portfolio",
    "many_cones_duals",
    "nearest_correlation_duals",
    "semidefinite_program_duals",
    "multi_label_duals",
    "log_determinant",
    "powers_duals",
    "equality_qp_duals",
    "least_absolute",
]


def gradients(c: Case, **options: Any) -> list[Tensor]:
    layer = make_layer(c, on_unconverged="ignore", **options)
    return evaluate(layer, c)[1]


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("steps", [*(pytest.param(steps, marks=long) for steps in (1, 2)), 37])
def test_unrolling_from_the_solution_is_lfpi(name: str, steps: int) -> None:
    c = case(name, 4)
    unrolled = gradients(c, backward=Unrolled(steps))
    folded = gradients(c, backward="lfpi", backward_max_iters=steps, backward_tol=1e-300)
    assert errors(unrolled, folded).max() < 1e-10
    if steps == 1:
        assert errors(unrolled, c.gradients).min() > 1e-3, (
            "one step is not the gradient, or this tests nothing"
        )


@pytest.mark.parametrize("relaxation", [0.7, 1.0, 1.9])
def test_the_same_under_other_relaxations_and_penalties(relaxation: float) -> None:
    c = case("many_cones", 4)
    options = {"relaxation": relaxation, "penalty": 3.0}
    unrolled = gradients(c, backward=Unrolled(9), **options)
    folded = gradients(c, backward="lfpi", backward_max_iters=9, backward_tol=1e-300, **options)
    assert errors(unrolled, folded).max() < 1e-10


@pytest.mark.parametrize(
    "name",
    sliced(
        ["dense_qp20", "robust_portfolio", "nearest_correlation", "multi_label"],
        lambda name: name != "dense_qp20",
    ),
)
def test_deep_unrolling_tends_to_the_gradient(name: str) -> None:
    c = case(name, 4)
    layer = make_layer(c, backward=Unrolled(400))
    values, found = evaluate(layer, c)
    assert errors(values, c.values).max() < 1e-9
    assert errors(found, c.gradients).max() < 1e-7
    cold = make_layer(c, backward=Unrolled(800, start="cold"))
    values, found = evaluate(cold, c)
    assert errors(values, c.values).max() < 1e-7
    assert errors(found, c.gradients).max() < 1e-6


@pytest.mark.parametrize(
    ("checkpoint_every", "fast_mode"),
    [(3, True), pytest.param(3, False, marks=long), pytest.param(None, False, marks=long)],
)
def test_a_cold_start_is_differentiated_exactly(checkpoint_every: int | None, fast_mode: bool) -> None:
    """The function that returns the 8th iterate, by finite differences: no fixed point is involved.

    The equilibration is a constant of the iteration, so the data that it depends on (A, and the largest
    entries of b and c) stay as they are.
    """
    layer = small_layer(backward=Unrolled(8, start="cold", checkpoint_every=checkpoint_every), penalty=0.5)
    A, b, c = (value.detach() for value in small_data())
    c = torch.cat([c, torch.zeros(2, 0, dtype=c.dtype)], dim=1)
    largest = torch.cat([b, c], 1).abs().amax(1, keepdim=True)
    movable = (c.abs() < largest).to(c.dtype)

    def iterate(shift: Tensor) -> Tensor:
        return layer(A, b, c + movable * shift)[0]

    shift = torch.zeros_like(c, requires_grad=True)
    assert torch.autograd.gradcheck(iterate, (shift,), eps=1e-6, atol=1e-7, fast_mode=fast_mode)
    assert torch.autograd.gradgradcheck(iterate, (shift,), eps=1e-6, atol=1e-6, fast_mode=fast_mode)


def test_truncation_differentiates_the_last_iterations_only() -> None:
    """From a cold start long enough to converge, the last K iterations are K steps of LFPI."""
    c = case("dense_qp20", 4)
    options = {"penalty": 0.3}
    truncated = gradients(c, backward=Unrolled(12, start="cold", untracked=1500), **options)
    folded = gradients(c, backward="lfpi", backward_max_iters=12, backward_tol=1e-300, **options)
    assert errors(truncated, folded).max() < 1e-8


def test_the_report_of_unrolling() -> None:
    c = case("dense_qp20", 4)
    layer = make_layer(c, backward=Unrolled(30), on_unconverged="ignore")
    evaluate(layer, c)
    report = layer.report.backward
    lfpi = make_layer(c, backward="lfpi", backward_max_iters=30, backward_tol=1e-300, on_unconverged="ignore")
    evaluate(lfpi, c)
    torch.testing.assert_close(report.history, lfpi.report.backward.history, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(report.residual, lfpi.report.backward.residual, rtol=1e-6, atol=1e-12)
    assert report.verdict == [Verdict.SLOW] * 4
    assert "30" in report.method
    assert (report.iterations == 30).all()


def test_shallow_unrolling_warns_and_names_the_depth() -> None:
    c = case("dense_qp20", 4)
    layer = make_layer(c, backward=Unrolled(30))
    with pytest.warns(cvxfold.ConvergenceWarning, match=r"about \d+ more iterations") as caught:
        evaluate(layer, c)
    more = int(str(caught[0].message).split("about ")[1].split(" more")[0].replace(",", ""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(make_layer(c, backward=Unrolled(int(1.5 * (30 + more)))), c)


def test_a_shallow_cold_start_is_told_from_its_forward_error() -> None:
    c = case("dense_qp20", 4)
    layer = make_layer(c, backward=Unrolled(5, start="cold"), on_unconverged="ignore")
    values, _ = evaluate(layer, c)
    assert errors(values, c.values).max() > 1e-3
    assert layer.report.backward.verdict == [Verdict.FORWARD_INEXACT] * 4
    assert [str(status) for status in layer.report.forward.status] == ["unconverged"] * 4


@pytest.mark.parametrize(
    ("least", "every", "share"),
    [pytest.param(*each, marks=long) for each in ((200, 28, 0.25), (60, 11, 0.6))],
)
def test_memory_grows_with_depth_and_checkpoints_save_it(least: int, every: int, share: float) -> None:
    c = case("dense_qp20", 8)

    def peak(method: Any) -> int:
        layer = make_layer(c, backward=method, on_unconverged="ignore")
        evaluate(layer, c)
        return peak_bytes(lambda: evaluate(layer, c), torch.device("cpu"))

    shallow, deep, deeper = (peak(Unrolled(k)) for k in (least, 2 * least, 4 * least))
    assert deeper - deep == pytest.approx(2 * (deep - shallow), rel=0.02)
    assert peak(Unrolled(4 * least, checkpoint_every=every)) < share * deeper
    folded = [peak(LFPI()) for _ in range(2)]
    assert folded[0] < share * deeper


def test_gradients_for_some_parameters_only() -> None:
    layer, (A, b, c) = small_layer(backward=Unrolled(60)), small_data()
    full = torch.autograd.grad(layer(A, b, c)[0].sum(), [A, b, c])
    (only,) = torch.autograd.grad(layer(A.detach(), b.detach(), c)[0].sum(), [c])
    torch.testing.assert_close(only, full[2], rtol=1e-10, atol=1e-12)
    assert layer.report is not None
    assert layer.report.backward is not None


def test_shared_parameters_and_float32() -> None:
    layer, folded, (A, b, c) = small_layer(backward=Unrolled(200)), small_layer(), small_data(3)
    one = A[0].detach().float().requires_grad_()
    loss = [x(one, b.detach().float(), c.detach().float())[0].square().sum() for x in (layer, folded)]
    assert loss[0].dtype == torch.float32
    found, expected = (torch.autograd.grad(value, one)[0] for value in loss)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_rank_deficient_data() -> None:
    """x₁ is in no constraint and no quadratic term: M is singular and stays so."""
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x[0] - c[0]) + 0 * x[1], x[0] >= c[1])
    inputs = torch.tensor([[0.0, 1.0], [2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    layer = CvxpyLayer(problem, [c], [x], backward=Unrolled(200), on_unconverged="ignore")
    (gradient,) = torch.autograd.grad(layer(inputs)[0][:, 0].sum(), inputs)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"iterations": 0}, "iterations"),
        ({"iterations": 2.5}, "iterations"),
        ({"start": "warm"}, "start"),
        ({"untracked": -1}, "untracked"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Unrolled(**options)


def test_vmap_is_refused_clearly() -> None:
    layer, (A, b, c) = small_layer(backward="unrolled"), small_data()
    with pytest.raises(NotImplementedError, match=r"cvxfold: .*vmap"):
        torch.func.vmap(lambda c: layer(A[0], b[0], c)[0])(c)


def test_an_empty_batch() -> None:
    layer = small_layer(backward="unrolled")
    (x,) = layer(torch.zeros(0, 2, 3), torch.zeros(0, 2), torch.zeros(0, 3))
    assert x.shape == (0, 3)


def test_without_a_gradient_to_come_nothing_is_unrolled() -> None:
    layer, inputs = small_layer(backward=Unrolled(10**9)), [v.detach() for v in small_data()]
    expected = small_layer()(*inputs)[0]
    torch.testing.assert_close(layer(*inputs)[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(*(v.requires_grad_() for v in inputs))[0], expected)


def test_options_that_contradict_unrolling() -> None:
    with pytest.raises(ValueError, match="backward_max_iters"):
        small_layer(backward=Unrolled(5), backward_max_iters=7)
    with pytest.raises(ValueError, match="solver"):
        small_layer(backward=Unrolled(5, start="cold"), solver="SCS")
    with pytest.raises(ValueError, match=r"give LFPI\(\)"):
        small_layer(backward=LFPI)
