"""Trains the same model, from the same seed on the same batches, once with each layer class.

What is measured is the same for both, and apart from what is timed:

- seconds, PyTorch on one thread: of the training steps alone, and of them the layer's own forward and
  backward pass. One untimed pass over the first batch comes before, for either layer.
- gradient error: after every epoch, at the weights of the moment, the gradient of the loss of one fixed batch
  is compared with a reference of high accuracy that owes nothing to cvxfold: cvxpylayers itself at
  ``eps=1e-10, mode="dense"``.
- residual: the worst in the epoch of those that cvxfold reports; cvxpylayers reports none.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from cvxfold.studies.demo.data import Weeks, load, split
from cvxfold.studies.demo.model import Predictor, markowitz, regret, utility

REFERENCE = {"eps": 1e-10, "mode": "dense"}


@dataclass(frozen=True)
class Step:
    """Where the training stands: ``last`` tells whether the step is the last of its epoch."""

    layer: str
    epoch: int
    loss: float
    last: bool


Progress = Callable[[Step], None]


@dataclass(frozen=True)
class Settings:
    """How to train.

    Args:
        epochs: passes over the training weeks.
        batch: weeks in a step.
        seed: of the initial weights and of the order of the weeks.
        learning_rate: of Adam.
        weeks: use only so many of the latest training and test weeks; None for all.
    """

    epochs: int = 25
    batch: int = 64
    seed: int = 0
    learning_rate: float = 0.01
    weeks: int | None = None


@dataclass
class Run:
    """What training with one layer gave; lists have one entry for each epoch unless said otherwise."""

    layer: str  # name and version of the package
    build_seconds: float = 0.0
    loss: list[float] = field(default_factory=list)
    gradient_error: list[float] = field(default_factory=list)
    residual: list[float] = field(default_factory=list)
    layer_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    untrained_test_regret: float = 0.0
    test_regret: float = 0.0
    wealth: list[float] = field(default_factory=list)  # one for each test week, from 1 before the first
    warnings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Both runs, and what they have in common."""

    settings: Settings
    train: Weeks
    test: Weeks
    equal_wealth: list[float]  # by test week, of equal weights
    runs: tuple[Run, Run]

    @property
    def layer_speedup(self) -> float:
        """How many times as long the passes of cvxpylayers' layer took."""
        theirs, ours = self.runs
        return sum(theirs.layer_seconds) / sum(ours.layer_seconds)

    @property
    def training_speedup(self) -> float:
        """How many times as long the training steps with cvxpylayers took."""
        theirs, ours = self.runs
        return sum(theirs.seconds) / sum(ours.seconds)


