"""Training of one predictor: Adam, whose rate falls to nothing, on batches that a seed makes the same."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from cvxfold.studies.demo.data import Days
from cvxfold.studies.demo.model import Predictor
from cvxfold.studies.demo.settings import Progress, Settings, Step

Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of some days, from their forecasts and demand, ``(D, 24)`` each."""


class Trainer:
    """One predictor and one loss.

    Args:
        name: of the model, for the progress.
        loss: what to reduce.
        days: to train on.
        settings: how to train.
    """

    def __init__(self, name: str, loss: Loss, days: Days, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.predictor = Predictor(days)
        self._name, self._loss, self._days, self._settings = name, loss, days, settings
        self._optimizer = torch.optim.Adam(self.predictor.parameters(), lr=settings.learning_rate)
        self._decay = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, settings.epochs)
        self._order = torch.Generator().manual_seed(settings.seed)
        self._epoch = 0

    def epoch(self, progress: Progress = lambda _: None) -> tuple[float, float]:
        """One pass over the days: the mean loss in it, and the seconds that its steps took."""
        self._epoch += 1
        total, seconds = 0.0, 0.0
        order = torch.randperm(len(self._days), generator=self._order)
        batches = order.split(self._settings.batch)
        for number, batch in enumerate(batches, 1):
            start = time.perf_counter()
            self._optimizer.zero_grad()
            mean = self.loss(batch)
            mean.backward()
            self._optimizer.step()
            seconds += time.perf_counter() - start
            total += mean.item() * len(batch) / len(order)
            progress(Step(self._name, self._epoch, mean.item(), last=number == len(batches)))
        self._decay.step()
        return total, seconds

    def loss(self, batch: Tensor, loss: Loss | None = None) -> Tensor:
        """The mean loss of the days of these numbers; another one's than the trainer's own, if given."""
        return (loss or self._loss)(self.predictor(self._days.features[batch]), self._days.demand[batch])

    def gradient(self, batch: Tensor, loss: Loss | None = None) -> Tensor:
        """Of :meth:`loss` in the predictor's weights, all in one vector."""
        grads = torch.autograd.grad(self.loss(batch, loss), list(self.predictor.parameters()))
        return torch.cat([g.flatten() for g in grads])

    @torch.no_grad()
    def forecast(self, days: Days) -> Tensor:
        """Of some days, ``(D, 24)``."""
        return self.predictor(days.features)
