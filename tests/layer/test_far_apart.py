"""Curved cones whose rows are far apart in size, against closed forms: points and gradients."""

import math
import time
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer

F64 = torch.float64
MATRIX = torch.tensor([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 3.0]], dtype=F64)


def exponential(**options: Any) -> CvxpyLayer:
    """exp(x) − c x: x = log c."""
    x, c = cp.Variable(), cp.Parameter()
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.exp(x) - c * x)), [c], [x], engine="lanes", **options)


def solved(layer: CvxpyLayer) -> bool:
    report = layer.report
    assert report is not None
    return all(status == cvxfold.Status.SOLVED for status in report.forward.status)


def converged(layer: CvxpyLayer) -> bool:
    report = layer.report
    assert report is not None
    assert report.backward is not None
    return all(verdict == cvxfold.Verdict.CONVERGED for verdict in report.backward.verdict)


def off(found: Tensor, right: Tensor) -> float:
    """The largest |found − right| over |right|."""
    return float(((found - right).abs() / right.abs()).amax())


@pytest.mark.parametrize("c", [1e-10, 1e-6, 1e-3, 1e3, 1e6, 1e8, 1e10, 1e12])
def test_exponential(c: float) -> None:
    layer, given = exponential(), torch.tensor(c, dtype=F64, requires_grad=True)
    (x,) = layer(given)
    (gradient,) = torch.autograd.grad(x, given)
    assert solved(layer)
    assert float(x.detach()) == pytest.approx(math.log(c), rel=1e-9)
    assert float(gradient) * c == pytest.approx(1, rel=1e-9)
    assert converged(layer)


@pytest.mark.parametrize("c", [1e-10, 1e-8, 1e-6, 1e-4, 1e4, 1e8])
def test_logarithm(c: float) -> None:
    x, parameter = cp.Variable(), cp.Parameter(pos=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(parameter * x - cp.log(x))), [parameter], [x], engine="lanes")
    given = torch.tensor(c, dtype=F64, requires_grad=True)
    (found,) = layer(given)
    (gradient,) = torch.autograd.grad(found, given)
    assert solved(layer)
    assert float(found.detach()) * c == pytest.approx(1, rel=1e-9)
    assert -float(gradient) * c**2 == pytest.approx(1, rel=1e-9)
    assert converged(layer)


@pytest.mark.parametrize("c", [1e-12, 1e-8, 1e-6, 1e4])
def test_logarithm_beside_a_bound_that_is_idle(c: float) -> None:
    x, parameter = cp.Variable(3), cp.Parameter(3, pos=True)
    problem = cp.Problem(cp.Minimize(parameter @ x - cp.sum(cp.log(x))), [x >= 0])
    layer = CvxpyLayer(problem, [parameter], [x], engine="lanes")
    given = (c * torch.tensor([1.0, 0.5, 3.0], dtype=F64)).requires_grad_()
    (found,) = layer(given)
    (gradient,) = torch.autograd.grad(found.sum(), given)
    assert solved(layer)
    assert off(found.detach(), 1 / given.detach()) < 1e-9
    assert off(gradient, -1 / given.detach() ** 2) < 1e-8
    assert converged(layer)


def second_order(name: str) -> tuple[CvxpyLayer, Callable[[Tensor], Tensor]]:
    """A layer of one variable over products of two, x y ≥ z², and its solution."""
    x, c = cp.Variable(), cp.Parameter(pos=True)
    objective, solution = {
        "1/x": (cp.inv_pos(x) + c * x, lambda c: c**-0.5),
        "root": (c * x - cp.sqrt(x), lambda c: 0.25 * c**-2),
        "quotient": (cp.quad_over_lin(2, x) + c * x, lambda c: 2 * c**-0.5),
        "x^-3/2": (cp.power(x, -1.5) + c * x, lambda c: (c / 1.5) ** -0.4),
    }[name]
    return CvxpyLayer(cp.Problem(cp.Minimize(objective)), [c], [x], engine="lanes"), solution


def power(name: str) -> tuple[CvxpyLayer, Callable[[Tensor], Tensor]]:
    """The same over a power cone."""
    x, t, one, c = cp.Variable(), cp.Variable(), cp.Constant(1.0), cp.Parameter(pos=True)
    objective, cone, solution = {
        "x^-3/2": (t + c * x, cp.PowCone3D(x, t, one, 0.6), lambda c: (c / 1.5) ** -0.4),
        "x^3": (t - c * x, cp.PowCone3D(t, one, x, 1 / 3), lambda c: (c / 3) ** 0.5),
        "x^0.3": (c * x - t, cp.PowCone3D(x, one, t, 0.3), lambda c: (c / 0.3) ** (-1 / 0.7)),
    }[name]
    return CvxpyLayer(cp.Problem(cp.Minimize(objective), [cone]), [c], [x], engine="lanes"), solution


