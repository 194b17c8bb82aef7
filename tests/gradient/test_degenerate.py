"""Degenerate problems are told, whatever the method; sound ones are not accused."""

import warnings
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold import Verdict
from cvxfold.fold import Unrolled
from cvxfold.torch import CvxpyLayer
from families import FAMILIES, minimize

Problem = tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]


def linear_program() -> Problem:
    """cᵀx over {x ≥ 0, x ≤ 1, x₁ + x₂ = 1}."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(c @ x, x >= 0, x <= 1, cp.sum(x) == 1), [c], [x]


def corner() -> Problem:
    """−x₁ − x₂ under x ≤ b and x₁ + x₂ ≤ 2: three constraints meet in a corner of the plane where b = 1."""
    x, b = cp.Variable(2), cp.Parameter(2)
    return minimize(-cp.sum(x), x <= b, cp.sum(x) <= 2), [b], [x]


def projection() -> Problem:
    """‖x − c‖² over x ≥ 0, whose projection has a kink at cᵢ = 0."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), x >= 0), [c], [x]


def twice_bounded() -> Problem:
    """‖x − c‖² over x ≥ b and 2x ≥ 2b: each bound stands twice."""
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), x >= b, 2 * x >= 2 * b), [c, b], [x]


def ball() -> Problem:
    """‖x − c‖² over the unit ball: a kink where ‖c‖ = 1."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), cp.norm(x) <= 1), [c], [x]


def shrinkage() -> Problem:
    """½‖x − c‖² + ‖x‖₁: soft thresholding, with a kink where |cᵢ| = 1."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(0.5 * cp.sum_squares(x - c) + cp.norm1(x), x >= -9), [c], [x]


def largest_eigenvalue() -> Problem:
    """λ_max(A), which has no derivative where it is repeated."""
    t, A = cp.Variable(), cp.Parameter((3, 3), symmetric=True)
    return minimize(t, t * np.eye(3) - A >> 0), [A], [t]


def nearest_semidefinite() -> Problem:
    """The projection onto the semidefinite cone, with a kink where an eigenvalue is zero."""
    X, A = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    return minimize(cp.sum_squares(X - A), X >> 0), [A], [X]


def flat_direction() -> Problem:
    """(x₁ − c₁)² over a box for x₂, which nothing decides."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.square(x[0] - c[0]), x[1] >= -1, x[1] <= 1), [c], [x]


def exponential_edge() -> Problem:
    """‖x − c‖² over {exp(x₁) ≤ x₂}: a kink where c lies on the boundary."""
    x, c = cp.Variable(2), cp.Parameter(2)
    return minimize(cp.sum_squares(x - c), cp.exp(x[0]) <= x[1]), [c], [x]


def budget() -> Problem:
    """‖x − c‖² under Σx ≤ b, the only row: a kink where b = Σc, at which nothing of u is left."""
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    return minimize(cp.sum_squares(x - c), cp.sum(x) <= b), [c, b], [x]


def multiplier() -> Problem:
    """The multiplier of a constraint that stands twice is not unique, and is returned."""
    x, c = cp.Variable(2), cp.Parameter(2)
    once: Any = cp.sum(x) <= 1
    return minimize(cp.sum_squares(x - c), once, 2 * cp.sum(x) <= 2), [c], [x, *once.dual_variables]


Values = list[Any]
DEGENERATE: list[tuple[Callable[[], Problem], Values, Values]] = [
    # the problem, values where it is degenerate, values nearby where it is not
    (linear_program, [[1.0, 1.0]], [[1.0, 2.0]]),
    (corner, [[1.0, 1.0]], [[1.0, 0.9]]),
    (projection, [[1.0, 0.0]], [[1.0, 0.01]]),
    (projection, [[0.0, -1.0]], [[-0.01, -1.0]]),
    (twice_bounded, [[-1.0, -1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]),
    (ball, [[0.6, 0.8]], [[0.7, 0.8]]),
    (ball, [[0.6, 0.8]], [[0.5, 0.8]]),
    (shrinkage, [[1.0, 2.0]], [[1.1, 2.0]]),
    (largest_eigenvalue, [np.diag([1.0, 1.0, 0.0])], [np.diag([1.0, 0.9, 0.0])]),
    (nearest_semidefinite, [np.diag([1.0, 0.0, -1.0])], [np.diag([1.0, 1.0, -1.0])]),
    (budget, [[1.0, 1.0], 2.0], [[1.0, 1.0], 1.999]),
    (budget, [[0.3, -0.2], 0.1], [[0.3, -0.2], 0.101]),
    (multiplier, [[1.0, 1.0]], [[0.3, 0.3]]),
    (exponential_edge, [[0.0, 1.0]], [[0.0, 1.1]]),
    (exponential_edge, [[0.0, 1.0]], [[0.0, 0.9]]),
]
CASES = [pytest.param(*each, id=f"{each[0].__name__}-{i}") for i, each in enumerate(DEGENERATE)]


def backward(make: Callable[[], Problem], values: Values, **options: Any) -> tuple[CvxpyLayer, list[Tensor]]:
    problem, parameters, variables = make()
    layer = CvxpyLayer(problem, parameters, variables, **options)
    inputs = [torch.as_tensor(np.asarray(v), dtype=torch.float64).requires_grad_() for v in values]
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for out in layer(*inputs):
        loss = loss + (torch.randn(out.shape, dtype=out.dtype, generator=generator) * out).sum()
    return layer, list(torch.autograd.grad(loss, inputs))


def verdict(layer: CvxpyLayer) -> list[Verdict]:
    assert layer.report is not None
    assert layer.report.backward is not None
    return layer.report.backward.verdict


@pytest.mark.parametrize(("make", "bad", "good"), CASES)
def test_degenerate_problems_are_told(make: Callable[[], Problem], bad: Values, good: Values) -> None:
    with pytest.warns(cvxfold.ConvergenceWarning, match="degenerate.*no unique derivative"):
        layer, gradients = backward(make, bad)
    assert verdict(layer) == [Verdict.DEGENERATE]
    assert layer.report is not None
    assert all(g.isfinite().all() for g in gradients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer, _ = backward(make, good)
    assert verdict(layer) == [Verdict.CONVERGED]


@pytest.mark.parametrize(("make", "bad", "good"), CASES)
@pytest.mark.parametrize("method", ["gmres", "lfpi", "jacobian_free", Unrolled(60)], ids=str)
def test_whatever_the_method(make: Callable[[], Problem], bad: Values, good: Values, method: Any) -> None:
    layer, _ = backward(make, bad, backward=method, on_unconverged="ignore")
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
        layer(c_value)[0].square().sum().backward()
    assert verdict(layer) == [Verdict.CONVERGED]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_sound_families_are_not_accused(name: str) -> None:
    """The families have unique solutions and derivatives with probability one."""
    family = FAMILIES[name]()
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            inputs = [p.requires_grad_() for p in family.sample(16, seed)]
            sum(((o * o).sum() for o in layer(*inputs)), torch.zeros(())).backward()
            assert verdict(layer) == [Verdict.CONVERGED] * 16


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
