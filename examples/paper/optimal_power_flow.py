"""Optimal power flow with predicted costs of generation: two-stage, implicit, unrolled SQP, folded SQP.

    minimize Σ c₂p² + c₁p    subject to the alternating-current power-flow equations and bounds on V, p, q

On the IEEE 57-bus case (with ``--quick``, the 14-bus one) a network predicts the costs c from temperatures of
yesterday and today, and is trained on the regret of the dispatch that this leads to. This is not convex.
Data and settings are those of Kotary, Christopher, Dinh and Fioretto: demands that grow by up to a fifth, at
some of the buses, with the distance from 65 °F; costs that grow with the change of temperature; 25 epochs of
Adam, a day a step. But here each generator has a sensitivity of its own, for with one in common the best
dispatch would not depend on it. The black box in front of the folded step is an interior-point method.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from experiment import Course, Experiment, Plan, gradient, start, trained
from power.interior_point import Point, Program, minimize
from power.network import Network
from torch import Tensor, nn

import cvxfold
from cvxfold.fold import GMRES, Unrolled
from cvxfold.fold.updates import SQPStep

SCALE = 1e-4  # of dollars an hour
CURVATURE = 0.03  # of H beside that of the costs
WIDTH, HIDDEN = 32, 4
LEAST = 0.05  # multiple of the nominal costs
RATES = (0.01, 0.1)  # the latter is the authors'
EPSILON = 1e-4  # of Adam: where generators are at bounds gradients are rounding, of which it would make steps
COMPARED, DEPTH = 4, 5  # days whose gradients are compared; steps that are unrolled

Layer = Callable[[Tensor, Tensor], Tensor]


class Dispatch:
    """The optimal power flow of a network, with costs ``(B, 2, g)`` (c₂, c₁) and loads ``(B, 2, N)``."""

    def __init__(self, network: Network) -> None:
        self.network = network
        first = len(network.low) - 2 * network.generators
        self.active = slice(first, first + network.generators)
        self._below, self._above = network.low.isfinite(), network.high.isfinite()
        eye = torch.eye(len(network.low), dtype=torch.float64)
        self._bounds = torch.cat([-eye[self._below], eye[self._above]])

    def cost(self, x: Tensor, costs: Tensor, *_: Any) -> Tensor:
        """What is minimized, ``(B,)``, without constant costs."""
        p = x[..., self.active]
        return SCALE * (costs[..., 0, :] * p.square() + costs[..., 1, :] * p).sum(-1)

    def solve(self, costs: Tensor, loads: Tensor, strict: bool = True) -> Point:
        """A KKT point of each instance.

        Raises:
            RuntimeError: none is found for some of them; unless strict they have a residual of NaN.
        """
        low, high = self.network.low, self.network.high
        begin = torch.where(low.isfinite(), (low + high) / 2, 0.0).expand(len(costs), -1)
        point = minimize(self.program(costs, loads), begin)
        failed = int(point.residual.isnan().sum())
        if strict and failed:
            raise RuntimeError(f"no optimal power flow was found for {failed} of {len(costs)} instances")
        return point

    def optimum(self, costs: Tensor, loads: Tensor) -> Tensor:
        """x alone."""
        return self.solve(costs, loads).x

    def program(self, costs: Tensor, loads: Tensor) -> Program:
        """The problem by its derivatives."""

        def slope(x: Tensor) -> Tensor:
            return self._padded(2 * costs[:, 0] * x[:, self.active] + costs[:, 1])

        def hessian(x: Tensor, multipliers: Tensor) -> Tensor:
            return torch.diag_embed(self._padded(2 * costs[:, 0])) + self.network.curvature(x, multipliers)

        net = self.network
        return Program(slope, lambda x: net.mismatch(x, loads), net.jacobian, hessian, net.low, net.high)

    def step(self) -> SQPStep:
        """One SQP step: its H is that of the costs, and a constant for what the equations bend."""
        net = self.network

        def outside(x: Tensor, *_: Tensor) -> Tensor:
            return torch.cat([(net.low - x)[..., self._below], (x - net.high)[..., self._above]], dim=-1)

        def hessian(x: Tensor, costs: Tensor, _: Tensor) -> Tensor:
            return torch.diag_embed(CURVATURE + self._padded(2 * costs[:, 0]))

        return SQPStep(
            self.cost,
            equalities=lambda x, _, loads: net.mismatch(x, loads),
            inequalities=outside,
            hessian=hessian,
            equalities_jacobian=lambda x, *_: net.jacobian(x),
            inequalities_jacobian=lambda x, *_: self._bounds.expand(len(x), -1, -1),
        )

    def layers(self, depth: int) -> dict[str, Layer | None]:
        """The ways from predicted costs to a dispatch that can be differentiated."""
        step, common = self.step(), {"batched": True, "on_unconverged": "ignore", "probe": False}
        return {
            "two-stage": None,
            "implicit, KKT": lambda costs, loads: _Implicit.apply(costs, loads, self),
            "unrolled SQP": cvxfold.fold(step, self.optimum, backward=Unrolled(depth), **common),
            "folded SQP": cvxfold.fold(step, self.optimum, backward=GMRES(), **common),
        }

    def _padded(self, of_generators: Tensor) -> Tensor:
        """Scaled, and zero for all that is not p."""
        rest = len(self.network.low) - self.active.stop
        return torch.nn.functional.pad(SCALE * of_generators, (self.active.start, rest))


class _Implicit(torch.autograd.Function):
    """Implicit differentiation of the KKT conditions, at the multipliers of the interior-point method.

    With K the matrix of its last Newton step, K (w, ν) = (x̄, 0), and c̄ = −(∂²f/∂x∂c)ᵀ w.
    """

    @staticmethod
    def forward(ctx: Any, costs: Tensor, loads: Tensor, dispatch: Dispatch) -> Tensor:
        point = dispatch.solve(costs, loads)
        ctx.save_for_backward(costs, loads)
        ctx.dispatch, ctx.point = dispatch, point
        return point.x

    @staticmethod
    def backward(ctx: Any, *x_bar: Tensor) -> tuple[Tensor, None, None]:
        K = ctx.point.newton(ctx.dispatch.program(*ctx.saved_tensors))
        right = torch.nn.functional.pad(x_bar[0], (0, K.shape[-1] - x_bar[0].shape[-1]))
        w = torch.linalg.solve(K, right)[:, ctx.dispatch.active]
        p = ctx.point.x[:, ctx.dispatch.active]
        return -SCALE * torch.stack([2 * p * w, w], dim=1), None, None


@dataclass(frozen=True)
class Days:
    """Temperatures ``(D, 2)``, costs ``(D, 2, g)``, loads ``(D, 2, N)`` and the lowest costs, ``(D,)``."""

    features: Tensor
    costs: Tensor
    loads: Tensor
    best: Tensor

    @classmethod
    def drawn(cls, dispatch: Dispatch, count: int, seed: int) -> "Days":
        """As the authors draw them, but for the sensitivities; days that cannot be served are left out."""
        network, generator = dispatch.network, np.random.default_rng(seed)
        many, nominal = 3 * count, network.cost[:2].numpy()
        before = generator.uniform(20, 110, many)
        today = before + generator.normal(0, 20, many)
        change = np.abs(today - before)[:, None, None] / 100
        sensitivity = generator.uniform(0, 2, (1, network.generators))
        costs = nominal * (1 + 0.01 * generator.normal(size=nominal.shape)) * (1 + sensitivity * change)
        extra = np.abs(today - 65) / 45
        more = 0.2 * (extra / extra.max())[:, None] * (generator.random((many, network.buses)) < 0.4)
        loads = network.load * torch.tensor(1 + more).unsqueeze(1)
        features = torch.tensor(np.stack([before, today], axis=-1) - 65) / 45
        costs = torch.tensor(costs)
        point = dispatch.solve(costs, loads, strict=False)
        kept = point.residual.isfinite().nonzero().flatten()[:count]
        if len(kept) < count:
            raise RuntimeError(f"of {many} days only {len(kept)} can be served; {count} are wanted")
        best = dispatch.cost(point.x, costs)
        return cls(features[kept], costs[kept], loads[kept], best[kept])


class Predictor(nn.Module):
    """Temperatures to costs, at first the nominal ones; of as many layers as the authors have."""

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        sizes = [2, *[WIDTH] * HIDDEN]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        last = nn.Linear(WIDTH, 2 * network.generators)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, math.log(math.expm1(1 - LEAST)))
        self.layers = nn.Sequential(*hidden, last, nn.Softplus()).double()
        self.nominal = network.cost[:2]

    def forward(self, features: Tensor) -> Tensor:
        """Costs, ``(B, 2, g)``."""
        return (LEAST + self.layers(features).view(-1, *self.nominal.shape)) * self.nominal


def measured(
    dispatch: Dispatch, days: Days, rows: slice, layers: dict[str, Layer | None]
) -> dict[str, Course]:
    """Bytes and error of a loss gradient on wrong costs, relative to the nominal ones.

    The reference are central differences of the black box in each of the costs.
    """
    nominal, best, loads = dispatch.network.cost[:2], days.best[rows], days.loads[rows]
    generator = torch.Generator().manual_seed(1)
    drawn = torch.rand(len(best), *nominal.shape, dtype=torch.float64, generator=generator)
    guess, width = 0.8 + 0.4 * drawn, 1e-4

    def lost(layer: Layer, guess: Tensor) -> Tensor:
        return 100 * dispatch.cost(layer(guess * nominal, loads), days.costs[rows]) / best

    exact = torch.zeros_like(guess)
    for place in np.ndindex(*nominal.shape):
        wide = torch.zeros_like(guess)
        wide[:, *place] = width
        up, down = (lost(dispatch.optimum, guess + s * wide) for s in (1, -1))
        exact[:, *place] = (up - down) / (2 * width)
    found: dict[str, Course] = {}
    for name, layer in layers.items():
        found[name] = Course()
        if layer is not None:
            one, found[name].bytes = gradient(lambda g, layer=layer: lost(layer, g).sum(), guess)
            found[name].gradient_error = float((one - exact).norm() / exact.norm())
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, Course]:
    """Train all contestants; returns their courses, scored by regret in percent of the lowest cost."""
    from pypower.api import case14, case57

    given = start("optimal_power_flow", __doc__, argv, rate=RATES)
    case, sizes, batch, epochs = (case14, (16, 4, 16), 4, 5) if given.quick else (case57, (26, 13, 24), 1, 25)
    train, _, test = given.scaled(sizes)
    dispatch = Dispatch(Network.of(case()))
    days = Days.drawn(dispatch, train + test, given.seed)
    contestants, plan = given.among(dispatch.layers(DEPTH)), Plan(train, batch, epochs)
    courses: dict[str, Course] = {}

    def lost(x: Tensor, rows: slice) -> Tensor:
        return 100 * (dispatch.cost(x, days.costs[rows]) / days.best[rows] - 1).mean()

    warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)  # what is not exact is told in the figures
    with Experiment(given, "optimal power flow", plan.steps * len(contestants)) as run:
        for name, layer in contestants.items():
            model = Predictor(dispatch.network, given.seed)

            def loss(rows: slice, model: nn.Module = model, layer: Layer | None = layer) -> Tensor:
                guess, costs = model(days.features[rows]), days.costs[rows]
                if layer is None:
                    return ((guess - costs) / dispatch.network.cost[:2]).abs().mean()
                return lost(layer(guess, days.loads[rows]), rows)

            @torch.no_grad()
            def regret(model: nn.Module = model) -> float:
                rows = slice(train, train + test)
                return float(lost(dispatch.optimum(model(days.features[rows]), days.loads[rows]), rows))

            optimizer = torch.optim.Adam(model.parameters(), given.chosen["rate"], eps=EPSILON)
            courses[name] = trained(loss, optimizer, regret, plan, lambda name=name: run.advance(name))
            run.keep(courses)
        for name, one in measured(dispatch, days, slice(COMPARED), contestants).items():
            courses[name].bytes, courses[name].gradient_error = one.bytes, one.gradient_error
            courses[name].count(contestants[name])
        run.compare(
            courses,
            "test regret, percent",
            f"{dispatch.network.buses} buses, {train} days",
            {"last five": {name: float(np.mean(course.score[-5:])) for name, course in courses.items()}},
        )
        run.keep(courses, {"depth": DEPTH})
    return courses


if __name__ == "__main__":
    main()
