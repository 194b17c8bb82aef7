"""What the layer does around the mathematics: batches, dtypes, autograd, state, options."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate, make_layer, weighted
from problems.families import equality_qp, minimize, scalars

pytestmark = pytest.mark.usefixtures("engine")

F64 = torch.float64


def _grads(outputs: Any, inputs: Any) -> list[torch.Tensor]:
    return list(torch.autograd.grad(weighted([torch.ones_like(v) for v in outputs], outputs), inputs))


# batches


def test_unbatched_call() -> None:
    c = case("scalars", 3)
    layer = make_layer(c)
    params = [p[1].clone().requires_grad_() for p in c.params]
    outputs = layer(*params)
    assert isinstance(outputs, tuple)
    assert [v.shape for v in outputs] == [v.shape for v in c.family.variables]
    gradients = torch.autograd.grad(weighted([w[1] for w in c.weights], outputs), params)
    assert errors([v[None] for v in outputs], [v[1:2] for v in c.values]).max() < 1e-7
    assert errors([g[None] for g in gradients], [g[1:2] for g in c.gradients]).max() < 1e-7
    assert layer.report.forward.status == [cvxfold.Status.SOLVED]
    assert layer.report.backward.residual.shape == (1,)


@pytest.mark.parametrize("shared", [0, 1, 2])
@pytest.mark.parametrize("name", ["scalars", "equality_qp_duals"])
def test_gradient_of_a_shared_parameter_is_the_sum_over_the_batch(name: str, shared: int) -> None:
    c = case(name, 3)
    layer = make_layer(c)
    mixed = [(p[0] if i == shared else p).clone().requires_grad_() for i, p in enumerate(c.params)]
    full = [
        (p[:1].expand_as(p) if i == shared else p).clone().requires_grad_() for i, p in enumerate(c.params)
    ]
    a, b = layer(*mixed), layer(*full)
    for v, w in zip(a, b, strict=True):
        torch.testing.assert_close(v, w, atol=1e-10, rtol=1e-10)
    for i, (g, h) in enumerate(zip(_grads(a, mixed), _grads(b, full), strict=True)):
        torch.testing.assert_close(g, h.sum(0) if i == shared else h, atol=1e-8, rtol=1e-8)


def test_batch_of_one_keeps_its_dimension() -> None:
    c = case("scalars", 3)
    outputs = make_layer(c)(*[p[:1] for p in c.params])
    assert [tuple(v.shape) for v in outputs] == [(1, *v.shape) for v in c.family.variables]


def test_instances_do_not_depend_on_their_neighbours() -> None:
    c = case("many_cones", 8)
    layer = make_layer(c)
    (together,) = layer(*c.params)
    (half,) = layer(*[p[4:] for p in c.params])
    torch.testing.assert_close(together[4:], half, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("batched", [(0, 1, 2), (1,)])
def test_empty_batch(batched: tuple[int, ...]) -> None:
    family = scalars()
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    params = [p[:0] if i in batched else p[0] for i, p in enumerate(family.sample(2, 0))]
    params = [p.clone().requires_grad_() for p in params]
    outputs = layer(*params)
    assert [tuple(v.shape) for v in outputs] == [(0, *v.shape) for v in family.variables]
    gradients = _grads(outputs, params)
    assert [g.shape for g in gradients] == [p.shape for p in params]
    assert all((g == 0).all() for g in gradients)


def test_non_contiguous_parameters() -> None:
    c = case("dense_qp5", 4)
    params = [p.flip(0).movedim(0, -1).contiguous().movedim(-1, 0).flip(0) for p in c.params]
    assert not params[0].is_contiguous()
    (x,) = make_layer(c)(*params)
    assert errors([x], c.values).max() < 1e-7


def test_parameters_and_loss_gradients_that_are_negated_lazily() -> None:
    """The imaginary part of a conjugate has the bits of the number before it was conjugated."""
    x, a = cp.Variable(1), cp.Parameter(1)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - a)), [a], [x])
    negated = torch.tensor([1 + 2j], dtype=torch.complex128).conj().imag
    assert negated.is_neg()
    assert negated.is_contiguous()
    (found,) = layer(leaf := negated.requires_grad_())
    one = torch.tensor([-1j], dtype=torch.complex128).conj().imag
    (gradient,) = torch.autograd.grad(found, leaf, one)
    assert found.item() == pytest.approx(-2.0)
    assert gradient.item() == pytest.approx(1.0)


def test_outputs_may_be_changed_in_place() -> None:
    x, y, a = cp.Variable(2, nonneg=True), cp.Variable((2, 2)), cp.Parameter((2, 2))
    cost = cp.sum_squares(y - a) + cp.sum_squares(x - a[0])
    layer = CvxpyLayer(minimize(cost), [a], [x, y])
    leaf = torch.tensor([[3.0, 1.0], [2.0, 5.0]], dtype=F64, requires_grad=True)
    first, second = layer(leaf)
    first.mul_(2.0)
    second.add_(1.0)
    (gradient,) = torch.autograd.grad(first.sum() + second.sum(), leaf)
    assert torch.allclose(first, 2.0 * leaf[0])
    assert torch.allclose(second, leaf + 1.0)
    assert torch.allclose(gradient, torch.tensor([[3.0, 3.0], [1.0, 1.0]], dtype=F64))


# dtypes and autograd


def test_float32_in_float32_out() -> None:
    c = case("portfolio", 4)
    params = [p.float().requires_grad_() for p in c.params]
    (w,) = make_layer(c)(*params)
    assert w.dtype == torch.float32
    gradients = torch.autograd.grad((c.weights[0].float() * w).sum(), params)
    assert all(g.dtype == torch.float32 for g in gradients)
    assert errors([w.double()], c.values).max() < 1e-5
    assert errors([g.double() for g in gradients], c.gradients).max() < 1e-4


def test_gradients_come_back_in_each_input_s_dtype() -> None:
    c = case("portfolio", 4)
    mu, F = c.params[0].float().requires_grad_(), c.params[1].clone().requires_grad_()
    (w,) = make_layer(c)(mu, F)
    assert [g.dtype for g in _grads([w], [mu, F])] == [torch.float32, F64]


def test_default_dtype_does_not_matter() -> None:
    c = case("portfolio", 4)
    layer = make_layer(c)
    torch.set_default_dtype(F64)
    try:
        (w,) = layer(*[p.float() for p in c.params])
        assert w.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_no_grad() -> None:
    c = case("portfolio", 4)
    layer = make_layer(c)
    with torch.no_grad():
        (w,) = layer(*[p.clone().requires_grad_() for p in c.params])
    assert w.grad_fn is None
    assert not w.requires_grad
    not_yet = layer.report.backward
    assert not_yet is None
    (w,) = layer(*c.params)
    assert not w.requires_grad


def test_only_the_parameters_that_ask_get_gradients() -> None:
    c = case("dense_qp5", 4)
    params = [p.clone() for p in c.params]
    params[3].requires_grad_()
    (x,) = make_layer(c)(*params)
    (c.weights[0] * x).sum().backward()
    assert [p.grad is not None for p in params] == [False, False, False, True, False, False]
    assert params[3].grad is not None
    full = torch.cat([g.reshape(4, -1) for g in c.gradients], 1).norm(dim=1, keepdim=True)
    assert ((params[3].grad - c.gradients[3]) / full).abs().max() < 1e-7


def test_loss_that_uses_one_of_several_outputs() -> None:
    family = equality_qp(5, 2, duals=True)
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    params = [p.requires_grad_() for p in family.sample(2, 0)]
    x, y = layer(*params)
    both = torch.autograd.grad(x.sum() + y.sum(), params, retain_graph=True)
    first = torch.autograd.grad(x.sum(), params, retain_graph=True)
    second = torch.autograd.grad(y.sum(), params)
    for g, a, b in zip(both, first, second, strict=True):
        torch.testing.assert_close(g, a + b, atol=1e-9, rtol=1e-9)
    assert max(b.abs().max() for b in second) > 1e-3


def test_outputs_that_are_asked_for_twice() -> None:
    """½‖x‖² with x ≥ p: x and the multiplier are p₊, and gradients of all four outputs add up."""
    x, p = cp.Variable(2), cp.Parameter(2)
    above: Any = x >= p
    dual = above.dual_variables[0]
    layer = CvxpyLayer(minimize(0.5 * cp.sum_squares(x), above), [p], [dual, x, dual, x])
    value = torch.tensor([1.5, -2.0], dtype=F64, requires_grad=True)
    found = layer(value)
    for each in found:
        assert (each - torch.tensor([1.5, 0.0], dtype=F64)).abs().max() < 1e-8
    weights = (1.0, 2.0, 4.0, 8.0)
    loss = torch.stack([weight * each[0] for weight, each in zip(weights, found, strict=True)]).sum()
    (gradient,) = torch.autograd.grad(loss, value)
    assert (gradient - torch.tensor([15.0, 0.0], dtype=F64)).abs().max() < 1e-7


def test_backward_of_an_earlier_call_after_a_later_one() -> None:
    """Nothing a call leaves in the layer may reach another call's backward."""
    a, b = case("dense_qp5", 4, 0), case("dense_qp5", 4, 1)
    layer = make_layer(a)
    runs = []
    for c in (a, b):
        params = [p.clone().requires_grad_() for p in c.params]
        (x,) = layer(*params)
        runs.append(((c.weights[0] * x).sum(), params, c))
    for loss, params, c in runs:
        assert errors(torch.autograd.grad(loss, params), c.gradients).max() < 1e-7


