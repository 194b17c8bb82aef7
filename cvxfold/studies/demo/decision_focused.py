"""Training through the layer: the loss is what the plans by the forecasts cost.

What is measured, apart from what is timed:

- seconds: of the training steps alone, and of them the layer's own forward and backward pass. One untimed
  pass over a batch comes before, for either layer.
- gradient error: after every epoch, at the weights of the moment, the gradient of the loss of one fixed batch
  is compared with a reference of high accuracy that owes nothing to cvxfold: cvxpylayers itself at
  ``eps=1e-10, mode="dense"``.
- residual: the worst in the epoch of those that cvxfold reports; cvxpylayers reports none.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cvxfold.studies.demo.data import Days
from cvxfold.studies.demo.model import cost, scheduling
from cvxfold.studies.demo.settings import Progress, Settings, Step
from cvxfold.studies.demo.stopwatch import Stopwatch
from cvxfold.studies.demo.training import Loss, Trainer
from cvxfold.studies.demo.two_stage import Planner, mean_cost, mean_plan


@dataclass
class Run:
    """What training with one layer gave; lists have one entry for each epoch unless said otherwise."""

    layer: str  # name and version of the package
    build_seconds: float = 0.0
    loss: list[float] = field(default_factory=list)
    test_cost: list[float] = field(default_factory=list)
    gradient_error: list[float] = field(default_factory=list)
    residual: list[float] = field(default_factory=list)
    layer_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    untrained_test_cost: float = 0.0
    mean_plan: list[float] = field(default_factory=list)  # of the test days, in GW, one for each hour
    warnings: dict[str, int] = field(default_factory=dict)


def planner(layer: nn.Module) -> Planner:
    """What a layer plans, without the tuple around it."""
    return lambda forecast: layer(forecast)[0]


def decision_loss(plan: Planner) -> Loss:
    """The mean cost of plans by the forecasts; gradients reach the forecasts through the plans."""
    return lambda forecast, demand: cost(plan(forecast), demand).mean()


class DecisionFocused:
    """One predictor, trained through one layer.

    Args:
        run: the record to fill.
        layer_class: cvxfold's or cvxpylayers' ``CvxpyLayer``.
        train: the days to train on.
        test: the days to test on.
        settings: how to train.
    """

    def __init__(
        self, run: Run, layer_class: Callable[..., nn.Module], train: Days, test: Days, settings: Settings
    ) -> None:
        start = time.perf_counter()
        self._layer = layer_class(*scheduling())
        run.build_seconds = time.perf_counter() - start
        self._run, self._test, self._settings = run, test, settings
        self._watch = Stopwatch(self._layer)
        self._trainer = Trainer(run.layer, decision_loss(self._watch), train, settings)
        self._fixed = torch.arange(min(settings.batch, len(train)))

    def fit(self, reference: nn.Module, progress: Progress) -> None:
        """Train for all epochs.

        Args:
            reference: a layer whose gradients are accurate.
            progress: told of each step.
        """
        self._run.untrained_test_cost = self._test_cost()
        self._gradient(self._layer)  # warm up
        for _ in range(self._settings.epochs):
            self._epoch(progress)
            exact = self._gradient(reference)
            error = (self._gradient(self._layer) - exact).norm() / exact.norm()
            self._run.gradient_error.append(float(error))
            self._run.test_cost.append(self._test_cost())
        self._run.mean_plan = mean_plan(planner(self._layer), self._trainer.forecast(self._test))

    def _epoch(self, progress: Progress) -> None:
        residual = []

        def done(step: Step) -> None:
            report: Any = getattr(self._layer, "report", None)
            if report is not None:
                residual.append(float(report.backward.residual.max()))
            progress(step)

        self._watch.seconds = 0.0
        loss, seconds = self._trainer.epoch(done)
        self._run.loss.append(loss)
        self._run.seconds.append(seconds)
        self._run.layer_seconds.append(self._watch.seconds)
        if residual:
            self._run.residual.append(max(residual))

    def _gradient(self, layer: nn.Module) -> Tensor:
        return self._trainer.gradient(self._fixed, decision_loss(planner(layer)))

    def _test_cost(self) -> float:
        return mean_cost(planner(self._layer), self._trainer.forecast(self._test), self._test)
