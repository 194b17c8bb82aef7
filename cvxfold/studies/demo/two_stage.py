"""What decision-focused learning is to beat: plans by forecasts that know nothing of costs and ramp limits.

- last week: the plan follows the demand of the same day a week before.
- two-stage: the predictor is fitted by squared error, and the plan follows its forecasts.
- two-stage with a margin: the same margin is added to all forecasts, the one that costs least on the days of
  training.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cvxfold.studies.demo.data import Days
from cvxfold.studies.demo.model import cost
from cvxfold.studies.demo.settings import Progress, Settings
from cvxfold.studies.demo.training import Trainer

NAME = "two-stage"
MARGINS = tuple(0.05 * step for step in range(31))  # in GW

Planner = Callable[[Tensor], Tensor]
"""Plans from forecasts, ``(D, 24)`` from ``(D, 24)``."""


@dataclass
class TwoStage:
    """What the plans of the two-stage models cost on the test days, the mean of a day.

    Args:
        test_cost: of two-stage training, after each epoch.
        margin: the best on the days of training, in GW.
        margin_cost: with that margin.
        last_week_cost: of following last week's demand.
        mean_plan: for each hour, in GW, 24 of them, without the margin.
    """

    test_cost: list[float] = field(default_factory=list)
    margin: float = 0.0
    margin_cost: float = 0.0
    last_week_cost: float = 0.0
    mean_plan: list[float] = field(default_factory=list)


@torch.no_grad()
def mean_cost(planner: Planner, forecast: Tensor, days: Days) -> float:
    """What plans by a forecast, ``(D, 24)``, cost on some days, the mean of a day."""
    return float(cost(planner(forecast), days.demand).mean())


@torch.no_grad()
def mean_plan(planner: Planner, forecast: Tensor) -> list[float]:
    """What is planned for each hour by forecasts, ``(D, 24)``, the mean of all days."""
    return planner(forecast).mean(0).tolist()


def two_stage(planner: Planner, train: Days, test: Days, settings: Settings, progress: Progress) -> TwoStage:
    """Fit by squared error, then plan."""
    found = TwoStage(last_week_cost=mean_cost(planner, test.last_week, test))
    trainer = Trainer(NAME, lambda forecast, demand: (forecast - demand).square().mean(), train, settings)
    for _ in range(settings.epochs):
        trainer.epoch(progress)
        found.test_cost.append(mean_cost(planner, trainer.forecast(test), test))
    known, coming = trainer.forecast(train), trainer.forecast(test)
    found.mean_plan = mean_plan(planner, coming)
    found.margin = min(MARGINS, key=lambda margin: mean_cost(planner, known + margin, train))
    found.margin_cost = mean_cost(planner, coming + found.margin, test)
    return found
