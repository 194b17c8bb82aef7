"""What the demo trains: forecast tomorrow's demand, plan a slow power plant by it, learn from what it cost.

    g*(ŷ) = argmin  ½ ‖g − ŷ‖²    over  |gₜ₊₁ − gₜ| ≤ r,  g ≥ 0
    cost(g, y) = Σₜ  10 max(yₜ − gₜ, 0) + max(gₜ − yₜ, 0)

g is the plan for 24 hours, ŷ the forecast, y the demand. What is short must be bought at once, at ten times
the price of what is generated in vain, and the plant is slower than demand is. Scheduling under such costs
and ramp limits is the task of Donti, Amos and Kolter (2017), "Task-based end-to-end model learning in
stochastic optimization".
"""

from typing import Any

import cvxpy as cp
import torch
from torch import Tensor, nn

from cvxfold.studies.demo.data import HOURS, Days

RAMP = 0.2  # r, in GW from an hour to the next
SHORTAGE, SURPLUS = 10.0, 1.0  # of a GWh


def scheduling(hours: int = HOURS, ramp: float = RAMP) -> tuple[cp.Problem, list[Any], list[Any]]:
    """The problem, its parameter, the ``(hours,)`` forecast, and its variable, the plan."""
    plan, forecast = cp.Variable(hours, name="plan"), cp.Parameter(hours, name="forecast")
    rules: list[Any] = [cp.abs(cp.diff(plan)) <= ramp, plan >= 0]
    return cp.Problem(cp.Minimize(cp.sum_squares(plan - forecast) / 2), rules), [forecast], [plan]


def cost(plan: Tensor, demand: Tensor) -> Tensor:
    """What each day costs, ``(D,)`` from ``(D, 24)`` and ``(D, 24)``."""
    short, spare = (demand - plan).clamp_min(0), (plan - demand).clamp_min(0)
    return (SHORTAGE * short + SURPLUS * spare).sum(-1)


class Predictor(nn.Module):
    """A linear forecast of each hour, in units of what is usual at that hour.

    Args:
        days: to learn from; the mean and deviation of each hour are theirs.
    """

    _mean: Tensor
    _deviation: Tensor

    def __init__(self, days: Days) -> None:
        super().__init__()
        self._linear = nn.Linear(days.features.shape[1], days.demand.shape[1], dtype=torch.float64)
        self.register_buffer("_mean", days.demand.mean(0))
        self.register_buffer("_deviation", days.demand.std(0))

    def forward(self, features: Tensor) -> Tensor:
        """Forecasts in GW, ``(D, 24)`` from ``(D, d)``."""
        return self._mean + self._deviation * self._linear(features)
