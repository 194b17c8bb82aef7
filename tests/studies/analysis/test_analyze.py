"""analyze(): spectra against dense matrices, rates and forecasts against what then happens."""

import json
import math
from functools import cache
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold import Verdict
from cvxfold.layer.request import CallRequest
from cvxfold.torch import CvxpyLayer
from problems.cases import case, evaluate, make_layer
from problems.families import minimize
from problems.layers import QUICK, VARIED, family_of, quiet_layer_of
from problems.marks import long, sliced


def linearized(layer: CvxpyLayer, params: list[Tensor]) -> Any:
    """The iteration at the solutions."""
    arguments, values, _ = layer.program(*params)
    with torch.no_grad():
        answer = layer.session.answer_to(values, CallRequest(arguments.batch or 1, layer.options))
        return layer.session.engine.linearize(answer.whole)


def dense_phi(layer: CvxpyLayer, params: list[Tensor]) -> Tensor:
    """Φ by automatic differentiation of F itself, ``(B, m, m)``."""
    phi = linearized(layer, params)
    u = phi.u.clone().requires_grad_()
    following = phi.image(u)
    rows = [torch.autograd.grad(following[:, i].sum(), u, retain_graph=True)[0] for i in range(u.shape[1])]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("name", ["dense_qp20", "portfolio", "robust_portfolio", "semidefinite_program"])
def test_the_spectral_radius_is_that_of_the_dense_matrix(name: str) -> None:
    """Here every eigenvector takes part, so nothing is to be left out."""
    c = case(name, 4)
    layer = make_layer(c)
    analysis = cvxfold.analyze(layer, *c.params, costs=False)
    values = np.sort(np.abs(np.linalg.eigvals(dense_phi(layer, c.params).numpy())))[:, ::-1]
    np.testing.assert_allclose(analysis.spectral_radius.numpy(), values[:, 0], rtol=1e-8)
    assert analysis.exact.all()
    leading = analysis.eigenvalues.abs().numpy()
    np.testing.assert_allclose(leading[:, 0], values[:, 0], rtol=1e-8)
    assert (np.diff(leading, axis=1) <= 1e-12).all()


def test_the_singular_value_is_that_of_the_dense_matrix() -> None:
    c = case("many_cones", 4)
    layer = make_layer(c)
    analysis = cvxfold.analyze(layer, *c.params, costs=False)
    phi = dense_phi(layer, c.params)
    expected = torch.linalg.svdvals(torch.eye(phi.shape[1], dtype=phi.dtype) - phi)[:, -1]
    torch.testing.assert_close(analysis.smallest_singular_value, expected, rtol=1e-8, atol=0)


def test_what_the_loss_cannot_reach_is_left_out() -> None:
    """A redundant equality gives Φ the eigenvalue 1, in a direction that no loss gradient has a part in."""
    x, c = cp.Variable(3), cp.Parameter(3)
    equality = [cp.sum(x) == 1, 2 * cp.sum(x) == 2]
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), x >= 0, *equality), [c], [x])
    params = [torch.tensor([[0.5, 0.2, -0.9]], dtype=torch.float64)]
    analysis = cvxfold.analyze(layer, *params, costs=False)
    assert np.abs(np.linalg.eigvals(dense_phi(layer, params).numpy())).max() == pytest.approx(1, abs=1e-9)
    assert 0 < float(analysis.spectral_radius) < 0.95
    assert analysis.verdict == [Verdict.CONVERGED]
    assert float(analysis.smallest_singular_value) < 1e-9
    assert math.isfinite(analysis.unroll_depth)


@cache
def analysed(name: str) -> Any:
    """Eight instances of a family, analysed once a session; a layer, the values, the analysis."""
    family = family_of(name)
    layer, params = quiet_layer_of(family), family.sample(8, 11)
    return layer, params, cvxfold.analyze(layer, *params, costs=False)


