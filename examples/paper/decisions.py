"""What the nonconvex decision problems share: predicted costs, KKT conditions, and a contest in regret."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from experiment import Arguments, Course, Experiment, Plan, best_kept, gradient, trained
from torch import Tensor, nn

import cvxfold
from cvxfold.fold import GMRES, LFPI, Unrolled

DEPTH, COLD = 10, 20  # steps unrolled from a solution, or folded; and from elsewhere
RATES, BATCH, EPOCHS_FIRST = (1e-2, 1e-3), 50, 30  # first on squared errors, then on the regret

LONGER = "two-stage, as long"  # as the others: on squared errors all the time

Layer = Callable[..., Tensor]
"""Predicted costs ``(B, n)`` and what is known of each instance → decisions ``(B, n)``."""


class Problem(Protocol):
    """Minimize f over a set; p ``(B, n)`` are the costs, ``known`` is what else differs by instance."""

    def value(self, y: Tensor, p: Tensor, *known: Tensor) -> Tensor:
        """What decisions are judged by, ``(B,)``."""
        ...

    def solve(self, p: Tensor, *known: Tensor) -> Tensor:
        """A minimum of f, the smooth objective that is trained through, by a black box."""
        ...

    def decide(self, p: Tensor, *known: Tensor) -> Tensor:
        """A minimum of the value."""
        ...

    def kkt(self, y: Tensor, p: Tensor, *known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a solution's derivative is made of.

        Returns:
            ∇²f, ``(B, n, n)``; the gradients of active constraints, and zeros for others, ``(B, q, n)``; the
            diagonal of ∂∇f/∂p, ``(B, n)``.
        """
        ...


def kkt_solution(hessian: Tensor, active: Tensor, right: Tensor, level: Tensor) -> Tensor:
    """u of [H Cᵀ; C 0] (u, ·) = (right, level), ``(B, n)``; rows of C that are zero do not count."""
    corner = torch.diag_embed(-(active == 0).all(-1).to(hessian))
    upper, lower = torch.cat([hessian, active.mT], -1), torch.cat([active, corner], -1)
    both = torch.cat([right, level], -1)
    return torch.linalg.solve(torch.cat([upper, lower], -2), both)[:, : right.shape[-1]]


def implicit(problem: Problem) -> Layer:
    """The black box, differentiated through its KKT conditions: a dense system [H Cᵀ; C 0] an instance."""

    class Implicit(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, p: Tensor, *known: Tensor) -> Tensor:
            y = problem.solve(p, *known)
            ctx.save_for_backward(y, p, *known)
            return y

        @staticmethod
        def backward(ctx: Any, *bars: Tensor) -> Any:
            hessian, active, cross = problem.kkt(*ctx.saved_tensors)
            u = kkt_solution(hessian, active, bars[0], bars[0].new_zeros(active.shape[:2]))
            return -cross * u, *(None for _ in ctx.saved_tensors[2:])

    return lambda p, *known: Implicit.apply(p, *known)  # pyright: ignore[reportReturnType]


def contestants(
    problem: Problem, update: Callable[..., Tensor], begin: Layer, where: str
) -> dict[str, Layer]:
    """The ways from predicted costs to a decision with a gradient.

    Args:
        update: a projected gradient step. begin: where unrolling starts without a solution. where: that is.
    """
    common: Any = {"batched": True, "on_unconverged": "ignore", "probe": False}

    def folded(method: Any, **more: Any) -> Layer:
        return cvxfold.fold(update, problem.solve, backward=method, **more, **common)

    return {
        "implicit, KKT": implicit(problem),
        f"unrolled PGD, {COLD} from {where}": folded(Unrolled(COLD, start="cold"), start=begin),
        f"unrolled PGD, {DEPTH} from y*": folded(Unrolled(DEPTH)),
        f"folded PGD, {DEPTH} LFPI": folded(LFPI(), backward_max_iters=DEPTH),
        "folded PGD, GMRES": folded(GMRES()),
    }


def spectral_radius(update: Callable[..., Tensor], y: Tensor, *params: Tensor) -> Tensor:
    """ρ(Φ) of an update at its fixed points y, ``(B,)``, by Φ as a matrix."""
    y = y.detach().requires_grad_()
    image = update(y, *params)
    rows = [torch.autograd.grad(one.sum(), y, retain_graph=True)[0] for one in image.unbind(-1)]
    return torch.linalg.eigvals(torch.stack(rows, -2)).abs().amax(-1)


@dataclass(frozen=True)
class Samples:
    """Costs ``(N, n)``, what is known ``(N, …)``, features ``(N, n)`` and the least values, ``(N,)``."""

    costs: Tensor
    known: tuple[Tensor, ...]
    features: Tensor
    best: Tensor

    @classmethod
    def of(cls, problem: Problem, costs: Tensor, known: tuple[Tensor, ...], seed: int) -> "Samples":
        """With features that a random network of one hidden layer of 2n makes of the costs, standardized."""
        torch.manual_seed(seed)
        n = costs.shape[1]
        with torch.no_grad():
            seen = nn.Sequential(nn.Linear(n, 2 * n), nn.ReLU(), nn.Linear(2 * n, n)).double()(costs)
        parts = zip(*(one.split(BATCH) for one in (costs, *known)), strict=True)
        best = [problem.value(problem.decide(*part), *part) for part in parts]
        return cls(costs, known, (seen - seen.mean(0)) / seen.std(0), torch.cat(best))

    def at(self, rows: slice) -> tuple[Tensor, ...]:
        """Costs and what is known, of some rows."""
        return self.costs[rows], *(one[rows] for one in self.known)

    @torch.no_grad()
    def regret(self, problem: Problem, model: nn.Module, rows: slice) -> float:
        """The mean regret of a model over some rows, relative to the mean of |value|."""
        model.eval()
        p, *known = self.at(rows)
        guess = model(self.features[rows])
        model.train()
        parts = zip(*(one.split(BATCH) for one in (guess, p, *known)), strict=True)
        found = [problem.value(problem.decide(guess, *of), p, *of) for guess, p, *of in parts]
        best = self.best[rows]
        return float((torch.cat(found) - best).mean() / best.abs().mean())


