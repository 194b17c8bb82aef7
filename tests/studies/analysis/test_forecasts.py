"""What analyze() forecasts, against what then happens: iterations, time, memory, the depth of unrolling."""

import gc
import math
import sys

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold import Verdict
from cvxfold.fold import GMRES, Unrolled
from cvxfold.layer.answer import Answer
from cvxfold.layer.options import EngineName
from cvxfold.layer.shortcut import ShortCall
from cvxfold.studies.allocations import peak_bytes
from cvxfold.torch import CvxpyLayer
from problems.cases import case, evaluate, make_layer
from problems.families import minimize
from problems.layers import QUICK, VARIED, family_of, quiet_layer_of
from problems.marks import ENGINES, long, sliced
from problems.processes import run_python


@pytest.mark.parametrize("name", sliced(VARIED, lambda name: name not in QUICK))
def test_forecasts_for_a_loss_that_is_given(name: str) -> None:
    """With the loss known the forecasts are exact, but for rounding."""
    c = case(name, 4)

    def loss(*outputs: Tensor) -> Tensor:
        return torch.stack([(w * o).sum() for w, o in zip(c.weights, outputs, strict=True)]).sum()

    analysis = cvxfold.analyze(make_layer(c), *c.params, loss=loss, costs=False)
    for method, slack in (("lfpi", 1), ("gmres", 1), ("anderson", 2), ("bicgstab", 1)):
        layer = make_layer(c, backward=method, backward_tol=1e-6)
        evaluate(layer, c)
        taken = layer.report.backward.iterations.double()
        forecast = analysis[method].iterations
        assert ((forecast - taken).abs() <= slack + 0.1 * taken).all(), (method, forecast, taken)


def test_the_depth_that_is_recommended_serves() -> None:
    c = case("dense_qp20", 8)
    analysis = cvxfold.analyze(make_layer(c), *c.params, tol=1e-5, costs=False)
    layer = make_layer(c, backward=Unrolled(int(1.2 * analysis.unroll_depth)), on_unconverged="ignore")
    evaluate(layer, c)
    assert layer.report.backward.residual.max() < 1e-5
    layer = make_layer(c, backward=Unrolled(int(0.5 * analysis.unroll_depth)), on_unconverged="ignore")
    evaluate(layer, c)
    assert layer.report.backward.residual.max() > 1e-5


@pytest.mark.parametrize(
    "name",
    sliced(
        ["dense_qp20", "robust_portfolio", "semidefinite_program", "multi_label"],
        lambda name: name in ("semidefinite_program", "multi_label"),
    ),
)
def test_the_forward_tolerance_that_is_recommended_serves(name: str) -> None:
    from problems.cases import errors

    c = case(name, 16)
    tol = cvxfold.analyze(make_layer(c), *c.params, tol=1e-5, costs=False).recommended_tol
    layer = make_layer(c, refine=False, tol=tol, on_unconverged="ignore")
    _, gradients = evaluate(layer, c)
    assert errors(gradients, c.gradients).max() < 1e-4
    assert tol > 1e-11, "a tolerance that is not of this world would serve as well"


def test_a_kink_that_does_no_harm_asks_for_no_tolerance_of_its_own() -> None:
    """x₂ ≥ 0 is weakly active, but nothing that c moves depends on it."""
    x, c = cp.Variable(2), cp.Parameter()
    layer = CvxpyLayer(minimize(cp.square(x[0] - c) + cp.square(x[1]), x >= 0), [c], [x])
    analysis = cvxfold.analyze(layer, torch.tensor([1.0, 2.0], dtype=torch.float64), costs=False)
    assert analysis.verdict == [Verdict.CONVERGED] * 2
    assert analysis.margin.max() < 1e-9
    assert 1e-9 < analysis.recommended_tol <= 1e-3


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        pytest.param(*each, marks=long)
        for each in (("dense_qp20", 32), ("mpc", 8), ("nearest_correlation", 32))
    ],
)
def test_memory_of_unrolling_is_forecast(name: str, batch: int) -> None:
    family = family_of(name)
    params = list(family.sample(batch, 0))
    forecast = cvxfold.analyze(quiet_layer_of(family), *params)["unrolled"]
    for depth in (50, 300):
        layer = quiet_layer_of(family, backward=Unrolled(depth))

        def call(layer: CvxpyLayer = layer) -> None:
            inputs = [p.detach().requires_grad_() for p in params]
            torch.stack([o.sum() for o in layer(*inputs)]).sum().backward()

        call()
        measured = peak_bytes(call, torch.device("cpu"))
        assert forecast.bytes(depth) == pytest.approx(measured, rel=0.2)
    assert forecast.bytes(600) > 1.5 * forecast.bytes(300)
    assert forecast.seconds(600) > forecast.seconds(50) > 0


