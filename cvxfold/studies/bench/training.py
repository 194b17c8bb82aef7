"""Training: steps with slowly changing values, from nothing and from earlier solutions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.passes import Pass, drawn, one_pass, weights_of
from cvxfold.studies.bench.peers import Evaluate, Peer
from cvxfold.studies.bench.settings import BenchSettings

DRIFT = 0.02
"""How far the values go during the whole training, of the way from one draw to another."""

BATCHES = 4
"""Mini-batches in the data set that the shuffled ones are taken from."""


@dataclass(frozen=True)
class Training:
    """A peer's training on one cell.

    Args:
        family, size, batch, peer: what and who. steps: how many were made, after first ones.
        cold: seconds of a step, both passes, the median.
        warm: with ``warm_start=True``, the same batch in every step.
        shuffled: with ``samples`` too, another batch of the data set in each; None where the peer has none.
        difference: the largest relative difference of the outputs in the last step, warm and cold.
        note: what went wrong.
    """

    family: str
    size: int
    batch: int
    peer: str
    steps: int = 0
    cold: float | None = None
    warm: float | None = None
    shuffled: float | None = None
    difference: float | None = None
    note: str = ""

    @property
    def gain(self) -> float | None:
        """How many times longer a step takes without the last one's solutions."""
        return self.cold / self.warm if self.cold and self.warm else None

    @property
    def gain_shuffled(self) -> float | None:
        """How many times longer a step takes without the samples' last solutions."""
        return self.cold / self.shuffled if self.cold and self.shuffled else None


def train(
    family: Family, size: int, batch: int, peers: Sequence[Peer], settings: BenchSettings
) -> list[Training]:
    """Make the same steps cold, warm and shuffled, in turns, with each peer that has a warm start."""
    found = []
    for peer in peers:
        if not (peer.warm and peer.suits(family)):
            continue
        try:
            ways = 3 if peer.by_sample else 2
            layers = [peer.layer(family, family.state(size), settings.threads) for _ in range(ways)]
            where = settings.device if peer.on_device else "cpu"
            data = _DataSet(family, Training(family.name, size, batch, peer.name), settings, where)
            found.append(_steps(layers, data, settings.time_limit))
        except Exception as error:
            text = " ".join(str(error).split())
            note = f"fails: {type(error).__name__}: {text[:120]}"
            found.append(Training(family.name, size, batch, peer.name, note=note))
    return found


class _DataSet:
    """Values of all samples, which drift, and batches of them."""

    def __init__(self, family: Family, of: Training, settings: BenchSettings, device: str) -> None:
        self.of, self.steps, self._device = of, settings.training, device
        self._batch, count = of.batch, BATCHES * of.batch
        self.weights = [w.to(device) for w in weights_of(family, of.size, of.batch, settings.seed)]
        self._start, self._end = (drawn(family, of.size, count, settings.seed, turn) for turn in (0, 1))
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._epoch: Iterator[Tensor] = iter(())

    def values(self, samples: Tensor, step: int) -> list[Tensor]:
        """Of some samples, in a step."""
        way = DRIFT * step / self.steps
        pairs = zip(self._start, self._end, strict=True)
        return [((1 - way) * a[samples] + way * b[samples]).to(self._device) for a, b in pairs]

    @property
    def first(self) -> Tensor:
        """The samples that make the same batch in every step."""
        return torch.arange(self._batch)

    def shuffled(self) -> Tensor:
        """The samples of the next mini-batch."""
        found = next(self._epoch, None)
        if found is None:
            order = torch.randperm(BATCHES * self._batch, generator=self._generator)
            self._epoch = iter(order.split(self._batch))
            found = next(self._epoch)
        return found


def _steps(layers: Sequence[Evaluate], data: _DataSet, time_limit: float) -> Training:
    weights, of = data.weights, data.of
    cold, *others = layers
    seconds: list[list[float]] = [[] for _ in layers]
    difference, spent, done = 0.0, 0.0, 0
    for step in range(-BATCHES, data.steps):
        ways: list[tuple[Evaluate, Tensor, dict[str, Any]]] = [(cold, data.first, {})]
        ways.append((others[0], data.first, {"warm_start": True}))
        if len(others) > 1:
            some = data.shuffled()
            ways.append((others[1], some, {"warm_start": True, "samples": some}))
        passes: list[Pass] = []
        for layer, samples, call in ways:
            passes.append(one_pass(layer, data.values(samples, max(step, 0)), weights, **call))
        if step < 0:  # everyone has been seen once
            continue
        done += 1
        for record, one in zip(seconds, passes, strict=True):
            record.append(one.seconds)
            spent += one.seconds
        if spent > time_limit or done == data.steps:
            difference = _difference(passes[0].outputs, passes[1].outputs)
            if len(others) > 1:
                _, some, _ = ways[-1]
                expected = one_pass(cold, data.values(some, step), weights)
                difference = max(difference, _difference(expected.outputs, passes[2].outputs))
            break
    medians = [median(record) for record in seconds]
    shuffled = medians[2] if len(medians) > 2 else None
    return Training(of.family, of.size, of.batch, of.peer, done, medians[0], medians[1], shuffled, difference)


def _difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    pairs = zip(one, other, strict=True)
    return max(float((a - b).norm() / a.norm().clamp_min(1e-300)) for a, b in pairs)