@pytest.mark.parametrize("name", ["constant_qp", "portfolio_mu", "dense_qp5", "no_rows"])
@pytest.mark.parametrize("warm_start", [False, True])
def test_repeated_calls_with_changing_data_and_batch_sizes(name: str, warm_start: bool) -> None:
    """Factors and penalties kept from call to call must never answer for other data."""
    layer = make_layer(case(name, 4))
    for batch, seed in ((4, 0), (4, 1), (2, 2), (4, 0), (1, 3), (8, 0)):
        c = case(name, batch, seed)
        values, gradients = evaluate(layer, c, warm_start=warm_start)
        assert errors(values, c.values).max() < 1e-7
        assert errors(gradients, c.gradients).max() < 1e-7


def test_parameters_changed_in_place_between_calls() -> None:
    a, b = case("dense_qp5", 4, 0), case("dense_qp5", 4, 1)
    layer = make_layer(a)
    params = [p.clone() for p in a.params]
    layer(*params)
    for p, new in zip(params, b.params, strict=True):
        p.copy_(new)
    assert errors(layer(*params), b.values).max() < 1e-7


# the problem and the README


@pytest.mark.parametrize("solved_before", [False, True])
def test_problem_is_left_as_found(solved_before: bool) -> None:
    family = scalars()
    params = family.sample(2, 0)
    if solved_before:
        for p, value in zip(family.parameters, params, strict=True):
            p.value = value[0].numpy()
        family.problem.solve(cp.CLARABEL)
    problem: Any = family.problem

    def state() -> list[Any]:
        leaves = [*family.parameters, *family.variables]
        leaves += [v for constraint in problem.constraints for v in constraint.dual_variables]
        cached = vars(problem._cache)
        program = problem._cache.param_prog
        matrices = [] if program is None else [program.reduced_A.reduced_mat, program.reduced_P.reduced_mat]
        copies = [None if m is None else m.toarray().copy() for m in matrices]
        values = [None if v.value is None else np.array(v.value) for v in leaves]
        return [problem.status, problem._solution, {k: id(v) for k, v in cached.items()}, copies, values]

    before, caches = state(), dict(problem._solver_cache)
    layer = CvxpyLayer(problem, family.parameters, family.variables)
    leaves = [p.requires_grad_() for p in params]
    _grads(layer(*leaves), leaves)
    for a, b in zip(before, state(), strict=True):
        np.testing.assert_equal(b, a)
    assert dict(problem._solver_cache) == caches


