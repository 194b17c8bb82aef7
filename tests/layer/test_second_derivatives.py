"""Second derivatives of the folded gradient: by finite differences, by every route of PyTorch's."""

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from cvxfold import Verdict
from cvxfold.torch import CvxpyLayer
from problems.cases import case, make_layer
from problems.families import minimize
from problems.layers import ALL
from problems.marks import ONE, long, needs_lanes
from problems.small_layer import data
from problems.small_layer import make_layer as small_layer

pytestmark = pytest.mark.usefixtures("engine")

KINKED = "ball_least_squares"  # an inactive cone whose epigraph variable is free: the warning is tested below
FEW = ("dense_qp5_duals", "robust_portfolio", "semidefinite_program", "multi_label", "powers_duals")
F64 = torch.float64


def gradients_of(loss: Callable[..., Tensor], values: Sequence[Tensor], create_graph: bool = False) -> Any:
    return torch.autograd.grad(
        loss(*values), values, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values])


def second_derivative(
    loss: Callable[..., Tensor], values: Sequence[Tensor], along: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Of a loss along a direction: by differentiating the gradient, and by its finite differences."""
    leaves = [value.detach().clone().requires_grad_() for value in values]
    first = gradients_of(loss, leaves, create_graph=True)
    slope = torch.stack([(one * direction).sum() for one, direction in zip(first, along, strict=True)]).sum()
    found = gradients_of(lambda *_: slope, leaves)

    def at(shift: float) -> Tensor:
        moved = [
            (value + shift * direction).detach().requires_grad_()
            for value, direction in zip(values, along, strict=True)
        ]
        return flat(gradients_of(loss, moved))

    h = 1e-5
    return flat(found), (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        *(pytest.param("lanes", name, marks=needs_lanes) for name in FEW),
        *(("tensors", name) for name in FEW),
        *(pytest.param(ONE, name, marks=long) for name in ALL if name not in (KINKED, *FEW)),
    ],
    indirect=["engine"],
)
def test_families(name: str) -> None:
    """All cones: every instance's second derivative along a direction in all parameters at once.

    Beyond the first derivative the engines share the code.
    """
    c, generator = case(name, 2), torch.Generator().manual_seed(1)
    layer = make_layer(c)
    along = []
    for p in c.params:
        direction = torch.randn(p.shape, dtype=p.dtype, generator=generator) * p.abs().clamp_min(0.1)
        square = p.ndim == 3 and p.shape[1] == p.shape[2]
        symmetric = square and torch.allclose(p, p.mT)
        along.append(0.5 * (direction + direction.mT) if symmetric else direction)

    def loss(*params: Tensor) -> Tensor:
        outputs = layer(*params)
        terms = [(w * v).sum() + 0.5 * v.square().sum() for w, v in zip(c.weights, outputs, strict=True)]
        return torch.stack(terms).sum()

    found, expected = second_derivative(loss, c.params, along)
    assert expected.norm() > 1e-3
    assert (found - expected).norm() < 1e-6 * expected.norm()


FAST = pytest.mark.parametrize(
    "fast_mode", [True, pytest.param(False, marks=long)], ids=["in a random direction", "entry by entry"]
)


@FAST
def test_gradgradcheck(fast_mode: bool) -> None:
    layer, (A, b) = small_layer(), data(0, 2 if fast_mode else 1)

    def solution(A: Tensor, b: Tensor) -> Tensor:
        return layer(A, b)[0]

    assert torch.autograd.gradgradcheck(solution, (A, b), atol=1e-6, rtol=1e-5, fast_mode=fast_mode)


@FAST
def test_gradgradcheck_of_what_the_batch_shares(fast_mode: bool) -> None:
    """The summed gradient of a shared parameter, and the loss gradients' own."""
    layer, (A, b) = small_layer(), data(0, 2)
    shared = A[0].detach().clone().requires_grad_()

    def solution(A: Tensor, b: Tensor) -> Tensor:
        return layer(A, b)[0]

    assert torch.autograd.gradgradcheck(solution, (shared, b), atol=1e-6, rtol=1e-5, fast_mode=fast_mode)


def test_geometric_program() -> None:
    x, y, a = cp.Variable(pos=True), cp.Variable(pos=True), cp.Parameter(2, pos=True)
    problem = minimize(1 / (x * y), x + a[0] * y <= a[1], x <= 3)
    layer = CvxpyLayer(problem, [a], [x, y], gp=True)

    def loss(a: Tensor) -> Tensor:
        x, y = layer(a)
        return (x * y.square()).sum()

    # x = min(a₁/2, 3), y = (a₁ − x) / a₀
    a_value = torch.tensor([[0.7, 2.0]], dtype=F64)
    found, _ = second_derivative(loss, [a_value], [torch.tensor([[1.0, 0.0]], dtype=F64)])
    a0, a1 = a_value[0]
    expected = torch.stack([6 * a1**3 / 8 / a0**4, -6 * a1**2 / 8 / a0**3])
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("reverse", "forward"),
        ("reverse", "reverse"),
        pytest.param("forward", "forward", marks=long),
        pytest.param("forward", "reverse", marks=long),
    ],
)
def test_hessians_by_every_route(inner: str, outer: str) -> None:
    layer, (A, b) = small_layer(), [value.detach() for value in data(0)]
    ways = {"forward": torch.func.jacfwd, "reverse": torch.func.jacrev}

    def loss(b: Tensor) -> Tensor:
        return layer(A[0], b)[0].square().sum()

    found = ways[outer](ways[inner](loss))(b[0])
    torch.testing.assert_close(found, hessian_by_differences(loss, b[0]), rtol=1e-6, atol=1e-8)


