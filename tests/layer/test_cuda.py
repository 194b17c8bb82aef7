"""The same answers on a GPU as on the CPU, with everything staying where it was."""

from typing import Any

import pytest
import torch

import cvxfold
from cvxfold.fold import Unrolled
from cvxfold.studies.allocations import peak_bytes
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate
from problems.cone_families import CONE_FAMILIES
from problems.families import FAMILIES

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(
    "name",
    [
        "dense_qp20",
        "portfolio",
        "mpc",
        "many_cones_duals",
        "least_absolute",
        "semidefinite_program",
        "mixture",
    ],
)
@pytest.mark.parametrize("backward", ["auto", "gmres"])
def test_cuda_meets_the_reference(name: str, backward: str) -> None:
    truth = case(name)
    family = (FAMILIES | CONE_FAMILIES)[name]()
    layer = CvxpyLayer(family.problem, family.parameters, family.variables, backward=backward)  # pyright: ignore[reportArgumentType]
    params = [p.cuda().requires_grad_() for p in truth.params]
    outputs = layer(*params)
    assert all(output.is_cuda for output in outputs)
    loss = torch.stack([(w.cuda() * v).sum() for w, v in zip(truth.weights, outputs, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, params)
    assert all(gradient.is_cuda for gradient in gradients)
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.residual.is_cuda
    assert errors([v.cpu() for v in outputs], truth.values).max() < 1e-7
    assert errors([g.cpu() for g in gradients], truth.gradients).max() < 1e-7


@pytest.mark.parametrize("name", ["dense_qp20", "many_cones", "semidefinite_program", "mixture"])
@pytest.mark.parametrize(
    "backward", ["lfpi", "anderson", "bicgstab", "preconditioned_gmres", Unrolled(400)], ids=str
)
def test_other_ways_to_differentiate_on_cuda(name: str, backward: Any) -> None:
    truth = case(name)
    family = truth.family
    layer = CvxpyLayer(
        family.problem, family.parameters, family.variables, backward=backward, on_unconverged="ignore"
    )
    params = [p.cuda().requires_grad_() for p in truth.params]
    loss = [(w.cuda() * v).sum() for w, v in zip(truth.weights, layer(*params), strict=True)]
    gradients = torch.autograd.grad(torch.stack(loss).sum(), params)
    assert errors([g.cpu() for g in gradients], truth.gradients).max() < 1e-5


def test_analysis_and_memory_forecast_on_cuda() -> None:
    family = FAMILIES["dense_qp20"]()
    params = [p.cuda() for p in family.sample(32, 0)]
    analysis = cvxfold.analyze(CvxpyLayer(family.problem, family.parameters, family.variables), *params)
    layer = CvxpyLayer(
        family.problem, family.parameters, family.variables,
        backward=Unrolled(300), on_unconverged="ignore",
    )  # fmt: skip

    def call() -> None:
        inputs = [p.detach().requires_grad_() for p in params]
        torch.stack([output.sum() for output in layer(*inputs)]).sum().backward()

    call()
    measured = peak_bytes(call, torch.device("cuda"))
    assert analysis["unrolled"].bytes(300) == pytest.approx(measured, rel=0.2)
    assert "cuda" in str(analysis)


def test_one_layer_serves_both_devices() -> None:
    truth = case("portfolio")
    family = truth.family
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    before, _ = evaluate(layer, truth)
    (there,) = layer(*(p.cuda() for p in truth.params))
    after, _ = evaluate(layer, truth)
    torch.testing.assert_close(there.cpu(), before[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after[0], before[0], rtol=1e-9, atol=1e-9)
