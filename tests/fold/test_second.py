"""Second derivatives of folded iterations against finite differences and closed forms: right, or refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from problems.box_qp import problems, start, step
from problems.fixed_points import EXACT
from problems.folded import make_folded
from problems.marks import long

TIGHT = {"tol": 1e-14, "backward_tol": 1e-12, "probe": False, "on_unconverged": "ignore"}


def cubic(x: Tensor, c: Tensor) -> Tensor:
    """x + x³ = c."""
    return x - 0.2 * (x + x**3 - c)


def point(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def gradient(folded: Any, *params: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad((folded(*params) ** 3).sum(), params, **options)


def central(folded: Any, c: Tensor, width: float = 1e-5) -> Tensor:
    """The Hessian of Σx³ by central differences of gradients, ``(n, n)``."""
    rows = []
    for e in torch.eye(c.numel(), dtype=c.dtype):
        sides = ((c.detach() + s * width * e).requires_grad_() for s in (1, -1))
        up, down = (gradient(folded, side)[0] for side in sides)
        rows.append((up - down) / (2 * width))
    return torch.stack(rows)


@pytest.mark.parametrize("inner", [lambda c: c, torch.sin])
def test_a_loss_that_is_linear_in_x(inner: Any) -> None:
    """The incoming gradient is a constant, and the Hessian is not zero: x'' = −6x x'³ where x + x³ = c."""
    c = point(0.7, -1.2, 2.0)
    folded = make_folded(lambda x, c: cubic(x, inner(c)), start=torch.zeros_like, **TIGHT)
    found: Any = torch.autograd.functional.hessian(lambda c: folded(c).sum(), c.detach())
    x = folded(c).detach()
    slope, curve = (
        torch.func.vmap(torch.func.grad(inner))(c),
        torch.func.vmap(torch.func.grad(torch.func.grad(inner)))(c),
    )
    first = 1 / (1 + 3 * x**2)
    expected = curve * first - 6 * x * slope**2 * first**3
    torch.testing.assert_close(found, expected.detach().diag(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", ["auto", *EXACT])
def test_every_method(method: str) -> None:
    c = point(0.7, -0.3, 2.0)
    M = torch.tensor([[0.3, 0.1, 0.0], [-0.2, 0.1, 0.3], [0.1, 0.0, 0.2]], dtype=torch.float64)

    def update(x: Tensor, c: Tensor) -> Tensor:
        return (M @ x + c).tanh() + 0.1 * c**2

    folded = make_folded(update, start=torch.zeros_like, backward=method, **TIGHT)
    found: Any = torch.autograd.functional.hessian(lambda c: folded(c).pow(3).sum(), c.detach())
    torch.testing.assert_close(found, central(folded, c), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batched", [True, pytest.param(False, marks=long)])
def test_a_batch_with_active_bounds(batched: bool) -> None:
    Q, q = (value.requires_grad_() for value in problems(2, 3))
    folded = make_folded(step, start=start, batched=batched, **TIGHT)
    assert torch.autograd.gradgradcheck(lambda Q, q: folded(Q, q) ** 2, (Q, q))


def test_nested_iterates_and_parameters() -> None:
    """x is a pair, parameters are nested; one of them is computed from another."""
    a, b = point(0.4, -0.8), point(0.5)

    def update(x: Any, p: dict[str, Any]) -> Any:
        (u, v), (a, b) = x, p["both"]
        return (0.3 * (v + a).sin() * b, 0.5 * (u * a).cos().sum().reshape(1) + 0.1 * v.sin() * p["also"])

    begin = (torch.zeros(2).double(), torch.zeros(1).double())
    folded = make_folded(update, start=begin, **TIGHT)

    def solve(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return folded({"both": (a, b), "also": (a * a).sum()})

    assert torch.autograd.gradcheck(solve, (a, b))
    assert torch.autograd.gradgradcheck(solve, (a, b))


def test_more_entries_than_are_factored() -> None:
    """Products with Φ, by differentiating those with Φᵀ."""
    c = torch.linspace(-1, 1, 90, dtype=torch.float64).requires_grad_()

    def update(x: Tensor, c: Tensor) -> Tensor:
        return 0.4 * (x.roll(1) + x**2 / 3).sin() + c

    folded = make_folded(update, start=torch.zeros_like, **TIGHT)
    d = torch.cos(torch.arange(90, dtype=torch.float64))
    (found,) = torch.autograd.grad(gradient(folded, c, create_graph=True), c, d)
    sides = ((c.detach() + s * 1e-5 * d).requires_grad_() for s in (1, -1))
    up, down = (gradient(folded, side)[0] for side in sides)
    torch.testing.assert_close(found, (up - down) / 2e-5, rtol=1e-6, atol=1e-7)


def test_weights_that_the_update_closes_over() -> None:
    """A gradient penalty of a deep equilibrium model reaches its weights."""
    torch.manual_seed(0)
    cell = torch.nn.Linear(3, 3).double()
    with torch.no_grad():
        cell.weight.mul_(0.5)
    c = point(0.3, -0.6, 0.9)
    folded = make_folded(lambda x, c: (cell(x) + c).tanh(), start=torch.zeros_like, **TIGHT)

    def penalty() -> Tensor:
        (on_c,) = gradient(folded, c, create_graph=True)
        return on_c.square().sum()

    found = torch.autograd.grad(penalty(), [cell.weight, cell.bias, c])
    for tensor, got in zip([cell.weight, cell.bias, c], found, strict=True):
        d = torch.cos(torch.arange(tensor.numel(), dtype=torch.float64)).reshape(tensor.shape)
        sides = []
        for s in (1e-5, -1e-5):
            with torch.no_grad():
                tensor += s * d
            sides.append(float(penalty().detach()))
            with torch.no_grad():
                tensor -= s * d
        assert float((got * d).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


def test_the_tangent_by_two_backward_passes() -> None:
    """jvp differentiates the gradient in x̄, in which it is linear."""
    c, d = point(0.7, -1.2), point(1.0, 2.0).detach()
    folded = make_folded(cubic, start=torch.zeros_like, **TIGHT)
    x: Any
    x, tangent = torch.autograd.functional.jvp(folded, c.detach(), d)
    torch.testing.assert_close(tangent, d / (1 + 3 * x**2))


def test_an_iteration_inside_of_another() -> None:
    """x = ½ sin(y(x) + c) with y + y³ = x, itself folded."""
    c = point(0.4, 1.1)
    inner = make_folded(cubic, start=torch.zeros_like, **TIGHT)
    nested = make_folded(lambda x, c: 0.5 * (inner(x) + c).sin(), start=torch.zeros_like, **TIGHT)
    torch.testing.assert_close(gradient(nested, c)[0], gradient(nested, c, create_graph=True)[0].detach())
    assert torch.autograd.gradcheck(nested, (c,))


def test_single_precision() -> None:
    c = point(0.7, -1.2, 2.0)
    single = make_folded(cubic, start=torch.zeros_like)
    found: Any = torch.autograd.functional.hessian(lambda c: single(c).sum(), c.detach().float())
    double = make_folded(cubic, start=torch.zeros_like, **TIGHT)
    expected: Any = torch.autograd.functional.hessian(lambda c: double(c).sum(), c.detach())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_third_derivatives_are_refused() -> None:
    c = point(0.7, -1.2)
    folded = make_folded(cubic, start=torch.zeros_like, **TIGHT)
    (first,) = torch.autograd.grad(folded(c).sum(), c, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), c, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        torch.autograd.grad(second.sum(), c)


def test_what_cannot_be_right_is_refused() -> None:
    """Never a silent zero, also where the loss is linear in x."""
    c = point(0.7, -1.2)
    computed = c.sin()
    folded = make_folded(lambda x: cubic(x, computed), start=torch.zeros(2).double(), **TIGHT)
    for on in (c, computed):
        (first,) = torch.autograd.grad(folded().sum(), on, create_graph=True)
        torch.testing.assert_close(first.detach(), gradient_of_cubic(folded().detach(), c, on is c))
        with pytest.raises(NotImplementedError, match="double backward"):
            torch.autograd.grad(first.sum(), on)
    approximate = make_folded(cubic, start=torch.zeros_like, backward="jacobian_free", **TIGHT)
    (first,) = torch.autograd.grad(approximate(c).sum(), c, create_graph=True)
    with pytest.raises(NotImplementedError, match="approximation"):
        torch.autograd.grad((first + c**2).sum(), c)


def gradient_of_cubic(x: Tensor, c: Tensor, through_sine: bool) -> Tensor:
    return (c.detach().cos() if through_sine else 1) / (1 + 3 * x**2)