@long
def test_memory_where_some_parameters_need_no_gradient() -> None:
    family = family_of("dense_qp20")
    params = list(family.sample(16, 0))
    needed = [number == 1 for number in range(len(params))]  # q alone: M and A are not on the tape

    def inputs() -> list[Tensor]:
        return [p.detach().requires_grad_(need) for p, need in zip(params, needed, strict=True)]

    forecast = cvxfold.analyze(quiet_layer_of(family), *inputs())["unrolled"]
    layer = quiet_layer_of(family, backward=Unrolled(200))

    def call() -> None:
        torch.stack([o.sum() for o in layer(*inputs())]).sum().backward()

    call()
    assert forecast.bytes(200) == pytest.approx(peak_bytes(call, torch.device("cpu")), rel=0.2)
    assert forecast.bytes(200) < 0.8 * cvxfold.analyze(quiet_layer_of(family), *params)["unrolled"].bytes(200)


@long
def test_folding_costs_less_memory_than_unrolling_to_the_same_accuracy() -> None:
    c = case("dense_qp20", 8)
    analysis = cvxfold.analyze(make_layer(c), *c.params)
    assert analysis["lfpi"].bytes() < 0.5 * analysis["unrolled"].bytes()
    assert analysis["lfpi"].bytes(10_000) < 0.05 * analysis["unrolled"].bytes(10_000)
    assert analysis.recommended_method in {"auto", "gmres", "lfpi"}


def test_a_loss_without_an_adjoint_is_never_forecast_to_converge() -> None:
    """x₂ is not unique: LFPI's residual stays, and the forecasts are infinite."""
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.square(x[0] - c[0]), x[1] >= -1, x[1] <= 1), [c], [x])
    analysis = cvxfold.analyze(
        layer, torch.tensor([1.0, 1.0], dtype=torch.float64), loss=lambda x: x.sum(), costs=False
    )
    assert analysis.verdict == [Verdict.DEGENERATE]
    assert math.isinf(analysis.unroll_depth)
    assert math.isinf(analysis["gmres"].most)
    assert "never" in str(analysis)


def hard_linear_program() -> tuple[CvxpyLayer, list[Tensor]]:
    """ρ(Φ) is 0.9997 to 0.9999, and GMRES needs several cycles."""
    generator = torch.Generator().manual_seed(7)
    n, m, batch = 60, 120, 3
    x, c, G, h = cp.Variable(n), cp.Parameter(n), cp.Parameter((m, n)), cp.Parameter(m)
    rows = torch.randn(batch, m, n, dtype=torch.float64, generator=generator)
    multipliers = 0.1 + torch.rand(batch, m, 1, dtype=torch.float64, generator=generator)
    bounds = 1 + torch.rand(batch, m, dtype=torch.float64, generator=generator)
    layer = CvxpyLayer(minimize(c @ x, G @ x <= h), [c, G, h], [x], on_unconverged="ignore")
    return layer, [-(rows.mT @ multipliers).squeeze(-1), rows, bounds]


