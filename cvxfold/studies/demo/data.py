"""Real weekly data for the demo: 20 stocks and 5 style factors, from the files inside skfolio's package.

All that is known about week t comes from prices up to the end of week t − 1: the mean return of the stock and
of each factor over the last week, month and quarter, the stock's volatility over the quarter, and the
covariance of the stocks over two years.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

HORIZONS = (1, 4, 13)  # weeks over which past returns are averaged
COVARIANCE_WEEKS = 104
SHRINKAGE = 0.1  # of the covariance, towards its diagonal
TRAINING_SHARE = 0.65  # of the weeks, the earliest ones


@dataclass(frozen=True)
class Weeks:
    """T consecutive weeks of n stocks; returns are in percent.

    Args:
        dates: the Friday at the end of each week, T of them, in ISO format.
        tickers: of the stocks, n of them.
        features: known before the week begins, ``(T, n, d)``.
        root: known before the week begins, lower triangular L with L Lᵀ the covariance, ``(T, n, n)``.
        returns: what the week then brought, ``(T, n)``.
    """

    dates: tuple[str, ...]
    tickers: tuple[str, ...]
    features: Tensor
    root: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.dates)

    def between(self, start: int | None, stop: int | None) -> "Weeks":
        """The weeks from number ``start`` to before number ``stop``, counted as in a slice."""
        part = slice(start, stop)
        return replace(
            self,
            dates=self.dates[part],
            features=self.features[part],
            root=self.root[part],
            returns=self.returns[part],
        )


def load() -> Weeks:
    """The weeks of 2014 to 2022 that both of skfolio's files cover. Nothing is downloaded.

    Raises:
        ModuleNotFoundError: skfolio is not installed; the message says how to get it.
    """
    try:
        from skfolio.datasets import load_factors_dataset, load_sp500_dataset
    except ModuleNotFoundError as error:
        raise missing(error) from error
    return build(load_sp500_dataset(), load_factors_dataset())


def missing(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error for a package that the demo needs and cvxfold itself does not."""
    message = f"the demo needs {error.name}, which is not installed: pip install 'cvxfold[examples]'"
    return ModuleNotFoundError(message, name=error.name)


def build(stock_prices: "pd.DataFrame", factor_prices: "pd.DataFrame") -> Weeks:
    """Weeks from daily prices, indexed by date, one column for each stock or factor.

    The stocks may begin before the factors do; a week counts once both reach back far enough.
    """
    stocks, factors = weekly_returns(stock_prices), weekly_returns(factor_prices)
    stocks = stocks.loc[: factors.index[-1]]
    factors = factors.reindex(stocks.index)  # NaN before the factors begin
    first = max(int(factors.notna().all(axis=1).argmax()) + max(HORIZONS), COVARIANCE_WEEKS)
    r, f = torch.tensor(stocks.to_numpy()), torch.tensor(factors.to_numpy())
    weeks = range(first, len(stocks))
    return Weeks(
        dates=tuple(str(date.date()) for date in stocks.index[first:]),
        tickers=tuple(stocks.columns),
        features=torch.stack([_features(r[:t], f[:t]) for t in weeks]),
        root=torch.stack([_root(r[:t]) for t in weeks]),
        returns=r[first:],
    )


def weekly_returns(prices: "pd.DataFrame") -> "pd.DataFrame":
    """Returns in percent from Friday to Friday, a week that the prices do not cover to its end left out."""
    weekly = prices.resample("W-FRI").last()
    return (100 * weekly.pct_change()).loc[: prices.index[-1]].iloc[1:]


def split(weeks: Weeks) -> tuple[Weeks, Weeks]:
    """The earlier weeks, to train on, and the later ones, to test on.

    The features of both are centred and scaled by the mean and the deviation they have in training.
    """
    cut = round(TRAINING_SHARE * len(weeks))
    known = weeks.features[:cut]
    scaled = replace(weeks, features=(weeks.features - known.mean((0, 1))) / known.std((0, 1)))
    return scaled.between(None, cut), scaled.between(cut, None)


def _features(r: Tensor, f: Tensor) -> Tensor:
    """``(n, d)`` from the returns so far of stocks, ``(t, n)``, and of factors, ``(t, k)``."""
    own = [r[-h:].mean(0) for h in HORIZONS] + [r[-max(HORIZONS) :].std(0)]
    common = torch.cat([f[-h:].mean(0) for h in HORIZONS])
    return torch.cat([torch.stack(own, -1), common.expand(r.shape[1], -1)], -1)


def _root(r: Tensor) -> Tensor:
    """The Cholesky factor of the shrunk covariance of the latest returns, ``(n, n)`` from ``(t, n)``."""
    covariance = torch.cov(r[-COVARIANCE_WEEKS:].T)
    return torch.linalg.cholesky(torch.lerp(covariance, covariance.diag().diag(), SHRINKAGE))
