"""Markowitz portfolios with predicted returns: two-stage, cone layers, unrolled SQP, folded SQP.

    maximize cᵀx − η‖x‖²    subject to xᵀΣx ≤ γ,  Σx ≤ 1,  x ≥ 0

A network predicts the returns c from features; it is trained on the regret of the portfolio that this leads
to, cᵀx*(c) − cᵀx*(ĉ), with x* of η = 0 where regrets are told. Data and settings are those of Kotary,
Christopher, Dinh and Fioretto's experiment, after Elmachtoub and Grigas, "Smart predict, then
optimize", 2022.
The black-box solver in front of the folded step is Clarabel through cvxpy.

With ``--data prices`` the returns are those of twenty stocks of the S&P 500 from 1991 to 2022, week by week,
the features are their returns in the weeks before, and what the portfolios of the last fifth would have
brought is told by its Sharpe ratio.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as PeerLayer
from experiment import Arguments, Course, Experiment, Plan, gradient, start, trained
from market import TRAINING, Market
from torch import Tensor, nn

import cvxfold
from cvxfold.fold import GMRES, Unrolled
from cvxfold.fold.updates import SQPStep
from cvxfold.torch import CvxpyLayer

RIDGE = 0.1  # η
STEP, DEPTH = 0.01, 20  # DEPTH: of unrolling,
LONGER = 0.1  # by this step: with STEP it is far from converged, and from twice this on it diverges
RATE, BATCH = 0.01, 32
EPOCHS = (20, 300)  # the authors', and until squared errors are small
RECORDED = 0.00364  # the final test regret in the authors' repository

Layer = Callable[[Tensor], Tensor]


def problem(market: Market, ridge: float) -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    """The program, its returns and its portfolio."""
    x, c = cp.Variable(market.assets), cp.Parameter(market.assets)
    root = np.linalg.cholesky(market.covariance.numpy()).T
    over = [cp.sum_squares(root @ x) <= market.risk, cp.sum(x) <= 1, x >= 0]
    return cp.Problem(cp.Maximize(c @ x - ridge * cp.sum_squares(x)), over), c, x


def black_box(market: Market) -> Layer:
    """Clarabel, instance by instance."""
    program, c, x = problem(market, RIDGE)

    def solve(returns: Tensor) -> Tensor:
        found = []
        for one in returns.double().numpy():
            c.value = one
            program.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
            found.append(torch.as_tensor(x.value))
        return torch.stack(found)

    return solve


def sqp_step(market: Market, step: float) -> SQPStep:
    """One SQP step; H is that of the objective, so what the risk constraint bends is left to I − Φ."""
    n, cov = market.assets, market.covariance

    def limits(x: Tensor, _: Tensor) -> Tensor:
        risk = (x * (x @ cov)).sum(-1, keepdim=True) - market.risk
        return torch.cat([risk, x.sum(-1, keepdim=True) - 1, -x], dim=-1)

    return SQPStep(
        lambda x, c: RIDGE * x.square().sum(-1) - (c * x).sum(-1),
        inequalities=limits,
        hessian=lambda x, _: (2 * RIDGE * torch.eye(n).double()).expand(*x.shape, n),
        step=step,
    )


def layers(market: Market) -> dict[str, Layer | None]:
    """The ways from predicted returns to a portfolio that can be differentiated; three of them for prices."""
    program, c, x = problem(market, RIDGE)
    common: Any = {"batched": True, "on_unconverged": "ignore", "probe": False}
    solver = black_box(market)
    folded = cvxfold.fold(sqp_step(market, STEP), solver, backward=GMRES(), **common)
    unrolled = cvxfold.fold(sqp_step(market, LONGER), solver, backward=Unrolled(DEPTH), **common)
    own, peer = CvxpyLayer(program, [c], [x]), PeerLayer(program, [c], [x])
    found: dict[str, Layer | None] = {
        "two-stage": None,
        "cvxpylayers": lambda returns: peer(returns)[0],
        "cvxfold layer": lambda returns: own(returns)[0],
        "unrolled SQP": unrolled,
        "folded SQP": folded,
    }
    few = ("two-stage", "cvxfold layer", "folded SQP")
    return found if market.periods is None else {name: found[name] for name in few}


def network(market: Market, seed: int) -> nn.Sequential:
    """5 − n − 2n − n − n, with batch normalization."""
    assets = market.assets
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(market.features.shape[1], assets), nn.ReLU(), nn.BatchNorm1d(assets),
        nn.Linear(assets, 2 * assets), nn.BatchNorm1d(2 * assets), nn.ReLU(),
        nn.Linear(2 * assets, assets), nn.BatchNorm1d(assets), nn.ReLU(),
        nn.Linear(assets, assets),
    ).double()  # fmt: skip


class Judge:
    """The regret of predictions, by the program without its ridge, and their Sharpe ratio, on the test."""

    def __init__(self, market: Market) -> None:
        program, c, x = problem(market, 0.0)
        self._layer = CvxpyLayer(program, [c], [x], on_unconverged="ignore")
        self._features, self._returns = market.features[market.cut :], market.returns[market.cut :]
        self._periods = market.periods
        self._best = self._layer(self._returns)[0]

    @torch.no_grad()
    def portfolios(self, model: nn.Module) -> Tensor:
        """Of a model's predictions."""
        model.eval()
        chosen = self._layer(model(self._features))[0]
        model.train()
        return chosen

    def regret(self, portfolios: Tensor) -> float:
        """The mean."""
        return float((self._returns * (self._best - portfolios)).sum(-1).mean())

    def sharpe(self, portfolios: Tensor) -> float:
        """Mean over deviation of what they brought, for a year; NaN where there is no time."""
        brought = (self._returns * portfolios).sum(-1)
        return float(brought.mean() / brought.std()) * (self._periods or float("nan")) ** 0.5


