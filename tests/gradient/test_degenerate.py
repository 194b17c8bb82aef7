"""Degenerate problems are told, whatever the method; sound ones are not accused."""

import warnings
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold import Verdict
from cvxfold.fold import Unrolled
from cvxfold.torch import CvxpyLayer
from problems.degenerate import CASES, Problem, Values, backward, flat_direction, projection, verdict
from problems.families import FAMILIES, minimize
from problems.layers import family_of, layer_of
from problems.marks import long, one_engine

pytestmark = pytest.mark.usefixtures("engine")


@pytest.mark.parametrize(("make", "bad", "good"), CASES)
def test_degenerate_problems_are_told(make: Callable[[], Problem], bad: Values, good: Values) -> None:
    with pytest.warns(cvxfold.ConvergenceWarning, match="degenerate.*no unique derivative"):
        layer, gradients = backward(make, bad)
    assert verdict(layer) == [Verdict.DEGENERATE]
    assert layer.report is not None
    assert all(g.isfinite().all() for g in gradients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", cvxfold.FlatGradientWarning)  # some stand on a vertex
        layer, _ = backward(make, good)
    assert verdict(layer) == [Verdict.CONVERGED]


@pytest.mark.parametrize(("make", "bad", "good"), CASES)
@pytest.mark.parametrize(
    "method",
    [*(pytest.param(m, marks=long) for m in ("gmres", Unrolled(60), "jacobian_free")), "lfpi"],
    ids=str,
)
@one_engine
def test_whatever_the_method(make: Callable[[], Problem], bad: Values, good: Values, method: Any) -> None:
    few = {"backward_max_iters": 500} if method == "lfpi" else {}  # it has no reason to end at these
    layer, _ = backward(make, bad, backward=method, on_unconverged="ignore", **few)
    assert verdict(layer) == [Verdict.DEGENERATE]
    layer, _ = backward(make, good, backward=method, on_unconverged="ignore")
    assert verdict(layer) != [Verdict.DEGENERATE]


def test_degenerate_means_that_one_sided_derivatives_differ() -> None:
    """What the verdict says of the projection at its kink, by the projection itself."""
    problem, parameters, variables = projection()
    layer = CvxpyLayer(problem, parameters, variables)
    c = torch.tensor([[1.0, 0.0], [1.0, 1e-4], [1.0, -1e-4]], dtype=torch.float64)
    (x,) = layer(c)
    assert (x[1, 1] - x[0, 1]) / 1e-4 == pytest.approx(1)
    assert (x[2, 1] - x[0, 1]) / 1e-4 == pytest.approx(0, abs=1e-9)


def test_what_the_loss_does_not_see_is_no_fault() -> None:
    """x₂ is not unique, and a kink at c₂ = 0 does not matter to a loss of x₁."""
    for make, values in ((flat_direction, [[1.0, 1.0]]), (projection, [[1.0, 0.0]])):
        problem, parameters, variables = make()
        layer = CvxpyLayer(problem, parameters, variables)
        inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
        (x,) = layer(*inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (gradient,) = torch.autograd.grad(x[0], inputs)
        assert verdict(layer) == [Verdict.CONVERGED]
        torch.testing.assert_close(gradient, torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_redundant_constraints_that_nothing_moves_are_no_fault() -> None:
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x - c), x >= 0, 2 * x >= 0, cp.sum(x) == 1, 2 * cp.sum(x) == 2)
    layer = CvxpyLayer(problem, [c], [x])
    c_value = torch.tensor([-1.0, 1.5], dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", cvxfold.FlatGradientWarning)  # it stands on a vertex
        layer(c_value)[0].square().sum().backward()
    assert verdict(layer) == [Verdict.CONVERGED]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_sound_families_are_not_accused(name: str) -> None:
    """The families have unique solutions and derivatives with probability one."""
    family = family_of(name)
    layer = layer_of(family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = [p.requires_grad_() for p in family.sample(48, 0)]
        sum(((o * o).sum() for o in layer(*inputs)), torch.zeros(())).backward()
        assert verdict(layer) == [Verdict.CONVERGED] * 48


def test_one_degenerate_instance_in_a_batch() -> None:
    c = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    c[4] = torch.tensor([1.0, 0.0])
    problem, parameters, variables = projection()
    layer = CvxpyLayer(problem, parameters, variables)
    with pytest.warns(cvxfold.ConvergenceWarning, match=r"instances \[4\] are degenerate"):
        layer(c.requires_grad_())[0].sum().backward()
    assert [i for i, one in enumerate(verdict(layer)) if one is Verdict.DEGENERATE] == [4]
    with pytest.raises(cvxfold.ConvergenceError, match=r"\[4\]"):
        CvxpyLayer(problem, parameters, variables, on_unconverged="raise")(c)[0].sum().backward()


def test_a_vertex_with_a_multiplier_to_spare_has_a_derivative() -> None:
    """Five of eight weights at their limit of 0.2 leave nothing: the portfolio stays where it is, locally.

    The multipliers are not unique and one of them may be zero, but the gradient is zero whichever is meant.
    """
    w, mu = cp.Variable(8), cp.Parameter(8)
    problem = minimize(-mu @ w + 0.05 * cp.sum_squares(w), cp.sum(w) == 1, w >= 0, w <= 0.2)
    layer = CvxpyLayer(problem, [mu], [w])
    values = torch.randn(200, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.arange(8, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (gradient,) = torch.autograd.grad((layer(values.requires_grad_())[0] @ weights).sum(), values)
    assert verdict(layer) == [Verdict.CONVERGED] * 200
    assert (gradient.norm(dim=1) < 1e-9).sum() > 100


@pytest.mark.parametrize(("at", "expected"), [(0.3, Verdict.CONVERGED), (1.0, Verdict.DEGENERATE)])
def test_a_variable_that_an_equation_sets(at: float, expected: Verdict) -> None:
    """x = a, x ≤ 1: nothing is left to solve for; at the bound there is no feasible point on one side."""
    x, a = cp.Variable(1), cp.Parameter(1)
    layer = CvxpyLayer(minimize(cp.sum_squares(x), x == a, x <= 1), [a], [x], on_degenerate="ignore")
    leaf = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    (found,) = layer(leaf)
    found.sum().backward()
    torch.testing.assert_close(found, leaf)
    assert verdict(layer) == [expected]
    if expected == Verdict.CONVERGED:
        torch.testing.assert_close(leaf.grad, torch.ones(1, dtype=torch.float64))


def test_a_bound_that_stands_twice_moves_as_one() -> None:
    """The multipliers are not unique, but the same parameter moves both: dx/db = 1."""
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x - c), x >= b, 2 * x >= 2 * b)
    layer = CvxpyLayer(problem, [c, b], [x])
    given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([-1.0, -2.0], [0.5, 0.0])]
    (found,) = layer(*given)
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    on_c, on_b = torch.autograd.grad(found, given, weight)
    torch.testing.assert_close(on_c, torch.zeros_like(on_c), rtol=0, atol=1e-12)
    torch.testing.assert_close(on_b, weight, rtol=1e-12, atol=0)
    assert verdict(layer) == [Verdict.CONVERGED]


def test_rows_that_stand_twice_move_as_one() -> None:
    """min ½‖x‖² under Ax ≤ b twice: with A, b alone the minimum-norm point of an active hyperplane."""
    x, A, b = cp.Variable(3), cp.Parameter((1, 3)), cp.Parameter(1)
    problem = minimize(0.5 * cp.sum_squares(x), A @ x <= b, 3 * A @ x <= 3 * b)
    layer = CvxpyLayer(problem, [A, b], [x])
    a = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    level = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    (found,) = layer(a, level)
    gradients = torch.autograd.grad(found, [a, level], weight)
    expected = torch.autograd.grad(level * a[0] / a[0].square().sum(), [a, level], weight)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert verdict(layer) == [Verdict.CONVERGED]


@pytest.mark.parametrize(("weight", "expected"), [(1.0, Verdict.DEGENERATE), (1e-11, Verdict.CONVERGED)])
def test_a_kink_that_nobody_feels(weight: float, expected: Verdict) -> None:
    """Of a gradient that is nothing beside those of the batch nobody asks which side is meant."""
    problem, parameters, variables = projection()
    layer = CvxpyLayer(problem, parameters, variables, on_unconverged="ignore")
    c = torch.tensor([[1.0, 2.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (found,) = layer(c)
    (found * torch.tensor([[1.0], [weight]], dtype=torch.float64)).sum().backward()
    assert verdict(layer) == [Verdict.CONVERGED, expected]


def asked(layer: CvxpyLayer, given: Values, who: list[int], weight: Any = None, **options: Any) -> Any:
    """The gradients of the weighted sum of the solution on the parameters ``who``; no others need any."""
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=i in who) for i, v in enumerate(given)]
    (x,) = layer(*values)
    weight = torch.ones_like(x) if weight is None else torch.tensor(weight, dtype=x.dtype)
    return torch.autograd.grad((weight * x).sum(), [values[i] for i in who], **options)


@pytest.mark.parametrize("again", [False, True], ids=["", "create_graph"])
def test_a_kink_is_judged_by_the_parameters_asked_for(again: bool) -> None:
    """The lasso at λ = 0 is least squares to who asks for the data's gradient; λ has one side only."""
    x, A, b, weight = cp.Variable(3), cp.Parameter((5, 3)), cp.Parameter(5), cp.Parameter(nonneg=True)
    problem = minimize(0.5 * cp.sum_squares(A @ x - b) + weight * cp.norm1(x))
    layer = CvxpyLayer(problem, [A, b, weight], [x], on_unconverged="ignore")
    generator = torch.Generator().manual_seed(3)
    data = [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((5, 3), (5,))]
    leaves = [value.clone().requires_grad_() for value in data]
    least_squares = torch.linalg.solve(leaves[0].mT @ leaves[0], leaves[0].mT @ leaves[1])
    expected = torch.autograd.grad(least_squares.sum(), leaves)
    given = [value.tolist() for value in data]
    for who in ([0], [1], [0, 1]):
        found = asked(layer, [*given, 0.0], who, create_graph=again)
        assert verdict(layer) == [Verdict.CONVERGED]
        assert layer.report is not None
        assert layer.report.backward is not None
        assert layer.report.backward.error.item() < 1e-8
        for one, other in zip(found, [expected[i] for i in who], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    for who in ([2], [1, 2]):  # whether ‖x‖₁'s epigraph variables happen to lie on their bounds or not
        asked(layer, [*given, 0.0], who, create_graph=again)
        assert verdict(layer) == [Verdict.DEGENERATE]
        asked(layer, [*given, 0.1], who, create_graph=again)
        assert verdict(layer) == [Verdict.CONVERGED]


@pytest.mark.parametrize("again", [False, True], ids=["", "create_graph"])
def test_a_multiplier_is_judged_by_the_parameters_asked_for(again: bool) -> None:
    """‖x − c‖² under x ≥ t + d and x ≥ t + e where d = e: t moves both bounds as one, d and e apart."""
    x, c, t, d, e = cp.Variable(2), cp.Parameter(2), cp.Parameter(), cp.Parameter(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x - c), x >= t + d, x >= t + e)
    layer = CvxpyLayer(problem, [c, t, d, e], [x], on_unconverged="ignore")
    given = [[-1.0, 2.0], 0.25, [0.0, 0.5], [0.0, 0.5]]
    for who, expected in (([0], [[0.0, 3.0]]), ([1], [2.0]), ([0, 1], [[0.0, 3.0], 2.0])):
        found = asked(layer, given, who, [2.0, 3.0], create_graph=again)
        assert verdict(layer) == [Verdict.CONVERGED]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, torch.tensor(other, dtype=one.dtype), rtol=1e-9, atol=1e-9)
    for who in ([2], [1, 3]):
        asked(layer, given, who, create_graph=again)
        assert verdict(layer) == [Verdict.DEGENERATE]