class Stopwatch(nn.Module):
    """Calls a layer and adds up the seconds of its forward and backward pass.

    The backward pass lasts from the gradient on the output's being there to that on the input's.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer, self._started, self.seconds = layer, 0.0, 0.0

    def forward(self, predicted: Tensor, root: Tensor) -> Tensor:
        """The weights ``(T, n)``; to be followed by a backward pass."""
        predicted.register_hook(lambda _: self._stop())
        self._start()
        (weights,) = self._layer(predicted, root)
        self._stop()
        weights.register_hook(lambda _: self._start())
        return weights

    def _start(self) -> None:
        self._started = time.perf_counter()

    def _stop(self) -> None:
        self.seconds += time.perf_counter() - self._started


class Trainer:
    """One model and one layer.

    Args:
        run: the record to fill.
        layer_class: cvxfold's or cvxpylayers' ``CvxpyLayer``.
        weeks: to train on.
        best: the highest utility in each of them, ``(T,)``.
        settings: how to train.
    """

    def __init__(
        self, run: Run, layer_class: Callable[..., nn.Module], weeks: Weeks, best: Tensor, settings: Settings
    ) -> None:
        n, d = weeks.features.shape[1:]
        torch.manual_seed(settings.seed)
        self._run, self._weeks, self._best, self._settings = run, weeks, best, settings
        self._predictor = Predictor(n, d)
        self._optimizer = torch.optim.Adam(self._predictor.parameters(), lr=settings.learning_rate)
        start = time.perf_counter()
        self._layer = layer_class(*markowitz(n))
        run.build_seconds = time.perf_counter() - start

    def fit(self, reference: nn.Module, progress: Progress) -> None:
        """Train for all epochs."""
        order = torch.Generator().manual_seed(self._settings.seed)
        fixed = torch.arange(min(self._settings.batch, len(self._weeks)))
        self.gradient(self._layer, fixed)  # warm up
        for epoch in range(1, self._settings.epochs + 1):
            self._epoch(epoch, torch.randperm(len(self._weeks), generator=order), progress)
            exact = self.gradient(reference, fixed)
            error = (self.gradient(self._layer, fixed) - exact).norm() / exact.norm()
            self._run.gradient_error.append(float(error))

    def _epoch(self, epoch: int, order: Tensor, progress: Progress) -> None:
        loss, residual, seconds, layer = 0.0, [], 0.0, Stopwatch(self._layer)
        batches = order.split(self._settings.batch)
        for number, batch in enumerate(batches, 1):
            start = time.perf_counter()
            self._optimizer.zero_grad()
            mean = self._loss(layer, batch)
            mean.backward()
            self._optimizer.step()
            seconds += time.perf_counter() - start
            loss += mean.item() * len(batch) / len(order)
            report: Any = getattr(self._layer, "report", None)
            if report is not None:
                residual.append(float(report.backward.residual.max()))
            progress(Step(self._run.layer, epoch, mean.item(), last=number == len(batches)))
        self._run.loss.append(loss)
        self._run.seconds.append(seconds)
        self._run.layer_seconds.append(layer.seconds)
        if residual:
            self._run.residual.append(max(residual))

    def _loss(self, layer: Callable[[Tensor, Tensor], Tensor], batch: Tensor) -> Tensor:
        weeks, root = self._weeks, self._weeks.root[batch]
        weights = layer(self._predictor(weeks.features[batch]), root)
        return regret(weights, weeks.returns[batch], root, self._best[batch]).mean()

    def gradient(self, layer: nn.Module, batch: Tensor) -> Tensor:
        """Of the loss of some weeks in the model's weights, all in one vector."""
        loss = self._loss(lambda *params: layer(*params)[0], batch)
        grads = torch.autograd.grad(loss, list(self._predictor.parameters()))
        return torch.cat([g.flatten() for g in grads])

    @torch.no_grad()
    def invest(self, weeks: Weeks) -> Tensor:
        """The weights the model chooses, ``(T, n)``."""
        (weights,) = self._layer(self._predictor(weeks.features), weeks.root)
        return weights


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch on one thread: matrices this small gain little from more.

    But threads that wait for each other by spinning lose a factor of ten once another program wants a core
    (measured), which says nothing about either layer. diffcp, behind cvxpylayers, keeps its threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def compare(settings: Settings, progress: Progress = lambda _: None) -> Result:
    """Train with cvxpylayers and with cvxfold.

    Warnings are not printed but counted in the record of the run they fall in.

    Raises:
        ModuleNotFoundError: skfolio is not installed.
    """
    from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

    from cvxfold.torch import CvxpyLayer

    train, test = split(load())
    if settings.weeks is not None:
        train, test = train.between(-settings.weeks, None), test.between(None, settings.weeks)
    oracle = CvxpyLayer(*markowitz(len(train.tickers)))
    best = [_highest(oracle, weeks) for weeks in (train, test)]
    reference = UpstreamLayer(*markowitz(len(train.tickers)), solver_args=REFERENCE)
    runs = []
    classes: dict[str, Callable[..., nn.Module]] = {
        f"cvxpylayers {version('cvxpylayers')}": UpstreamLayer,
        f"cvxfold {version('cvxfold')}": CvxpyLayer,
    }
    for name, layer_class in classes.items():
        run = Run(name)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer = Trainer(run, layer_class, train, best[0], settings)
            run.untrained_test_regret, _ = _evaluate(trainer, test, best[1])
            trainer.fit(reference, progress)
            run.test_regret, run.wealth = _evaluate(trainer, test, best[1])
        run.warnings = dict(Counter(_describe(w) for w in caught if _concerns_users(w)))
        runs.append(run)
    return Result(settings, train, test, _wealth(test.returns.mean(-1)), (runs[0], runs[1]))


def _highest(layer: nn.Module, weeks: Weeks) -> Tensor:
    """The utility of the portfolios that know the true returns, ``(T,)``."""
    (weights,) = layer(weeks.returns, weeks.root)
    return utility(weights, weeks.returns, weeks.root)


def _evaluate(trainer: Trainer, weeks: Weeks, best: Tensor) -> tuple[float, list[float]]:
    """The mean regret, and the wealth by week."""
    weights = trainer.invest(weeks)
    return float(regret(weights, weeks.returns, weeks.root, best).mean()), _wealth(
        (weights * weeks.returns).sum(-1)
    )


def _wealth(percent: Tensor) -> list[float]:
    return torch.cumprod(1 + percent / 100, 0).tolist()


def _describe(warning: warnings.WarningMessage) -> str:
    return f"{warning.category.__name__}: {str(warning.message).splitlines()[0]}"


def _concerns_users(warning: warnings.WarningMessage) -> bool:
    return not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning)