def fitted(history: Tensor) -> float:
    """The factor per iteration over the last half of one history, by a line through the logarithms."""
    own = history[history.isfinite() & (history > 1e-14)]
    half = own[len(own) // 2 :].log().numpy()
    return math.exp(np.polyfit(np.arange(len(half)), half, 1)[0])


@pytest.mark.parametrize(
    ("names", "enough", "slow_ones"),
    [
        pytest.param(VARIED, 100, 25, marks=long, id="all"),
        pytest.param(QUICK, 30, 8, id="quick"),
    ],
)
def test_rates_and_forecasts_over_random_problems(names: list[str], enough: int, slow_ones: int) -> None:
    """In all more than a hundred problems, and losses that the analysis has not seen.

    The fit of a finite history tends to ρ(Φ) only as fast as the other modes die out: where ρ is small there
    are few iterations before rounding ends the descent, and some histories are still on their way. The next
    test follows them further.
    """
    rates, depths = [], []
    for name in names:
        _, params, analysis = analysed(name)
        layer = quiet_layer_of(family_of(name), backward="lfpi", backward_tol=1e-13)
        outputs = layer(*(p.clone().requires_grad_() for p in params))
        generator = torch.Generator().manual_seed(99)
        loss = [(torch.randn(o.shape, dtype=o.dtype, generator=generator) * o).sum() for o in outputs]
        torch.stack(loss).sum().backward()
        assert layer.report is not None
        assert layer.report.backward is not None
        history = layer.report.backward.history
        for i in range(8):
            rho = float(analysis.spectral_radius[i])
            if rho >= 0.999 or not (history[:, i] <= 1e-6).any():
                continue
            rates.append((rho, fitted(history[:, i]), name))
            taken = int((history[:, i] <= 1e-6).nonzero()[0]) + 1
            depths.append((float(analysis["lfpi"].iterations[i]), taken))
    assert len(rates) >= enough
    off = np.array([abs(fit / rho - 1) for rho, fit, _ in rates])
    slow = np.array([rho for rho, _, _ in rates]) >= 0.85
    assert slow.sum() >= slow_ones
    assert off[slow].max() < 0.02, [each for each, far in zip(rates, off, strict=True) if far > 0.02]
    assert (off < 0.02).mean() > 0.95
    assert off.max() < 0.1
    ratio = np.array([forecast / taken for forecast, taken in depths])
    assert (np.abs(ratio - 1) < 0.15).mean() > 0.9
    assert np.abs(np.median(ratio) - 1) < 0.05


def loss_gradients(layer: CvxpyLayer, params: list[Tensor]) -> Tensor:
    """ū of each entry of x as the loss, ``(B, n, m)``."""
    phi = linearized(layer, params)
    zeros = torch.zeros(len(phi.u), layer.session.entries.structure.m, dtype=phi.u.dtype)
    units = torch.eye(layer.session.entries.structure.n, dtype=phi.u.dtype)
    return torch.stack([phi.pull(x_bar.expand(len(phi.u), -1), zeros) for x_bar in units], dim=1)


def reached(phi: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """An orthonormal basis of all that Φᵀ makes of loss gradients ``(n, m)``: nothing else is iterated."""
    basis, new = np.zeros((len(phi), 0)), bars.T / np.abs(bars).max()
    while new.shape[1]:
        for _ in range(2):
            new = new - basis @ (basis.T @ new)
        left, sizes, _ = np.linalg.svd(new, full_matrices=False)
        new = left[:, sizes > 1e-9]
        basis, new = np.hstack([basis, new]), phi.T @ new
    return basis


@pytest.mark.parametrize("name", sliced(VARIED, lambda name: name not in QUICK))
def test_every_rate_is_the_spectral_radius_in_the_end(name: str) -> None:
    """The residual r ← Φᵀ r of LFPI, by a dense Φ and without the w whose rounding would end it at 1e-16."""
    layer, params, analysis = analysed(name)
    radius = analysis.spectral_radius
    phi, bars = dense_phi(layer, params).numpy(), loss_gradients(layer, params).numpy()
    generator = np.random.default_rng(4)
    for i in range(8):
        basis = reached(phi[i], bars[i])
        restricted, r = basis.T @ phi[i] @ basis, generator.standard_normal(basis.shape[1])
        own = []
        for _ in range(2_000):
            r = r @ restricted
            own.append(np.linalg.norm(r))
            if own[-1] < 1e-150:  # squares of less underflow
                break
        half = np.log(own[len(own) // 2 :])
        rate = math.exp(np.polyfit(np.arange(len(half)), half, 1)[0])
        if float(radius[i]) < 0.999:
            assert rate == pytest.approx(float(radius[i]), rel=0.02)


def test_degenerate_instances_are_told() -> None:
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), x >= 0), [c], [x])
    values = torch.tensor([[1.0, 0.5], [1.0, 0.0], [0.3, -1.0]], dtype=torch.float64)
    analysis = cvxfold.analyze(layer, values, costs=False)
    assert analysis.verdict == [Verdict.CONVERGED, Verdict.DEGENERATE, Verdict.CONVERGED]
    assert float(analysis.margin[1]) < 1e-9 < 1e-2 < float(analysis.margin[[0, 2]].min())
    assert "1 degenerate" in str(analysis)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("near", [0.3, 1e-2, 1e-5])
def test_the_margin_is_how_near_the_nearest_kink_is(sign: float, near: float) -> None:
    """min ‖x − c‖² over x ≥ 0 has its kinks where cᵢ = 0: slacks are c⁺, multipliers 2c⁻."""
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), x >= 0), [c], [x])
    values = sign * torch.tensor([[1.0, near], [2.0, -2.0]], dtype=torch.float64)
    margin = cvxfold.analyze(layer, values, costs=False).margin
    torch.testing.assert_close(margin[0], torch.tensor(near, dtype=torch.float64), rtol=1e-6, atol=0)
    assert float(margin[1]) > 0.5


