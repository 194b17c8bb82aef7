"""Every tensor of the library is made where the parameters are, whatever torch's default device.

The device meta, whose tensors hold no numbers, stands for any other one: what lands there is an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import cvxfold
from problems.box_qp import problems, start, step
from problems.folded import make_folded
from problems.layers import family_of, layer_of
from problems.marks import long
from problems.quadratic import answers, quadratic, sample
from problems.small_layer import data, make_layer


@contextmanager
def elsewhere() -> Iterator[None]:
    """Tensors that nobody places land on the device meta."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def compared(make: Any, params: list[Tensor]) -> Any:
    """The answers of a layer that is made, called and differentiated elsewhere are those of one at home.

    Its report was read there, too.
    """
    expected = answers(make(), params)
    with elsewhere():
        layer = make()
        found = answers(layer, params)
        assert str(layer.report)
        assert layer.report.to_dict()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
    return layer


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "name", ["portfolio_mu", "total_variation", "many_cones_duals", "nearest_correlation", "mixture_duals"]
)
def test_families(name: str) -> None:
    family = family_of(name)
    params = [p.requires_grad_() for p in family.sample(2, 0)]
    compared(lambda: layer_of(family), params)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "options",
    [
        {"backward": "gmres"},
        {"backward": "anderson"},
        {"backward": "lfpi"},
        {"backward": "unrolled"},
        {"proximal": 1e-3},
        {"refine": False, "on_unconverged": "ignore"},
        {"solver": "SCS"},
        {"solver": "CLARABEL"},
    ],
    ids=str,
)
def test_ways(options: dict[str, Any]) -> None:
    compared(lambda: quadratic(**options), sample(3))


@pytest.mark.usefixtures("engine")
def test_instances_without_a_solution_or_a_derivative() -> None:
    *others, A, b = (p.detach() for p in sample(4))
    A[1], b[1] = 0.0, 1.0  # a row 0ᵀx = 1
    b[2] = torch.nan
    params = [p.requires_grad_() for p in (*others, A, b)]
    layer = compared(lambda: quadratic(on_unsolvable="nan"), params)
    assert layer.report.forward.status[1] is cvxfold.Status.INFEASIBLE
    assert layer.report.forward.status[2] is cvxfold.Status.INVALID


@pytest.mark.usefixtures("engine")
def test_second_looks() -> None:
    """Every gradient is folded again and diagnosed: the tolerance is out of reach."""
    compared(lambda: quadratic(backward_tol=1e-300, on_unconverged="ignore"), sample(4))


@pytest.mark.usefixtures("engine")
def test_warm_starts_by_sample() -> None:
    params = [p.detach() for p in sample(4)]
    layer, ids = quadratic(), torch.tensor([3, 1, 4, 5])
    expected = layer(*params, warm_start=True, samples=ids)
    with elsewhere():
        again = quadratic()
        again(*params, warm_start=True, samples=ids)
        found = again(*params, warm_start=True, samples=ids)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("engine")
def test_transforms() -> None:
    layer = quadratic()
    L, *others = (p.detach() for p in sample(3))

    def loss(*one: Tensor) -> Tensor:
        return layer(L, *one)[0].square().sum()

    expected = torch.func.vmap(torch.func.grad(loss))(*others)
    with elsewhere():
        found = torch.func.vmap(torch.func.grad(loss))(*others)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options", [{}, {"backward": "gmres"}, {"backward": "unrolled"}], ids=str)
def test_folded_iterations(options: dict[str, Any]) -> None:
    Q, q = problems()
    q.requires_grad_()

    def gradient() -> Tensor:
        folded = make_folded(step, start=start, batched=True, on_unconverged="ignore", **options)
        (found,) = torch.autograd.grad(folded(Q, q).square().sum(), q)
        assert str(folded.report)
        return found

    expected = gradient()
    with elsewhere():
        assert torch.equal(gradient(), expected)
        if not options:
            assert str(cvxfold.analyze(make_folded(step, start=start, batched=True), Q, q))


@long
@pytest.mark.usefixtures("engine")
def test_studies() -> None:
    params = data(0)
    with elsewhere():
        layer = make_layer()
        assert str(cvxfold.analyze(layer, *params))
        assert str(cvxfold.compare(layer, list(params), finite_differences=1))