@dataclass
class Contest:
    """Contestants on one problem, each trained from the two-stage model on.

    Args:
        sizes: of the training, validation and test sets.
        epochs: of those that train through the problem.
        courses, regrets: what came of each, the latter on the test set.
        differences: how far the KKT conditions' gradient is from central differences, relatively.
        rho: ρ(Φ) of a batch.
    """

    problem: Problem
    samples: Samples
    sizes: tuple[int, int, int]
    epochs: int
    seed: int
    courses: dict[str, Course] = field(default_factory=dict)
    regrets: dict[str, float] = field(default_factory=dict)
    differences: float = float("nan")
    rho: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def plan(self) -> Plan:
        """Of those that train through the problem."""
        return Plan(self.sizes[0], BATCH, self.epochs)

    def network(self) -> nn.Sequential:
        """n − n − n, with batch normalization."""
        torch.manual_seed(self.seed)
        n = self.samples.costs.shape[1]
        return nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.BatchNorm1d(n), nn.Linear(n, n)).double()

    def train(
        self, name: str, model: nn.Module, loss: Callable[[slice], Tensor], told: Callable[[], None] | None
    ) -> None:
        """Train a model, to that of the epoch which was best on the validation set; note its test regret.

        Args:
            told: is called after each step; None for the training on squared errors, which comes first.
        """
        begin, end = self.sizes[0], sum(self.sizes[:2])
        score, restore = best_kept(model, lambda: self.samples.regret(self.problem, model, slice(begin, end)))
        optimizer = torch.optim.AdamW(model.parameters(), RATES[0 if told is None else 1])
        plan = Plan(self.sizes[0], BATCH, EPOCHS_FIRST) if told is None else self.plan
        self.courses[name] = trained(loss, optimizer, score, plan, told or (lambda: None))
        self.courses[name].since = 0 if told is None else EPOCHS_FIRST
        restore()
        self.regrets[name] = self.samples.regret(self.problem, model, slice(end, None))

    def lost(self, layer: Layer, guess: Tensor, rows: slice) -> Tensor:
        """The mean value of what is decided by predictions of some rows."""
        p, *known = self.samples.at(rows)
        return self.problem.value(layer(guess, *known), p, *known).mean()

    def held(
        self, given: Arguments, title: str, contestants: Mapping[str, Layer], update: Callable[..., Tensor]
    ) -> None:
        """Train all, compare their gradients at one point, save and show.

        Args:
            update: F, whose Φ is looked at.
        """
        warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)  # what is not exact is in the figures
        contestants = given.among(contestants)
        with Experiment(given, title, self.plan.steps * (1 + len(contestants))) as run:
            guess = self._train_all(contestants, run)
            self._compare(contestants, guess)
            known = [one[: len(guess)] for one in self.samples.known]
            solution = self.problem.solve(guess, *known)
            self.rho = spectral_radius(update, solution, guess, *known)
            run.keep(self.courses, {
                "test regret": self.regrets,
                "KKT gradient against differences": self.differences,
                "spectral radius, median": float(self.rho.median()),
                "spectral radius, worst": float(self.rho.max()),
                "sizes": self.sizes,
            })  # fmt: skip
            run.compare(self.courses, "validation regret", title, {"test regret": self.regrets})

    def _train_all(self, contestants: Mapping[str, Layer], run: Experiment) -> Tensor:
        """Returns the two-stage model's predictions of a batch."""
        first, features = self.network(), self.samples.features

        def squared(rows: slice, model: nn.Module = first) -> Tensor:
            return (model(features[rows]) - self.samples.costs[rows]).square().mean()

        self.train("two-stage", first, squared, None)
        for name, layer in {LONGER: None, **contestants}.items():
            model = copy.deepcopy(first)

            def through(rows: slice, model: nn.Module = model, layer: Layer | None = layer) -> Tensor:
                if layer is None:
                    return squared(rows, model)
                return self.lost(layer, model(features[rows]), rows)

            self.train(name, model, through, lambda name=name: run.advance(name))
            run.keep(self.courses, {"test regret": self.regrets})
        return first(features[:BATCH]).detach()

    def _compare(self, contestants: Mapping[str, Layer], guess: Tensor) -> None:
        """Each loss gradient at these predictions against that of the KKT conditions, that by differences."""
        rows = slice(0, len(guess))
        exact, _ = gradient(lambda guess: self.lost(implicit(self.problem), guess, rows), guess)
        for name, layer in contestants.items():
            found, self.courses[name].bytes = gradient(
                lambda guess, layer=layer: self.lost(layer, guess, rows), guess
            )
            self.courses[name].gradient_error = float((found - exact).norm() / exact.norm())
            self.courses[name].count(layer)
        direction = torch.randn(guess.shape, dtype=guess.dtype, generator=torch.Generator().manual_seed(1))
        width, slope = 1e-5, float((exact * direction).sum())
        up, down = (self.lost(self.problem.solve, guess + side * width * direction, rows) for side in (1, -1))
        self.differences = abs(float(up - down) / (2 * width) / slope - 1)