def loss_of(layer: Layer | None, prediction: Tensor, returns: Tensor) -> Tensor:
    """What is lost, or in two stages the squared error."""
    if layer is None:
        return (prediction - returns).square().mean()
    return -(returns * layer(prediction)).sum(-1).mean()


def train(
    layer: Layer | None, market: Market, plan: Plan, seed: int, judge: Judge, told: Callable[[], None]
) -> tuple[Course, float]:
    """Train a network through a layer, scored by its test regret; and the Sharpe ratio that it comes to."""
    model = network(market, seed)

    def loss(rows: slice) -> Tensor:
        return loss_of(layer, model(market.features[rows]), market.returns[rows])

    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    course = trained(loss, optimizer, lambda: judge.regret(judge.portfolios(model)), plan, told)
    return course, judge.sharpe(judge.portfolios(model))


def by_differences(market: Market, guess: Tensor, direction: Tensor) -> float:
    """The loss gradient on predictions of the first batch, in one direction, by central differences.

    Of a layer's solutions: those of the black box are not exact enough for that.
    """
    program, c, x = problem(market, RIDGE)
    layer = CvxpyLayer(program, [c], [x])
    width, returns = 1e-5, market.returns[:BATCH]
    up, down = (loss_of(lambda c: layer(c)[0], guess + s * width * direction, returns) for s in (1, -1))
    return float((up - down) / (2 * width))


def market_of(given: Arguments) -> tuple[Market, int]:
    """The data and the number of epochs."""
    epochs = 2 if given.quick else given.chosen["epochs"]
    if given.chosen["data"] == "prices":
        from skfolio.datasets import load_sp500_dataset

        training = given.samples or (240 if given.quick else None)
        weeks = None if training is None else round(training / TRAINING)
        return Market.of_prices(load_sp500_dataset(), weeks), epochs
    samples = round((given.samples or (64 if given.quick else 256)) / TRAINING)
    return Market.drawn(samples, 12 if given.quick else 50, given.seed), epochs


def main(argv: Sequence[str] | None = None) -> dict[str, Course]:
    """Train all contestants; returns their courses."""
    given = start("portfolio", __doc__, argv, data=("drawn", "prices"), epochs=EPOCHS)
    market, epochs = market_of(given)
    contestants, judge = given.among(layers(market)), Judge(market)
    equal = torch.full_like(market.returns[market.cut :], 1 / market.assets)
    plan, returns = Plan(market.cut, BATCH, epochs), market.returns[:BATCH]
    guess = network(market, given.seed)(market.features[:BATCH]).detach()
    courses: dict[str, Course] = {}
    sharpe: dict[str, float] = {}
    warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)  # what is not exact is told in the figures
    with Experiment(given, "portfolio", plan.steps * len(contestants)) as run:
        direction = torch.randn(
            BATCH, market.assets, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        truth = by_differences(market, guess, direction)
        for name, layer in contestants.items():
            courses[name], sharpe[name] = train(
                layer, market, plan, given.seed, judge, lambda name=name: run.advance(name)
            )
            if layer is not None:
                found, courses[name].bytes = gradient(
                    lambda guess, layer=layer: loss_of(layer, guess, returns), guess
                )
                courses[name].gradient_error = abs(float((found * direction).sum()) / truth - 1)
            run.keep(courses)
        run.keep(courses, {
            "sharpe": sharpe,
            "recorded": RECORDED,
            "equal weights": {"regret": judge.regret(equal), "sharpe": judge.sharpe(equal)},
        })  # fmt: skip
        left = run.compare(
            courses,
            "test regret",
            f"{market.assets} assets, {len(market.returns)} samples, test regret",
            {"Sharpe": sharpe} if market.periods else {},
        )
        left.set_yscale("log")
        if not given.quick and market.periods is None:
            left.axhline(RECORDED, color="#222222", linestyle=":", label="recorded by the authors")
            left.legend()
    return courses


if __name__ == "__main__":
    main()
