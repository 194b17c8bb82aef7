"""Second derivatives by unrolling: of the folded gradient by finite differences."""

from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from cvxfold import Verdict
from cvxfold.fold import Unrolled
from cvxfold.torch import CvxpyLayer
from problems.cases import case, make_layer
from problems.families import minimize
from problems.marks import sliced
from problems.unrolled import small_data, small_layer


@pytest.mark.parametrize("checkpoint_every", [None, 4])
def test_double_backward(checkpoint_every: int | None) -> None:
    """The second derivative of the solution map: of the folded gradient by finite differences."""
    unrolled = small_layer(backward=Unrolled(150, checkpoint_every=checkpoint_every))
    folded, inputs = small_layer(), small_data(1)
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(v.shape, dtype=v.dtype, generator=generator) for v in inputs]

    def gradient(shift: float) -> Tensor:
        moved = [(v + shift * d).detach().requires_grad_() for v, d in zip(inputs, direction, strict=True)]
        found = torch.autograd.grad(folded(*moved)[0].square().sum(), moved)
        return torch.cat([g.flatten() for g in found])

    first = torch.autograd.grad(unrolled(*inputs)[0].square().sum(), inputs, create_graph=True)
    slope = torch.stack([(g * d).sum() for g, d in zip(first, direction, strict=True)]).sum()
    second = torch.cat([g.flatten() for g in torch.autograd.grad(slope, inputs)])
    step = 1e-5
    expected = (gradient(step) - gradient(-step)) / (2 * step)
    torch.testing.assert_close(second, expected, rtol=1e-5, atol=1e-6)
    assert expected.norm() > 0.1


@pytest.mark.parametrize(
    "name",
    sliced(["semidefinite_program", "multi_label", "powers"], lambda name: name != "semidefinite_program"),
)
def test_double_backward_through_curved_cones(name: str) -> None:
    c = case(name, 1)
    unrolled = make_layer(c, backward=Unrolled(300), on_unconverged="ignore")
    folded = make_layer(c, on_unconverged="ignore")
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in c.params]
    if name == "semidefinite_program":
        direction = [0.5 * (d + d.mT) if d.ndim == 3 and d.shape[1] == d.shape[2] else d for d in direction]

    def loss(outputs: Any) -> Tensor:
        return sum(((w * v).sum() for w, v in zip(c.weights, outputs, strict=True)), torch.zeros(()))

    def gradient(shift: float) -> Tensor:
        moved = [(p + shift * d).requires_grad_() for p, d in zip(c.params, direction, strict=True)]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(folded(*moved)), moved)])

    inputs = [p.clone().requires_grad_() for p in c.params]
    first = torch.autograd.grad(loss(unrolled(*inputs)), inputs, create_graph=True)
    slope = torch.stack([(g * d).sum() for g, d in zip(first, direction, strict=True)]).sum()
    second = torch.cat([g.flatten() for g in torch.autograd.grad(slope, inputs)])
    step = 1e-5
    expected = (gradient(step) - gradient(-step)) / (2 * step)
    assert expected.norm() > 1e-3
    assert (second - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("start", ["solution", "cold"])
def test_a_second_derivative_leaves_the_report_alone(start: Any) -> None:
    """Its pass goes back through the same states, but what arrives there is no adjoint of the layer's."""
    x, c = cp.Variable(3), cp.Parameter(3)
    problem = minimize(cp.sum_squares(x - c), cp.norm(x) <= 0.7)
    layer = CvxpyLayer(problem, [c], [x], backward=Unrolled(200, start=start), on_unconverged="raise")
    inputs = torch.tensor([[1.0, 0.5, -0.3]], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(layer(inputs)[0].square().sum(), inputs, create_graph=True)
    assert layer.report is not None
    before = layer.report.backward
    first.square().sum().backward()
    assert layer.report.backward is before
    assert before is not None
    assert before.verdict == [Verdict.CONVERGED]