@long
@pytest.mark.parametrize("restart", [20, 100])
def test_restarts_of_gmres_are_forecast(restart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvxfold.fold import METHODS

    monkeypatch.setitem(METHODS, "gmres", GMRES(restart=restart))
    layer, params = hard_linear_program()

    def loss(x: Tensor) -> Tensor:
        return x.square().sum()

    forecast = cvxfold.analyze(layer, *params, loss=loss, costs=False)["gmres"].iterations
    source = layer.source
    assert source is not None
    other = CvxpyLayer(
        source.problem, source.parameters, source.variables,
        backward="gmres", backward_tol=1e-6, backward_max_iters=20_000, on_unconverged="ignore",
    )  # fmt: skip
    loss(*other(*(p.requires_grad_() for p in params))).backward()
    assert other.report is not None
    assert other.report.backward is not None
    taken = other.report.backward.iterations.double()
    assert taken.max() > restart
    torch.testing.assert_close(forecast, taken, rtol=0.15, atol=0)


@long
def test_the_loss_of_the_last_backward_pass_is_the_one_that_is_analyzed() -> None:
    """No loss is given, yet the forecasts are exact: the gradient that was taken tells."""
    c = case("dense_qp20", 8)
    layer = make_layer(c, backward="lfpi", backward_tol=1e-6)
    outputs = layer(*(p.clone().requires_grad_() for p in c.params))
    assert cvxfold.analyze(layer, *c.params, costs=False).loss == "random"
    outputs[0][:, 3].exp().sum().backward()
    analysis = cvxfold.analyze(layer, *c.params, costs=False)
    assert analysis.loss == "last"
    assert (analysis["lfpi"].iterations == layer.report.backward.iterations).all()
    assert "the loss of the last backward pass" in str(analysis)
    # Its own trials are no backward passes of the layer.
    assert cvxfold.analyze(layer, *c.params, loss=lambda x: x.sum()).loss == "given"
    assert cvxfold.analyze(layer, *c.params, costs=False).to_dict()["loss"] == "last"
    assert cvxfold.analyze(layer, *(1.1 * p for p in c.params), costs=False).loss == "random"


def test_a_zero_gradient_needs_one_iteration_of_every_method() -> None:
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - a), x >= 0), [a], [x])
    values = torch.tensor([[0.5, 1.0], [-1.0, -2.0]], dtype=torch.float64)
    analysis = cvxfold.analyze(layer, values, loss=lambda x: x[0].sum() + 0 * x[1].sum(), costs=False)
    for forecast in analysis.forecasts:
        assert forecast.iterations[1] == 1, forecast.method


_RESIDENT = """
import torch
from cvxfold.fold import Unrolled
from problems.layers import family_of, quiet_layer_of

torch.set_num_threads(1)
family = family_of("dense_qp20")
layer, params = quiet_layer_of(family, backward=Unrolled(100)), family.sample(256, 0)


def call():
    inputs = [p.detach().requires_grad_() for p in params]
    torch.stack([o.sum() for o in layer(*inputs)]).sum().backward()


def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024


call()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
call()
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@long
def test_memory_of_unrolling_is_what_the_process_grows_by() -> None:
    """As the operating system sees it, with an allocator that leaves no holes (MALLOC_MMAP_THRESHOLD_)."""
    out, err = run_python(_RESIDENT, MALLOC_MMAP_THRESHOLD_="4096")
    assert out, err[-2_000:]
    family = family_of("dense_qp20")
    forecast = cvxfold.analyze(quiet_layer_of(family), *family.sample(256, 0))["unrolled"]
    assert forecast.bytes(100) == pytest.approx(int(out), rel=0.2)


@pytest.mark.usefixtures("engine")
def test_remembering_the_loss_keeps_nothing_alive() -> None:
    """Also where the loss gradients have a graph of their own, which leads back to the solution."""
    c = case("portfolio", 4)
    layer = make_layer(c)

    def kept() -> int:
        gc.collect()
        return sum(type(o) in (Answer, ShortCall) for o in gc.get_objects())

    before = kept()
    inputs = [p.clone().requires_grad_() for p in c.params]
    outputs = layer(*inputs)
    loss = torch.stack([o.square().sum() for o in outputs]).sum()
    gradients = torch.autograd.grad(loss, inputs, create_graph=True)
    assert kept() > before
    del inputs, outputs, loss, gradients
    assert kept() == before


@pytest.mark.parametrize("engine", ENGINES)
def test_the_loss_of_a_plain_backward_pass_is_remembered(engine: EngineName) -> None:
    c = case("dense_qp20", 8)
    layer = make_layer(c, engine=engine)
    outputs = layer(*(p.clone().requires_grad_() for p in c.params))
    outputs[0][:, 3].exp().sum().backward()
    found = cvxfold.analyze(layer, *c.params, costs=False)
    assert found.loss == "last"
    given = cvxfold.analyze(layer, *c.params, loss=lambda x: x[:, 3].exp().sum(), costs=False)
    one, other = found.backward_history, given.backward_history
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12, equal_nan=True)
    moved = [p + 1e-3 * p for p in c.params]
    assert cvxfold.analyze(layer, *moved, costs=False).loss == "random"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_loss_is_remembered_where_a_parameter_has_no_batch(engine: EngineName) -> None:
    x, A, b = cp.Variable(3), cp.Parameter((4, 3)), cp.Parameter(4)
    layer = CvxpyLayer(minimize(cp.sum_squares(A @ x - b), x >= 0), [A, b], [x], engine=engine)
    torch.manual_seed(0)
    params = [torch.randn(5, 4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
    outputs = layer(*(p.clone().requires_grad_() for p in params))
    outputs[0].exp().sum().backward()
    assert cvxfold.analyze(layer, *params, costs=False).loss == "last"