SCALES = [1e-12, 1e-10, 1e-8, 1e-6, 1e6, 1e8, 1e10, 1e11]


@pytest.mark.parametrize("name", ["1/x", "root", "quotient", "x^-3/2"])
def test_products(name: str) -> None:
    """It took seconds by other methods; 1/x at 1e11 was called solved, and off by a half."""
    agrees(*second_order(name))


@pytest.mark.parametrize("name", ["x^-3/2", "x^3", "x^0.3"])
def test_powers(name: str) -> None:
    agrees(*power(name))


def agrees(layer: CvxpyLayer, solution: Callable[[Tensor], Tensor]) -> None:
    """At all scales in one batch, to 1e-9."""
    given = torch.tensor(SCALES, dtype=F64, requires_grad=True)
    (found,) = layer(given)
    (gradient,) = torch.autograd.grad(found.sum(), given)
    (right,) = torch.autograd.grad(solution(given).sum(), given)
    assert solved(layer)
    assert off(found.detach(), solution(given).detach()) < 1e-9
    assert off(gradient, right) < 1e-8
    assert converged(layer)


@pytest.mark.parametrize("name", ["1/x", "root"])
def test_no_error_is_silent_where_parameters_reach_the_rows(name: str) -> None:
    """a moves the sum of two rows that is small beside both, so that its gradient has fewer digits."""
    x, a, c = cp.Variable(), cp.Parameter(pos=True), cp.Parameter(pos=True)
    of_x, solution = {
        "1/x": (cp.inv_pos(a * x), lambda a, c: (a * c) ** -0.5),
        "root": (-cp.sqrt(a * x), lambda a, c: 0.25 * a * c**-2),
    }[name]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(of_x + c * x)), [a, c], [x], engine="lanes")
    of_a = torch.tensor([1.0, 1e4, 1e-3, 1e3], dtype=F64, requires_grad=True)
    of_c = torch.tensor([1e-8, 1e-6, 2.0, 1e6], dtype=F64)
    (found,) = layer(of_a, of_c)
    (gradient,) = torch.autograd.grad(found.sum(), of_a)
    (right,) = torch.autograd.grad(solution(of_a, of_c).sum(), of_a)
    assert solved(layer)
    assert off(found.detach(), solution(of_a, of_c).detach()) < 1e-9
    report = layer.report
    assert report is not None
    assert report.backward is not None
    error = (gradient - right).abs() / right.abs()
    told = torch.tensor([verdict != cvxfold.Verdict.CONVERGED for verdict in report.backward.verdict])
    assert (told | (error <= report.backward.error)).all()


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-5, 1e-3, 1e2, 1e3, 1e4, 1e5, 1e8, 1e10])
def test_log_det(size: float) -> None:
    """trace(S X) − log det X: X = S⁻¹."""
    X, S = cp.Variable((3, 3), PSD=True), cp.Parameter((3, 3), PSD=True)
    problem = cp.Problem(cp.Minimize(cp.trace(S @ X) - cp.log_det(X)))
    layer = CvxpyLayer(problem, [S], [X], engine="lanes")
    given, weights = (size * MATRIX).requires_grad_(), torch.arange(9, dtype=F64).reshape(3, 3)
    (found,) = layer(given)
    (gradient,) = torch.autograd.grad((weights * found).sum(), given)
    inverse = torch.linalg.inv(given.detach())
    right = -inverse @ weights @ inverse
    assert solved(layer)
    assert float((found.detach() @ given.detach() - torch.eye(3, dtype=F64)).abs().amax()) < 1e-9
    assert off(gradient + gradient.T, right + right.T) < 1e-8
    assert converged(layer)


@pytest.mark.parametrize("size", [1.0, 10.0, 20.0, 22.0, 25.0])
def test_entropy(size: float) -> None:
    """Σ entr(x) + cᵀx at its largest: x = exp(c − 1)."""
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + c @ x)), [c], [x], engine="lanes")
    given = (size * torch.tensor([1.0, 0.5, -1.0], dtype=F64)).requires_grad_()
    (found,) = layer(given)
    assert solved(layer)
    assert off(found.detach(), torch.exp(given.detach() - 1)) < 1e-10


