"""The layer in graphs: ``torch.compile`` without a break, ``torch.export``."""

import copy
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchRuntimeError, Unsupported

import cvxfold
from cvxfold.layer import recall
from cvxfold.torch import CvxpyLayer
from problems.families import minimize
from problems.marks import long, sliced
from problems.small_layer import Model, data, make_layer
from problems.whole_page import run_page

pytestmark = pytest.mark.usefixtures("engine", "afresh")
BACKENDS = sliced(["eager", "aot_eager", "inductor"], lambda backend: backend != "aot_eager")


@pytest.fixture
def afresh() -> None:
    """Nothing has been compiled."""
    torch._dynamo.reset()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def loss_and_gradients(model: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Σ x² over all variables, and its gradients."""
    loss = torch.stack([(x.abs() ** 2).sum() for x in model(*inputs)]).sum()
    wanted = [value for value in inputs if value.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, wanted)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_in_one_graph(backend: str) -> None:
    model, features = Model(), torch.randn(5, 3, dtype=torch.float64)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(model(features).square().sum(), parameters)
    assert torch._dynamo.explain(model)(features).graph_break_count == 0
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    output = compiled(features)
    close(output, model(features))
    for found, true in zip(torch.autograd.grad(output.square().sum(), parameters), expected, strict=True):
        close(found, true)
    close(compiled(features[:4]), model(features[:4]))
    with torch.no_grad():
        close(compiled(features), model(features))


def box(**options: Any) -> tuple[CvxpyLayer, list[Tensor]]:
    """½‖x − c‖² with Gx ≤ h: x and the multipliers; c batched, h single, G fixed and in single precision."""
    x, c, G, h = cp.Variable(3), cp.Parameter(3), cp.Parameter((2, 3)), cp.Parameter(2)
    rows: Any = G @ x <= h
    layer = CvxpyLayer(
        minimize(0.5 * cp.sum_squares(x - c), rows), [c, G, h], [x, *rows.dual_variables], **options
    )
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    G = torch.randn(2, 3, generator=generator)
    return layer, [c.requires_grad_(), G, torch.tensor([-0.5, -0.1], dtype=torch.float64, requires_grad=True)]


@pytest.mark.parametrize("shape", ["batched", "one"])
def test_shared_parameters_duals_and_several_dtypes(shape: str) -> None:
    layer, inputs = box()
    if shape == "one":
        inputs[0] = inputs[0][0].detach().requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for found, true in zip(compiled(*inputs), layer(*inputs), strict=True):
        assert found.dtype == true.dtype
        close(found, true)
    pairs = zip(loss_and_gradients(compiled, inputs), loss_and_gradients(layer, inputs), strict=True)
    for found, true in pairs:
        close(found, true)


def test_complex_numbers() -> None:
    z, p = cp.Variable(3, complex=True), cp.Parameter(3, complex=True)
    cost = cp.sum_squares(cp.real(z - p)) + cp.sum_squares(cp.imag(z - p))
    layer = CvxpyLayer(minimize(cost, cp.abs(z) <= 1), [p], [z])
    value = 2 * torch.randn(5, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    true = value.clone().requires_grad_()
    projected = true / true.abs().clamp_min(1.0)
    (weights,) = torch.autograd.grad((projected.real + 2 * projected.imag).sum(), true)
    given = value.clone().requires_grad_()
    (found,) = torch.compile(layer, backend="aot_eager", fullgraph=True)(given)
    torch.testing.assert_close(found, projected, rtol=1e-7, atol=1e-8)
    (gradient,) = torch.autograd.grad((found.real + 2 * found.imag).sum(), given)
    torch.testing.assert_close(gradient, weights, rtol=1e-6, atol=1e-6)


def test_operators_keep_pytorchs_rules() -> None:
    """Schema, fake kernel and compilation, by ``torch.library.opcheck``."""
    import cvxfold.torch.operators  # noqa: F401

    layer, inputs = box()
    plain = [value.detach() for value in inputs]
    torch.library.opcheck(torch.ops.cvxfold.solve.default, (plain, layer._number, False))
    with pytest.raises(RuntimeError, match="leaves_state=True"):
        torch.ops.cvxfold.solve(inputs, layer._number, False)
    with torch.no_grad():
        *_, state = torch.ops.cvxfold.solve(inputs, layer._number, True)
        bars = [torch.ones(4, 3, dtype=torch.float64), torch.ones(4, 2, dtype=torch.float64)]
        arguments = (plain, state, bars, layer._number, [True, False, True])
        torch.library.opcheck(torch.ops.cvxfold.gradients.default, arguments)


def test_an_exported_model() -> None:
    model, features = Model(), torch.randn(5, 3, dtype=torch.float64)
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(model, (features,), dynamic_shapes={"features": {0: batch}}).module()
    close(exported(features), model(features))
    close(exported(features[:3]), model(features[:3]))


def test_what_is_solved_again_for_its_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = box()
    expected = loss_and_gradients(layer, inputs)
    monkeypatch.setattr(recall, "MOST_CALLS", 0)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for found, true in zip(loss_and_gradients(compiled, inputs), expected, strict=True):
        close(found, true)


def test_copies_and_several_layers_are_their_own() -> None:
    layer, inputs = box()
    other = copy.deepcopy(layer)
    third, _ = box(tol=1e-6)
    assert len({layer._number, other._number, third._number}) == 3

    def both(*inputs: Tensor) -> tuple[Tensor, ...]:
        return layer(*inputs)[0], other(*inputs)[1]

    for found, true in zip(
        torch.compile(both, backend="eager", fullgraph=True)(*inputs), both(*inputs), strict=True
    ):
        close(found, true)
    assert layer.report is not other.report


@long
def test_calls_that_a_graph_has_no_words_for_break_it() -> None:
    layer, (A, b) = make_layer(), data(0)
    expected = layer(A, b)[0]

    def compiled(**named: Any) -> Any:
        return torch.compile(lambda A, b: layer(A, b, **named)[0] + 1, backend="eager")

    close(compiled(warm_start=True)(A, b), expected + 1)
    close(compiled(solver_args={"eps": 1e-9})(A, b), expected + 1)
    with pytest.raises(Unsupported):
        torch.compile(lambda A, b: layer(A, b, warm_start=True), backend="eager", fullgraph=True)(A, b)
    unrolled = make_layer(backward="unrolled")
    torch.testing.assert_close(
        torch.compile(lambda A, b: unrolled(A, b)[0], backend="eager")(A, b), expected, rtol=1e-6, atol=1e-6
    )


def test_bad_input() -> None:
    layer, (A, b) = make_layer(), data(0)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with pytest.raises(TorchRuntimeError, match="Invalid parameter shape for parameter 1"):
        compiled(A, b[:, :5])
    with pytest.raises(ValueError, match="expected finite values"):
        compiled(A, b * torch.nan)
    import cvxfold.torch.operators  # noqa: F401

    with pytest.raises(RuntimeError, match="no layer has the number -1 in this process"):
        torch.ops.cvxfold.solve([A, b], -1, False)


def test_warnings_and_reports() -> None:
    layer, inputs = box()
    told = []
    layer.on_report(told.append)
    loss_and_gradients(torch.compile(layer, backend="aot_eager", fullgraph=True), inputs)
    assert [len(report.forward.status) for report in told] == [4, 4]
    assert told[1].backward is not None
    assert told[1].backward.converged.all()
    layer, (A, b) = make_layer(max_iters=1, refine=False), data(0)
    with pytest.warns(cvxfold.ConvergenceWarning, match="did not reach the tolerance"):
        torch.compile(layer, backend="eager", fullgraph=True)(A, b)


@long
def test_second_derivatives_are_refused() -> None:
    import cvxfold.torch.operators  # noqa: F401

    layer, (A, b) = make_layer(), data(0)
    (gradient,) = torch.autograd.grad(
        torch.ops.cvxfold.solve([A, b], layer._number, True)[0].sum(), b, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="double backward"):
        torch.autograd.grad(gradient.sum(), b)


@long
def test_the_page() -> None:
    run_page("compile.md")
