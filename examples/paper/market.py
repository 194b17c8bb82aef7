"""Data for the portfolios: drawn as the authors draw them, or the weeks of real stocks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

TRAINING = 0.8  # of the samples, the first ones; the rest is the test
FEATURES, FACTORS, NOISE, RISK, SCALE = 5, 4, 0.1, 22.5 / 2, 1e6
LAGS = (1, 4, 13, 26, 52)  # weeks over which past returns are averaged
WEEKS = 52  # a year


@dataclass(frozen=True)
class Market:
    """Features ``(N, d)``, returns ``(N, n)``, their covariance Σ ``(n, n)``, and the risk γ that is allowed.

    Samples are in the order of time where there is one, and then ``periods`` is their number in a year.
    """

    features: Tensor
    returns: Tensor
    covariance: Tensor
    risk: float
    periods: int | None = None

    @classmethod
    def drawn(cls, samples: int, assets: int, seed: int) -> "Market":
        """Returns r = 0.05/√p Bz + 0.1 + Lf + 0.01τε, of degree 1, with B of zeros and ones.

        Σ and γ are both times a million, as the authors have them.
        """
        generator = np.random.default_rng(seed)
        B = (generator.random((assets, FEATURES)) > 0.5).astype(float)
        L = 0.0025 * NOISE * generator.uniform(-1, 1, (assets, FACTORS))
        z = generator.normal(size=(samples, FEATURES))
        common = generator.normal(size=(samples, FACTORS)) @ L.T
        own = 0.01 * NOISE * generator.normal(size=(samples, assets))
        r = 0.05 / FEATURES**0.5 * z @ B.T + 0.1 + common + own
        cov = SCALE * (L @ L.T + (0.01 * NOISE) ** 2 * np.eye(assets))
        w = np.ones(assets) / assets
        return cls(torch.tensor(z), torch.tensor(r), torch.tensor(cov), float(RISK * w @ cov @ w))

    @classmethod
    def of_prices(cls, prices: "pd.DataFrame", weeks: int | None = None) -> "Market":
        """From daily prices, a column for each stock: weekly returns in percent, and those of weeks before.

        Σ is the covariance of the training weeks, in units of the variance of equal weights, and γ = 1: the
        portfolio is to be no riskier than those.

        Args:
            weeks: the number of latest ones; None for all.
        """
        r = torch.tensor(weekly_returns(prices).to_numpy())
        first = max(LAGS) if weeks is None else max(max(LAGS), len(r) - weeks)
        past = [torch.stack([r[t - lag : t].mean(0) for lag in LAGS], -1) for t in range(first, len(r))]
        features, r = torch.stack(past).flatten(1), r[first:]
        known = slice(0, int(TRAINING * len(r)))
        features = (features - features[known].mean(0)) / features[known].std(0)
        cov = torch.cov(r[known].T)
        return cls(features, r, cov / cov.mean(), 1.0, WEEKS)

    @property
    def assets(self) -> int:
        """n."""
        return self.returns.shape[1]

    @property
    def cut(self) -> int:
        """The number of samples to train on."""
        return int(TRAINING * len(self.features))


def weekly_returns(prices: "pd.DataFrame") -> "pd.DataFrame":
    """Returns in percent from Friday to Friday, a week that the prices do not cover to its end left out."""
    weekly = prices.resample("W-FRI").last()
    return (100 * weekly.pct_change()).loc[: prices.index[-1]].iloc[1:]
