"""What the demo trains: predict next week's returns, invest by Markowitz's problem, learn from the regret.

    w*(r) = argmax  rᵀw − γ/2 ‖Lᵀw‖²    over  1ᵀw = 1, 0 ≤ w ≤ 0.2
    regret(r̂) = U(w*(r)) − U(w*(r̂)),    U(w) = rᵀw − γ/2 ‖Lᵀw‖²  at the true returns r

"Smart predict, then optimize" (Elmachtoub and Grigas, 2022) calls this loss the SPO loss; the quadratic risk
makes it differentiable. The gradient reaches the predictor through w*(r̂), hence through the layer.
"""

from typing import Any

import cvxpy as cp
import torch
from torch import Tensor, nn

RISK_AVERSION = 0.1  # γ, for returns in percent: 10 for returns as fractions
POSITION_LIMIT = 0.2


def markowitz(n: int) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """The problem, its parameters, ``(n,)`` returns and ``(n, n)`` root, and its variable."""
    weights = cp.Variable(n, name="weights")
    returns, root = cp.Parameter(n, name="returns"), cp.Parameter((n, n), name="root")
    utility = returns @ weights - RISK_AVERSION / 2 * cp.sum_squares(root.T @ weights)
    rules: list[Any] = [cp.sum(weights) == 1, weights >= 0, weights <= POSITION_LIMIT]
    return cp.Problem(cp.Maximize(utility), rules), [returns, root], [weights]


def utility(weights: Tensor, returns: Tensor, root: Tensor) -> Tensor:
    """U for each week, ``(T,)``, from ``(T, n)``, ``(T, n)`` and ``(T, n, n)``."""
    risk = (root.mT @ weights[..., None]).square().sum((-1, -2))
    return (returns * weights).sum(-1) - RISK_AVERSION / 2 * risk


class Predictor(nn.Module):
    """A small network that sees one stock at a time, and a constant of each stock's own.

    Args:
        stocks: how many, n.
        features: of each, d.
        hidden: width of the hidden layer.
    """

    def __init__(self, stocks: int, features: int, hidden: int = 32) -> None:
        super().__init__()
        self._network = nn.Sequential(
            nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        ).double()  # fmt: skip
        self._constant = nn.Parameter(torch.zeros(stocks, dtype=torch.float64, device="cpu"))

    def forward(self, features: Tensor) -> Tensor:
        """Predicted returns, ``(T, n)`` from ``(T, n, d)``."""
        return self._network(features).squeeze(-1) + self._constant


def regret(weights: Tensor, returns: Tensor, root: Tensor, best: Tensor) -> Tensor:
    """What ``weights`` fall short of the ``best`` utility, for each week, ``(T,)``."""
    return best - utility(weights, returns, root)