@pytest.mark.parametrize("c", [1e-9, 1e-6, 1e-3, 0.5, 0.999])
def test_logistic(c: float) -> None:
    x, parameter = cp.Variable(), cp.Parameter(pos=True)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.logistic(x) - parameter * x)), [parameter], [x], engine="lanes"
    )
    given = torch.tensor(c, dtype=F64, requires_grad=True)
    (found,) = layer(given)
    (gradient,) = torch.autograd.grad(found, given)
    assert solved(layer)
    assert float(found.detach()) == pytest.approx(math.log(c / (1 - c)), rel=1e-9, abs=1e-12)
    assert float(gradient) * c * (1 - c) == pytest.approx(1, rel=1e-8)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4, 1e6, 1e8])
def test_divergence(unit: float) -> None:
    """Σ kl_div(x, c) + Σ x: x = c/e."""
    x, c = cp.Variable(3, nonneg=True), cp.Parameter(3, pos=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum(cp.kl_div(x, c)) + cp.sum(x))), [c], [x], engine="lanes")
    given = (unit * torch.tensor([1.0, 0.5, 3.0], dtype=F64)).requires_grad_()
    (found,) = layer(given)
    (gradient,) = torch.autograd.grad(found.sum(), given)
    assert solved(layer)
    assert off(found.detach(), given.detach() / math.e) < 1e-9
    assert off(gradient, torch.full((3,), 1 / math.e, dtype=F64)) < 1e-9


def test_one_far_off_changes_no_other_and_takes_no_time() -> None:
    layer, c = exponential(), torch.linspace(0.5, 3, 64, dtype=F64)
    (without,) = layer(c)
    c[7] = 1e10
    started = time.perf_counter()
    (found,) = layer(c)
    seconds = time.perf_counter() - started
    rest = torch.arange(64) != 7
    assert torch.equal(found[rest], without[rest])
    assert float(found[7]) == pytest.approx(math.log(1e10), rel=1e-9)
    assert seconds < 0.5  # it took two seconds by the first-order method


@pytest.mark.parametrize("made", [lambda: second_order("1/x"), lambda: power("x^3")], ids=["1/x", "x^3"])
def test_no_answer_depends_on_neighbours_or_places(made: Callable[[], Any]) -> None:
    layer, _ = made()
    c = torch.logspace(-9, 9, 13, dtype=F64).requires_grad_()
    (found,) = layer(c)
    (gradient,) = torch.autograd.grad(found.sum(), c)
    for place in range(len(c)):
        alone = c[place].detach().requires_grad_()
        (found_alone,) = layer(alone)
        (gradient_alone,) = torch.autograd.grad(found_alone, alone)
        assert torch.equal(found_alone, found[place])
        assert torch.equal(gradient_alone, gradient[place])


def test_answers_do_not_depend_on_the_neighbours() -> None:
    layer, c = exponential(), torch.logspace(-9, 12, 12, dtype=F64).requires_grad_()
    (found,) = layer(c)
    (gradient,) = torch.autograd.grad(found.sum(), c)
    turned = c.detach().flip(0).requires_grad_()
    (found_turned,) = layer(turned)
    (gradient_turned,) = torch.autograd.grad(found_turned.sum(), turned)
    assert torch.equal(found_turned.flip(0), found)
    assert torch.equal(gradient_turned.flip(0), gradient)
    assert off(found.detach(), c.detach().log()) < 1e-8
    assert off(gradient, 1 / c.detach()) < 1e-7


def test_data_of_their_own() -> None:
    """Where parameters reach A: log(a x) − c x has x = 1/c, whatever a."""
    x, a, c = cp.Variable(), cp.Parameter(pos=True), cp.Parameter(pos=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c * x - cp.log(a * x))), [a, c], [x], engine="lanes")
    of_a = torch.tensor([1.0, 1e6, 1e-3, 1e3], dtype=F64, requires_grad=True)
    of_c = torch.tensor([1e-8, 1e-6, 2.0, 1e6], dtype=F64, requires_grad=True)
    (found,) = layer(of_a, of_c)
    by_a, by_c = torch.autograd.grad(found.sum(), [of_a, of_c])
    assert solved(layer)
    assert off(found.detach(), 1 / of_c.detach()) < 1e-9
    assert off(by_c, -1 / of_c.detach() ** 2) < 1e-8
    assert float((by_a * of_a.detach() * of_c.detach()).abs().amax()) < 1e-8