def test_without_inequalities_there_is_no_kink() -> None:
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), cp.sum(x) == 1), [c], [x])
    analysis = cvxfold.analyze(layer, torch.ones(2, 3, dtype=torch.float64), costs=False)
    assert analysis.margin.tolist() == [math.inf, math.inf]


def test_nothing_of_the_layer_is_changed() -> None:
    c = case("portfolio", 4)
    layer, other = make_layer(c), make_layer(c)
    evaluate(layer, c)
    evaluate(other, c)
    report = layer.report
    cvxfold.analyze(layer, *(p * 1.5 for p in c.params))
    assert layer.report is report
    for a, b in zip(evaluate(layer, c)[1], evaluate(other, c)[1], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(layer.report.forward.iterations, other.report.forward.iterations)


def test_the_solution_of_the_last_call_is_the_one_that_is_analyzed() -> None:
    """So that the rates are those of the operator that made the report, whatever penalty comes next."""
    c = case("least_absolute", 4)
    layer = make_layer(c, backward="lfpi", backward_tol=1e-12, on_unconverged="ignore")
    evaluate(layer, c)
    inputs = [p.clone().requires_grad_() for p in c.params]
    outputs = layer(*inputs)
    torch.stack([(w * o).sum() for w, o in zip(c.weights, outputs, strict=True)]).sum().backward()
    analysis = cvxfold.analyze(layer, *c.params, costs=False)
    rate = torch.tensor([fitted(layer.report.backward.history[:, i]) for i in range(4)])
    torch.testing.assert_close(rate.double(), analysis.spectral_radius, rtol=0.05, atol=0)


def test_dictionary_plot_and_table(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    c = case("dense_qp20", 4)
    analysis = cvxfold.analyze(make_layer(c), *c.params)
    plain = json.loads(json.dumps(analysis.to_dict(), allow_nan=False))
    assert plain["spectral_radius"] == analysis.spectral_radius.tolist()
    assert set(plain["forecasts"]) == {"unrolled", "lfpi", "anderson", "gmres", "bicgstab", "auto"}
    assert plain["recommended"]["method"] == analysis.recommended_method
    assert len(plain["eigenvalues"]) == 4
    figure = analysis.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 5_000
    lines = figure.axes[0].get_lines()
    assert len(lines) >= 8
    text = str(analysis)
    assert "spectral radius" in text
    assert "recommended" in text
    assert max(map(len, text.splitlines())) <= 80


def test_unbatched_float32_and_no_rows() -> None:
    x, A, b = cp.Variable(3), cp.Parameter((4, 3)), cp.Parameter(4)
    layer = CvxpyLayer(minimize(cp.sum_squares(A @ x - b), x >= 0), [A, b], [x])
    analysis = cvxfold.analyze(layer, torch.randn(4, 3), torch.randn(4), costs=False)
    assert analysis.spectral_radius.shape == (1,)
    free = CvxpyLayer(minimize(cp.sum_squares(A @ x - b)), [A, b], [x])
    analysis = cvxfold.analyze(free, torch.randn(2, 4, 3), torch.randn(4))
    assert (analysis.spectral_radius == 0).all()
    assert analysis.verdict == [Verdict.CONVERGED] * 2


def test_bad_requests() -> None:
    c = case("portfolio", 2)
    layer = make_layer(c)
    with pytest.raises(TypeError, match="layer: expected a cvxfold"):
        cvxfold.analyze(torch.nn.Linear(2, 2), *c.params)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tol: expected"):
        cvxfold.analyze(layer, *c.params, tol=0.0)
    with pytest.raises(ValueError, match="loss: expected"):
        cvxfold.analyze(layer, *c.params, loss=lambda *outputs: outputs[0])
    with pytest.raises(ValueError, match="loss: expected finite gradients"):
        cvxfold.analyze(layer, *c.params, loss=lambda *outputs: (outputs[0] * math.nan).sum())
    names = ", ".join(spec.name for spec in layer.parameters_of_problem)
    for listed in (tuple(c.params), [p.tolist() for p in c.params]):
        with pytest.raises(TypeError, match=rf"got a {type(listed).__name__};.*analyze\(layer, {names}\)"):
            cvxfold.analyze(layer, listed)
    with pytest.raises(ValueError, match="empty batch"):
        cvxfold.analyze(layer, *(p[:0] for p in c.params))
    with pytest.raises(KeyError, match="forecasts for"):
        cvxfold.analyze(layer, *c.params, costs=False)["newton"]
    x, b = cp.Variable(), cp.Parameter()
    infeasible = CvxpyLayer(minimize(cp.square(x), x >= b, x <= 0), [b], [x])
    with pytest.raises(cvxfold.InfeasibleError, match=r"\[0\]"):
        cvxfold.analyze(infeasible, torch.tensor([1.0]))


@long
def test_it_works_under_no_grad_and_on_arrays() -> None:
    c = case("portfolio", 3)
    layer = make_layer(c)
    expected = cvxfold.analyze(layer, *c.params, costs=False).spectral_radius
    with torch.no_grad():
        found = cvxfold.analyze(layer, *c.params, costs=False)
    assert torch.equal(found.spectral_radius, expected)
    with torch.inference_mode():
        found = cvxfold.analyze(layer, *(p.clone() for p in c.params))
    assert torch.equal(found.spectral_radius, expected)
    assert math.isfinite(found["unrolled"].bytes())
    found = cvxfold.analyze(layer, *(p.numpy() for p in c.params), costs=False)  # type: ignore[arg-type]
    assert torch.equal(found.spectral_radius, expected)


def test_without_parameters_there_is_no_tape_to_measure() -> None:
    x = cp.Variable(2)
    analysis = cvxfold.analyze(CvxpyLayer(minimize(cp.sum_squares(x - 1), x <= 0.5), [], [x]))
    assert math.isnan(analysis["unrolled"].bytes())
    assert analysis["lfpi"].seconds() > 0


@long
def test_a_degenerate_batch_gets_no_recommendation_it_cannot_use() -> None:
    z, c = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(minimize(c @ z, z >= 0, cp.sum(z) == 1), [c], [z], on_degenerate="raise")
    analysis = cvxfold.analyze(layer, torch.ones(3))
    assert analysis.verdict == [Verdict.DEGENERATE]
    assert "nan" not in str(analysis)
    assert "0 s" not in str(analysis)
    assert analysis.to_dict()["forecasts"]["lfpi"]["seconds"] == "inf"
