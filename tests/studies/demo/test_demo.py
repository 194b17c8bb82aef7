"""The demo on its real data: no look-ahead, a regret that is one, a tiny training run with both layers."""

import json
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("skfolio")
pytest.importorskip("matplotlib")

from skfolio.datasets import load_factors_dataset, load_sp500_dataset

from cvxfold.cli.app import app
from cvxfold.studies.demo.data import Weeks, build, load, split
from cvxfold.studies.demo.model import POSITION_LIMIT, RISK_AVERSION, markowitz, regret, utility
from cvxfold.studies.demo.train import Settings, compare
from cvxfold.torch import CvxpyLayer


@pytest.fixture(scope="module")
def weeks() -> Weeks:
    return load()


def test_shapes(weeks: Weeks) -> None:
    T, n = len(weeks), 20
    assert T > 400
    assert len(weeks.tickers) == n
    assert weeks.returns.shape == (T, n)
    assert weeks.root.shape == (T, n, n)
    assert weeks.features.shape[:2] == (T, n)
    for tensor in (weeks.features, weeks.root, weeks.returns):
        assert tensor.dtype == torch.float64
        assert tensor.isfinite().all()


def test_dates_and_returns_belong_together(weeks: Weeks) -> None:
    prices = load_sp500_dataset()
    assert len(set(np.diff(np.array(weeks.dates, "datetime64[D]")).astype(int))) == 1  # every 7 days
    for t in (0, 200, -1):
        friday = prices.index[0].__class__(weeks.dates[t])
        one, before = prices.loc[:friday].iloc[-1], prices.loc[: friday - np.timedelta64(7, "D")].iloc[-1]
        expected = 100 * (one / before - 1).to_numpy()
        np.testing.assert_allclose(weeks.returns[t].numpy(), expected, rtol=1e-10)


def test_covariance_is_of_the_weeks_before(weeks: Weeks) -> None:
    t = 150
    known = np.cov(weeks.returns[t - 104 : t].numpy().T)
    expected = 0.9 * known + 0.1 * np.diag(np.diag(known))
    np.testing.assert_allclose((weeks.root[t] @ weeks.root[t].T).numpy(), expected, rtol=1e-9)


def test_no_look_ahead(weeks: Weeks) -> None:
    """Prices after the end of week t − 1 change nothing that is known about week t, and all that follows."""
    t = 200
    stocks, factors = load_sp500_dataset(), load_factors_dataset()
    rng = np.random.default_rng(0)
    for prices in (stocks, factors):
        later = prices.index > weeks.dates[t - 1]
        prices.loc[later] *= rng.uniform(0.5, 2, prices.loc[later].shape)
    changed = build(stocks, factors)
    assert changed.dates == weeks.dates
    assert torch.equal(changed.features[: t + 1], weeks.features[: t + 1])
    assert torch.equal(changed.root[: t + 1], weeks.root[: t + 1])
    assert torch.equal(changed.returns[:t], weeks.returns[:t])
    assert (changed.returns[t] != weeks.returns[t]).all()
    assert (changed.features[t + 1] != weeks.features[t + 1]).any(-1).all()


def test_split_is_in_time_and_scales_by_training_alone(weeks: Weeks) -> None:
    train, test = split(weeks)
    assert train.dates + test.dates == weeks.dates
    assert train.features.mean((0, 1)).abs().max() < 1e-12
    assert (train.features.std((0, 1)) - 1).abs().max() < 1e-12
    scale = (weeks.features[0, 0] - weeks.features[1, 0]) / (train.features[0, 0] - train.features[1, 0])
    torch.testing.assert_close(
        scale * (test.features[3, 0] - test.features[5, 1]),
        weeks.features[len(train) + 3, 0] - weeks.features[len(train) + 5, 1],
    )


def test_regret_is_nonnegative_and_zero_for_perfect_predictions(weeks: Weeks) -> None:
    part = weeks.between(0, 16)
    layer = CvxpyLayer(*markowitz(20))
    (perfect,) = layer(part.returns, part.root)
    best = utility(perfect, part.returns, part.root)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(part.returns.shape, generator=generator, dtype=torch.float64)
    (chosen,) = layer(part.returns + noise, part.root)
    regrets = regret(chosen, part.returns, part.root, best)
    assert (regrets > -1e-12).all()
    assert regrets.mean() > 0.01
    assert regret(perfect, part.returns, part.root, best).abs().max() == 0

    r, root = part.returns[5].numpy(), part.root[5].numpy()
    w = cp.Variable(20)
    objective = r @ w - RISK_AVERSION / 2 * cp.quad_form(w, cp.psd_wrap(root @ root.T))
    problem = cp.Problem(cp.Maximize(objective), [cp.sum(w) == 1, w >= 0, w <= POSITION_LIMIT])  # pyright: ignore[reportArgumentType]
    problem.solve(solver=cp.CLARABEL)
    assert float(best[5]) == pytest.approx(problem.value, abs=1e-6)
    assert w.value is not None
    np.testing.assert_allclose(perfect[5].numpy(), w.value, atol=1e-5)


def test_both_layers_train_alike_and_threads_are_left_alone() -> None:
    threads = torch.get_num_threads()
    steps = []
    result = compare(Settings(epochs=2, batch=8, weeks=12), steps.append)
    assert torch.get_num_threads() == threads
    theirs, ours = result.runs
    assert [step.epoch for step in steps] == 2 * [1, 1, 2, 2]
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-2)
    assert ours.untrained_test_regret == pytest.approx(theirs.untrained_test_regret, rel=1e-2)
    assert max(ours.residual) < 1e-9
    assert max(ours.gradient_error) < 1e-7
    assert not theirs.residual
    assert ours.warnings == {}


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_command(arguments: list[str], tmp_path: Path) -> None:
    plot = tmp_path / "demo.png"
    options = ["--epochs", "1", "--batch", "8", "--weeks", "8", "--output", str(plot)]
    done = CliRunner().invoke(app, ["demo", *options, *arguments])
    assert done.exit_code == 0, done.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    if not arguments:
        assert "gradient residual, worst" in done.stdout
        return
    numbers = json.loads(done.stdout)
    assert numbers["train"]["weeks"] == numbers["test"]["weeks"] == 8
    assert [run["layer"].split()[0] for run in numbers["runs"]] == ["cvxpylayers", "cvxfold"]
    assert all(len(run["loss"]) == 1 for run in numbers["runs"])
