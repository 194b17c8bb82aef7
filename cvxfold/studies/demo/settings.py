"""How the demo trains, and what it tells on the way."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How to train.

    Args:
        epochs: passes over the training days.
        batch: days in a step.
        seed: of the initial weights and of the order of the days.
        learning_rate: of Adam at first; it falls along a cosine to nothing.
        weeks: use only so many of the latest training and the first test weeks; None for all.
    """

    epochs: int = 20
    batch: int = 32
    seed: int = 0
    learning_rate: float = 0.03
    weeks: int | None = None


@dataclass(frozen=True)
class Step:
    """Where the training of a model stands: ``last`` tells whether the step is the last of its epoch."""

    model: str
    epoch: int
    loss: float
    last: bool


Progress = Callable[[Step], None]
