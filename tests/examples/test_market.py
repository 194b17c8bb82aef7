"""The weeks of real stocks: what is known when, against prices of which it is known by hand."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from problems.marks import long

pd = pytest.importorskip("pandas")

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "paper"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the scripts is on the path."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])


def prices(weeks: int, jump: int | None = None) -> Any:
    """Daily prices of two stocks, of wavy weekly returns; the first stock doubles in one week."""
    days = pd.date_range("2000-01-03", periods=5 * weeks, freq="B")
    time = torch.arange(5 * weeks, dtype=torch.float64)
    level = torch.stack([time.sin() / 20 + time / 500, (1.3 * time).cos() / 20 + time / 900], -1).exp()
    if jump is not None:
        level[5 * jump :, 0] *= 2
    return pd.DataFrame(level.numpy(), index=days, columns=["A", "B"])


def test_features_are_of_the_weeks_before() -> None:
    of = import_module("market").Market.of_prices
    plain, jumped = of(prices(120)), of(prices(120, jump=110))
    week = 110 - 1 - 52  # the first return is that of the second week, and a year must have passed
    assert (plain.returns != jumped.returns).any(-1).nonzero().flatten().tolist() == [week]
    assert float(jumped.returns[week, 0]) == pytest.approx(2 * float(plain.returns[week, 0]) + 100)
    changed = (plain.features != jumped.features).any(-1).nonzero().flatten()
    assert changed.tolist() == list(range(week + 1, len(plain.returns)))


def test_lags_and_risk_are_what_they_say() -> None:
    module = import_module("market")
    market = module.Market.of_prices(prices(300))
    r, cut = market.returns, market.cut
    features = market.features.view(len(r), 2, len(module.LAGS))
    for place, lag in enumerate(module.LAGS):
        past = torch.stack([r[t - lag : t].mean(0) for t in range(52, len(r))])
        shift = features[52:, :, place]
        scale = past.std(0) / shift.std(0)
        torch.testing.assert_close((past - past.mean(0)) / scale, shift - shift.mean(0), rtol=1e-6, atol=1e-8)
    equal = r[:cut].mean(-1)
    assert market.risk == 1
    torch.testing.assert_close(market.covariance, torch.cov(r[:cut].T) / equal.var())
    assert len(module.Market.of_prices(prices(300), weeks=100).returns) == 100


@long
def test_portfolios_of_real_prices(tmp_path: Path) -> None:
    pytest.importorskip("skfolio")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "prices.png"
    courses = import_module("portfolio").main(["--quick", "--data", "prices", "--output", str(picture)])
    assert picture.stat().st_size > 5_000
    assert courses["cvxfold layer"].gradient_error < 1e-6
    assert courses["folded SQP"].gradient_error < 1e-3  # the black box has solutions to 1e-5
    assert courses["folded SQP"].score[-1] == pytest.approx(courses["cvxfold layer"].score[-1], rel=1e-2)
    sharpe = json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))["sharpe"]
    assert sharpe.keys() == courses.keys()
    assert all(abs(one) < 5 for one in sharpe.values())