def test_readme_example_of_cvxpylayers() -> None:
    n, m = 2, 3
    x = cp.Variable(n)
    A = cp.Parameter((m, n))
    b = cp.Parameter(m)
    problem = minimize(0.5 * cp.pnorm(A @ x - b, p=1), x >= 0)
    assert problem.is_dpp()

    cvxpylayer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
    torch.manual_seed(0)
    A_tch = torch.randn(m, n, requires_grad=True)
    b_tch = torch.randn(m, requires_grad=True)

    # solve the problem
    (solution,) = cvxpylayer(A_tch, b_tch)

    # compute the gradient of the sum of the solution with respect to A, b
    solution.sum().backward()

    assert solution.dtype == torch.float32
    A.value, b.value = A_tch.detach().numpy(), b_tch.detach().numpy()
    problem.solve(cp.CLARABEL)
    torch.testing.assert_close(solution.detach(), torch.tensor(x.value).float(), atol=1e-5, rtol=1e-5)
    assert A_tch.grad is not None
    assert b_tch.grad is not None
    assert A_tch.grad.isfinite().all()
    assert b_tch.grad.isfinite().all()


def test_is_a_module() -> None:
    """It can sit in a Sequential-like model: no parameters of its own, survives .to and .train."""
    layer = make_layer(case("portfolio", 4))
    assert isinstance(layer, torch.nn.Module)
    assert list(layer.parameters()) == []
    assert layer.to(torch.float32).train().eval() is layer


def test_parameter_without_effect_has_a_zero_gradient() -> None:
    x, a, c = cp.Variable(2), cp.Parameter(2), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a) + cp.sum(c)), [x >= 0])
    layer = CvxpyLayer(problem, [a, c], [x])
    idle = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    (value,) = layer(torch.ones(2, dtype=torch.float64), idle)
    value.sum().backward()
    assert idle.grad is not None
    assert (idle.grad == 0).all()


def test_layer_first_used_in_inference_mode_can_be_trained() -> None:
    truth = case("portfolio")
    layer = make_layer(truth)
    with torch.inference_mode():
        layer(*truth.params)
    values, gradients = evaluate(layer, truth)
    assert errors(values, truth.values).max() < 1e-7
    assert errors(gradients, truth.gradients).max() < 1e-7


def test_half_precision_comes_back_in_its_dtype() -> None:
    truth = case("portfolio")
    params = [p.bfloat16().requires_grad_() for p in truth.params]
    (value,) = make_layer(truth)(*params)
    value.square().sum().backward()
    assert value.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.bfloat16 for p in params)
