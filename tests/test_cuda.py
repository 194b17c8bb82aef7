"""The same answers on a GPU as on the CPU, with everything staying where it was."""

import pytest
import torch

from cases import case, errors, evaluate
from cone_families import CONE_FAMILIES
from cvxfold.torch import CvxpyLayer
from families import FAMILIES

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


def test_one_layer_serves_both_devices() -> None:
    truth = case("portfolio")
    family = truth.family
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    before, _ = evaluate(layer, truth)
    (there,) = layer(*(p.cuda() for p in truth.params))
    after, _ = evaluate(layer, truth)
    torch.testing.assert_close(there.cpu(), before[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after[0], before[0], rtol=1e-9, atol=1e-9)
