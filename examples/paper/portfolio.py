"""Markowitz portfolios with predicted returns: two-stage, cone layers, unrolled SQP, folded SQP.

    maximize cᵀx − η‖x‖²    subject to xᵀΣx ≤ γ,  Σx ≤ 1,  x ≥ 0

A network predicts the returns c from features; it is trained on the regret of the portfolio that this leads
to, cᵀx*(c) − cᵀx*(ĉ), with x* of η = 0 where regrets are told. Data and settings are those of Kotary,
Christopher, Dinh and Fioretto's experiment, after Elmachtoub and Grigas, "Smart predict, then
optimize", 2022.
The black-box solver in front of the folded step is Clarabel through cvxpy.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as PeerLayer
from experiment import Course, Experiment, Plan, gradient, start, trained
from torch import Tensor, nn

import cvxfold
from cvxfold.fold import GMRES, Unrolled
from cvxfold.fold.updates import SQPStep
from cvxfold.torch import CvxpyLayer

FEATURES, FACTORS, NOISE, RISK, RIDGE, SCALE = 5, 4, 0.1, 22.5 / 2, 0.1, 1e6
STEP, DEPTH = 0.01, 20
RATE, BATCH = 0.01, 32
RECORDED = 0.00364  # the final test regret in the authors' repository

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Market:
    """The data: features ``(N, 5)``, returns ``(N, n)``, Σ and γ, both times a million as the authors do."""

    features: Tensor
    returns: Tensor
    covariance: Tensor
    risk: float

    @classmethod
    def drawn(cls, samples: int, assets: int, seed: int) -> "Market":
        """Returns r = 0.05/√p Bz + 0.1 + Lf + 0.01τε, of degree 1, with B of zeros and ones."""
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

    @property
    def assets(self) -> int:
        """n."""
        return self.returns.shape[1]


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
    """The ways from predicted returns to a portfolio that can be differentiated."""
    program, c, x = problem(market, RIDGE)
    common: Any = {"batched": True, "on_unconverged": "ignore", "probe": False}
    solver = black_box(market)
    folded = cvxfold.fold(sqp_step(market, STEP), solver, backward=GMRES(), **common)
    unrolled = cvxfold.fold(sqp_step(market, 1.0), solver, backward=Unrolled(DEPTH), **common)
    own, peer = CvxpyLayer(program, [c], [x]), PeerLayer(program, [c], [x])
    return {
        "two-stage": None,
        "cvxpylayers": lambda returns: peer(returns)[0],
        "cvxfold layer": lambda returns: own(returns)[0],
        "unrolled SQP": unrolled,
        "folded SQP": folded,
    }


def network(assets: int, seed: int) -> nn.Sequential:
    """5 − n − 2n − n − n, with batch normalization."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(FEATURES, assets), nn.ReLU(), nn.BatchNorm1d(assets),
        nn.Linear(assets, 2 * assets), nn.BatchNorm1d(2 * assets), nn.ReLU(),
        nn.Linear(2 * assets, assets), nn.BatchNorm1d(assets), nn.ReLU(),
        nn.Linear(assets, assets),
    ).double()  # fmt: skip


class Regret:
    """The regret of predictions, by the program without its ridge."""

    def __init__(self, market: Market) -> None:
        program, c, x = problem(market, 0.0)
        self._layer = CvxpyLayer(program, [c], [x], on_unconverged="ignore")

    @torch.no_grad()
    def __call__(self, model: nn.Module, features: Tensor, returns: Tensor) -> float:
        """Of a model's predictions, the mean."""
        model.eval()
        best, chosen = self._layer(returns)[0], self._layer(model(features))[0]
        model.train()
        return float((returns * (best - chosen)).sum(-1).mean())


def loss_of(layer: Layer | None, prediction: Tensor, returns: Tensor) -> Tensor:
    """What is lost, or in two stages the squared error."""
    if layer is None:
        return (prediction - returns).square().mean()
    return -(returns * layer(prediction)).sum(-1).mean()


def train(
    layer: Layer | None, market: Market, plan: Plan, seed: int, regret: Regret, told: Callable[[], None]
) -> Course:
    """Train a network through a layer on the first samples; the rest is the test. Scored by its regret."""
    model = network(market.assets, seed)

    def loss(rows: slice) -> Tensor:
        return loss_of(layer, model(market.features[rows]), market.returns[rows])

    test = market.features[plan.samples :], market.returns[plan.samples :]
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    return trained(loss, optimizer, lambda: regret(model, *test), plan, told)


def by_differences(market: Market, seed: int, direction: Tensor) -> float:
    """The same gradient in one direction, by central differences of the black box."""
    model, solve = network(market.assets, seed), black_box(market)
    prediction, returns = model(market.features[:BATCH]).detach(), market.returns[:BATCH]
    width = 1e-5
    up, down = (loss_of(solve, prediction + s * width * direction, returns) for s in (1, -1))
    return float((up - down) / (2 * width))


def main(argv: Sequence[str] | None = None) -> dict[str, Course]:
    """Train all contestants; returns their courses."""
    given = start("portfolio", __doc__, argv)
    samples, assets, epochs = (80, 12, 2) if given.quick else (320, 50, 20)
    market = Market.drawn(samples, assets, given.seed)
    contestants, regret = layers(market), Regret(market)
    plan = Plan(int(0.8 * samples), BATCH, epochs)
    returns = market.returns[:BATCH]
    guess = network(assets, given.seed)(market.features[:BATCH]).detach()
    courses: dict[str, Course] = {}
    warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)  # what is not exact is told in the figures
    with Experiment(given, "portfolio", plan.steps * len(contestants)) as run:
        direction = torch.randn(
            BATCH, assets, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        truth = by_differences(market, given.seed, direction)
        for name, layer in contestants.items():
            courses[name] = train(
                layer, market, plan, given.seed, regret, lambda name=name: run.advance(name)
            )
            if layer is not None:
                found, courses[name].bytes = gradient(
                    lambda guess, layer=layer: loss_of(layer, guess, returns), guess
                )
                courses[name].gradient_error = abs(float((found * direction).sum()) / truth - 1)
        run.save({"courses": {name: vars(course) for name, course in courses.items()}, "recorded": RECORDED})
        left = run.compare(courses, "test regret", f"{assets} assets, {samples} samples, test regret")
        left.set_yscale("log")
        if not given.quick:
            left.axhline(RECORDED, color="#222222", linestyle=":", label="recorded by the authors")
            left.legend()
    return courses


if __name__ == "__main__":
    main()
