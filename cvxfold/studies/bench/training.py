"""Training: steps with slowly changing values, from nothing and from the last step's solutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import Tensor

from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.passes import drawn, one_pass, weights_of
from cvxfold.studies.bench.peers import Evaluate, Peer
from cvxfold.studies.bench.settings import BenchSettings

DRIFT = 0.02
"""How far the values go during the whole training, of the way from one draw to another."""


@dataclass(frozen=True)
class Training:
    """A peer's training on one cell.

    Args:
        family, size, batch, peer: what and who. steps: how many were made, after a first one.
        cold: seconds of a step, both passes, the median. warm: with ``warm_start=True``.
        difference: the largest relative difference of the outputs of the two in the last step.
        note: what went wrong.
    """

    family: str
    size: int
    batch: int
    peer: str
    steps: int = 0
    cold: float | None = None
    warm: float | None = None
    difference: float | None = None
    note: str = ""

    @property
    def gain(self) -> float | None:
        """How many times longer a step takes without the last one's solutions."""
        return self.cold / self.warm if self.cold and self.warm else None


def train(
    family: Family, size: int, batch: int, peers: Sequence[Peer], settings: BenchSettings
) -> list[Training]:
    """Make the same steps cold and warm, in turns, with each peer that has a warm start."""
    found = []
    for peer in peers:
        if not (peer.warm and peer.suits(family)):
            continue
        try:
            layers = [peer.layer(family, family.state(size), settings.threads) for _ in range(2)]
            found.append(_steps(layers, Training(family.name, size, batch, peer.name), family, settings))
        except Exception as error:
            text = " ".join(str(error).split())
            note = f"fails: {type(error).__name__}: {text[:120]}"
            found.append(Training(family.name, size, batch, peer.name, note=note))
    return found


def _steps(layers: Sequence[Evaluate], of: Training, family: Family, settings: BenchSettings) -> Training:
    weights = weights_of(family, of.size, of.batch, settings.seed)
    start, end = (drawn(family, of.size, of.batch, settings.seed, turn) for turn in (0, 1))
    seconds: tuple[list[float], list[float]] = ([], [])
    difference, spent, done = 0.0, 0.0, 0
    for step in range(settings.training + 1):
        way = DRIFT * step / max(1, settings.training)
        values = [(1 - way) * a + way * b for a, b in zip(start, end, strict=True)]
        calls: tuple[dict[str, Any], dict[str, Any]] = ({}, {"warm_start": step > 0})
        passes = [one_pass(layer, values, weights, **call) for layer, call in zip(layers, calls, strict=True)]
        difference = _difference(*(one.outputs for one in passes))
        if step == 0:
            continue
        done += 1
        for record, one in zip(seconds, passes, strict=True):
            record.append(one.seconds)
            spent += one.seconds
        if spent > settings.time_limit:
            break
    cold, warm = (median(record) for record in seconds)
    return Training(of.family, of.size, of.batch, of.peer, done, cold, warm, difference)


def _difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    pairs = zip(one, other, strict=True)
    return max(float((a - b).norm() / a.norm().clamp_min(1e-300)) for a, b in pairs)