@long
@pytest.mark.parametrize("way", ["hessian", "reverse"])
def test_hessians_of_a_mapped_batch(way: str) -> None:
    """One for each instance, under ``torch.func.vmap``."""
    layer, (A, b) = small_layer(), [value.detach() for value in data(0)]

    def loss(A: Tensor, b: Tensor) -> Tensor:
        return layer(A, b)[0].square().sum()

    twice = torch.func.hessian(loss, argnums=1)
    if way == "reverse":
        twice = torch.func.jacrev(torch.func.jacrev(loss, argnums=1), argnums=1)
    found = torch.func.vmap(twice)(A, b)
    shared = torch.func.vmap(twice, in_dims=(None, 0))(A[0], b)
    for one, other, of_A, of_b in zip(found, shared, A, b, strict=True):
        expected = hessian_by_differences(lambda b, A=of_A: loss(A, b), of_b)
        torch.testing.assert_close(one, expected, rtol=1e-6, atol=1e-8)
        expected = hessian_by_differences(lambda b: loss(A[0], b), of_b)
        torch.testing.assert_close(other, expected, rtol=1e-6, atol=1e-8)


def hessian_by_differences(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    h, gradient = 1e-5, torch.func.grad(loss)
    rows = [(gradient(at + h * e) - gradient(at - h * e)) / (2 * h) for e in torch.eye(len(at), dtype=F64)]
    return torch.stack(rows)


def test_single_precision() -> None:
    layer, (A, b) = small_layer(), [value.detach() for value in data(0)]
    along = torch.ones_like(b)

    def product(A: Tensor, b: Tensor) -> Tensor:
        leaf = b.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(A, leaf)[0].square().sum(), leaf, create_graph=True)
        return torch.autograd.grad((first * along.to(first.dtype)).sum(), leaf)[0]

    found, expected = product(A.float(), b.float()), product(A.float().double(), b.float().double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_report_is_the_first_pass_s() -> None:
    """Of a linear loss: that of others goes back through the layer once more."""
    layer, (A, b) = small_layer(), data(0)
    A = A.detach().requires_grad_()
    first, _ = torch.autograd.grad(layer(A, b)[0].sum(), (A, b), create_graph=True)
    before, calls = layer.report.backward, list[Any]()
    layer.on_report(calls.append)
    first.square().sum().backward()
    assert layer.report.backward is before
    assert before is not None
    assert before.verdict == [Verdict.CONVERGED] * len(b)
    assert calls == []


def test_a_kink_of_the_gradient_is_said() -> None:
    """½(x − c)², x ≥ 0 at c = 0: x² has a gradient there, whose own has two."""
    x, c = cp.Variable(1), cp.Parameter(1)
    layer = CvxpyLayer(minimize(0.5 * cp.sum_squares(x - c), x >= 0), [c], [x])
    leaf = torch.zeros(1, 1, dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(layer(leaf)[0].square().sum(), leaf, create_graph=True)
    with pytest.warns(UserWarning, match="degenerate"):
        torch.autograd.grad(first.sum(), leaf)


def test_an_epigraph_s_variable_that_is_free_is_no_fault(engine: str) -> None:
    """Inside of the ball x is that of least squares, and any number up to the radius bounds the norm."""
    of = case("ball_least_squares", 8)
    layer, leaves = make_layer(of, engine=engine), [p.detach().requires_grad_() for p in of.params]
    A, b, C, d, r = leaves
    (x,) = layer(*leaves)
    inside = (torch.einsum("bij,bj->bi", C, x) - d).norm(dim=1) < 0.9 * r
    assert inside.any()
    (first,) = torch.autograd.grad(0.5 * x.square().sum(), b, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), b)  # a warning would be an error
    inverse = torch.linalg.pinv(A.detach()[inside])
    right = (inverse.mT @ inverse).sum(-1)
    torch.testing.assert_close(second[inside], right, atol=1e-9, rtol=1e-9)


def test_instances_without_a_solution_have_zeros() -> None:
    x, c = cp.Variable(1), cp.Parameter(1)
    layer = CvxpyLayer(minimize(0.5 * cp.sum_squares(x), x >= c**1, x <= 2), [c], [x], on_unsolvable="nan")
    leaf = torch.tensor([[1.0], [3.0]], dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(layer(leaf)[0].nansum() ** 3, leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), leaf)
    torch.testing.assert_close(second, torch.tensor([[6.0], [0.0]], dtype=F64))


def test_a_parameter_changed_in_place_is_an_error(engine: str) -> None:
    if engine != "lanes":
        pytest.skip("it keeps the data, and needs the parameters no more")
    layer, (A, b) = small_layer(), data(0)
    values = b.detach().clone()
    (found,) = layer(A, values)
    values.add_(1.0)
    with pytest.raises(RuntimeError, match="inplace"):
        torch.autograd.grad(found.square().sum(), A, create_graph=True)


def test_beside_a_parameter_made_in_inference_mode() -> None:
    x, c, h = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    layer = CvxpyLayer(minimize(cp.norm(x - c) + cp.sum_squares(x), x <= h), [c, h], [x])
    with torch.inference_mode():
        limit = torch.tensor(5.0, dtype=F64)
    at = torch.tensor([3.0, 4.0], dtype=F64)
    found, expected = second_derivative(lambda c: layer(c, limit)[0].sum(), [at], [torch.ones(2, dtype=F64)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_third_derivatives_are_refused() -> None:
    layer, (A, b) = small_layer(), data(0)
    (first,) = torch.autograd.grad(layer(A.detach(), b)[0].pow(3).sum(), b, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), b, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(second.sum(), b)
