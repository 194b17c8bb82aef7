"""The layer under autograd's and ``torch.func``'s transformations: right, or a clear error."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cvxfold.engines.tensors.jacobian import FactoredJacobian
from problems.small_layer import data, make_layer

pytestmark = pytest.mark.usefixtures("engine")


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_gradients_twice_on_one_graph() -> None:
    inputs = data(0)
    loss = make_layer()(*inputs)[0].square().sum()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(loss, inputs), strict=True):
        close(a, b)


def test_an_earlier_call_can_be_differentiated_later() -> None:
    layer, inputs, others = make_layer(), data(0), data(1, batch=5)
    expected = torch.autograd.grad(layer(*inputs)[0].square().sum(), inputs)
    early = layer(*inputs)[0].square().sum()
    layer(*others)[0].sum().backward()
    for a, b in zip(torch.autograd.grad(early, inputs), expected, strict=True):
        close(a, b)


def jacobian(A: Tensor, b: Tensor) -> Tensor:
    """∂x/∂b ``(4, 6)`` of one instance, by plain backward passes."""
    b = b.detach().requires_grad_()
    (x,) = make_layer()(A.detach(), b)
    return torch.stack([torch.autograd.grad(entry, b, retain_graph=True)[0] for entry in x])


def test_vmap_is_the_batch() -> None:
    layer, (A, b) = make_layer(), data(0)
    (expected,) = layer(A, b)
    close(torch.func.vmap(lambda A, b: layer(A, b)[0])(A, b), expected)
    close(torch.func.vmap(lambda b: layer(A[0], b)[0])(b), layer(A[0], b)[0])
    nested = torch.func.vmap(torch.func.vmap(lambda A, b: layer(A, b)[0], (None, 0)), (0, None))(A, b)
    assert nested.shape == (3, 3, 4)
    close(nested.diagonal().mT, expected)


def test_vmap_over_a_batched_call() -> None:
    layer, (A, b) = make_layer(), data(0)
    shifted = torch.stack([b, b + 1])
    found = torch.func.vmap(lambda b: layer(A, b)[0])(shifted)
    close(found[1], layer(A, b + 1)[0])


def test_backward_through_vmap() -> None:
    layer, inputs = make_layer(), data(0)
    expected = torch.autograd.grad(layer(*inputs)[0].square().sum(), inputs)
    mapped = torch.func.vmap(lambda A, b: layer(A, b)[0])(*inputs)
    for a, b in zip(torch.autograd.grad(mapped.square().sum(), inputs), expected, strict=True):
        close(a, b)


def test_grad_and_its_vmap() -> None:
    layer, (A, b) = make_layer(), data(0)
    (expected,) = torch.autograd.grad(layer(A, b)[0].square().sum(), b)

    def loss(A: Tensor, b: Tensor) -> Tensor:
        return layer(A, b)[0].square().sum()

    close(torch.func.grad(loss, argnums=1)(A, b), expected)
    close(torch.func.vmap(torch.func.grad(loss, argnums=1))(A, b), expected)
    (of_shared,) = torch.autograd.grad(layer(A[0], b)[0].square().sum(), A)
    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(A[0], b)
    close(per_sample.sum(0), of_shared[0])


def test_jacrev_and_its_vmap() -> None:
    layer, (A, b) = make_layer(), data(0)
    expected = torch.stack([jacobian(A[i], b[i]) for i in range(3)])

    def solution(A: Tensor, b: Tensor) -> Tensor:
        return layer(A, b)[0]

    close(torch.func.jacrev(solution, argnums=1)(A[1], b[1]), expected[1])
    close(torch.func.vmap(torch.func.jacrev(solution, argnums=1))(A, b), expected)
    close(torch.autograd.functional.jacobian(lambda b: solution(A[1], b), b[1]), expected[1])


def test_the_rows_of_a_jacobian_share_one_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, (A, b) = make_layer(engine="tensors"), data(0)
    (x,) = layer(A, b)
    made = []
    original = FactoredJacobian.at

    def counted(*args: Any) -> FactoredJacobian:
        made.append(1)
        return original(*args)

    monkeypatch.setattr(FactoredJacobian, "at", counted)
    for entry in x.flatten():
        torch.autograd.grad(entry, b, retain_graph=True)
    assert len(made) == 1


def test_functional_call() -> None:
    model = torch.nn.ModuleList([make_layer()])
    A, b = data(0)
    close(torch.func.functional_call(model[0], {}, (A, b))[0], model[0](A, b)[0])


def test_bad_values_under_vmap_are_an_error() -> None:
    layer, (A, b) = make_layer(), data(0)
    broken = b.detach().clone()
    broken[1, 2] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        torch.func.vmap(lambda A, b: layer(A, b)[0])(A, broken)


def test_create_graph_does_not_disturb_other_terms() -> None:
    layer, (A, b) = make_layer(), data(0)
    penalty, solved = b.pow(3).sum(), layer(A, b)[0].sum()
    (gradient,) = torch.autograd.grad(penalty + 0 * solved.detach(), b, create_graph=True)
    close(torch.autograd.grad(gradient.sum(), b)[0], 6 * b.detach())
    (both,) = torch.autograd.grad(penalty + solved, b, create_graph=True)
    (plain,) = torch.autograd.grad(b.pow(3).sum() + layer(A, b)[0].sum(), b)
    close(both.detach(), plain)


def test_mapped_backward_passes_are_refused() -> None:
    layer, (A, b) = make_layer(), data(0)
    with pytest.raises(NotImplementedError, match="jacrev"):
        torch.autograd.functional.jacobian(
            lambda b: layer(A[0].detach(), b)[0], b[0].detach(), vectorize=True
        )
