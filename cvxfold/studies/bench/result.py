"""What was measured, and what follows from it: medians, who is right, ratios."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from cvxfold.studies.bench.peers import OURS, THEIRS

FORWARD_LIMIT, GRADIENT_LIMIT = 1e-6, 1e-5
"""Relative errors above which an answer is wrong."""


@dataclass(frozen=True)
class Measurement:
    """One peer on one cell.

    Args:
        peer: its name.
        setup: seconds to make the layer from a fresh problem.
        first: seconds of its very first call, on one instance, forward and backward.
        forward: seconds of each forward pass. backward: of each backward pass.
        peak_bytes: how far a call on the full batch, before the rounds, raised the process's resident
            memory; None where the system does not tell.
        forward_error: relative error of the outputs, the largest of the instances that were checked; None
            where none was. gradient_error: of the gradients of all parameters together.
        host_error: that of the gradients against cvxfold on the CPU, for up to 64 instances; only of what was
            measured on another device.
        device: where the values were. count: instances that were measured, where the batch was too many for a
            peer on the host; its times are scaled to the batch.
        engine: which of cvxfold's served.
        note: what else there is to say: why it was skipped, failed, or made fewer passes.
    """

    peer: str
    setup: float | None = None
    first: float | None = None
    forward: Sequence[float] = ()
    backward: Sequence[float] = ()
    peak_bytes: int | None = None
    forward_error: float | None = None
    gradient_error: float | None = None
    host_error: float | None = None
    device: str = "cpu"
    count: int | None = None
    engine: str | None = None
    note: str = ""

    @property
    def rounds(self) -> int:
        """How often it was measured."""
        return len(self.forward)

    @property
    def forward_seconds(self) -> float | None:
        """The median of the forward passes."""
        return median(self.forward) if self.forward else None

    @property
    def backward_seconds(self) -> float | None:
        """The median of the backward passes."""
        return median(self.backward) if self.backward else None

    @property
    def total_seconds(self) -> float | None:
        """The median of both passes together."""
        pairs = zip(self.forward, self.backward, strict=True)
        return median(f + b for f, b in pairs) if self.forward else None

    @property
    def correct(self) -> bool | None:
        """Whether both errors are within the limits; None where they are unknown."""
        if self.forward_error is None or self.gradient_error is None:
            return None
        return self.forward_error <= FORWARD_LIMIT and self.gradient_error <= GRADIENT_LIMIT  # NaN: wrong


@dataclass(frozen=True)
class BenchCell:
    """One family at one size and batch.

    Args:
        family, size, batch: of the problem. measurements: of all peers, cvxfold's first.
        checked: how many instances were compared with the reference.
        profile: of cvxfold, where it was asked for: stages and floors in seconds.
    """

    family: str
    size: int
    batch: int
    measurements: tuple[Measurement, ...]
    checked: int = 0
    profile: "dict[str, float] | None" = None

    def of(self, peer: str) -> Measurement | None:
        """A peer's measurement, if it was asked."""
        return next((one for one in self.measurements if one.peer == peer), None)

    @property
    def fastest_correct(self) -> Measurement | None:
        """The fastest of the others whose answers are right."""
        right = [
            one
            for one in self.measurements
            if one.peer != OURS and one.correct and one.total_seconds is not None
        ]
        return min(right, key=lambda one: one.total_seconds or 0.0, default=None)

    @property
    def fastest(self) -> Measurement | None:
        """The fastest of the others, right or wrong."""
        done = [one for one in self.measurements if one.peer != OURS and one.total_seconds is not None]
        return min(done, key=lambda one: one.total_seconds or 0.0, default=None)

    @property
    def against_any(self) -> float | None:
        """How many times longer the fastest of the others takes, right or wrong."""
        return self._ratio(self.fastest)

    @property
    def against_fastest(self) -> float | None:
        """How many times longer the fastest correct peer takes than cvxfold: above 1, cvxfold is faster."""
        return self._ratio(self.fastest_correct)

    @property
    def against_theirs(self) -> float | None:
        """How many times longer cvxpylayers takes at its defaults, right or wrong."""
        return self._ratio(self.of(THEIRS))

    def _ratio(self, other: Measurement | None) -> float | None:
        ours = self.of(OURS)
        if ours is None or other is None or not ours.total_seconds or other.total_seconds is None:
            return None
        return other.total_seconds / ours.total_seconds


@dataclass(frozen=True)
class BenchResult:
    """All cells.

    Args:
        settings: what was asked. machine: what it ran on.
        cells: in the order of measuring. skipped: a line for each peer that is not installed.
        training: where it was asked for, rows of :mod:`cvxfold.studies.bench.training`.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    cells: tuple[BenchCell, ...]
    skipped: tuple[str, ...] = ()
    training: tuple[Any, ...] = field(default=())

    @property
    def median_against_fastest(self) -> float | None:
        """Of the cells that have a correct peer."""
        return _median([cell.against_fastest for cell in self.cells])

    @property
    def median_against_any(self) -> float | None:
        """Of the cells where any other was measured."""
        return _median([cell.against_any for cell in self.cells])

    @property
    def median_against_theirs(self) -> float | None:
        """Of the cells where cvxpylayers was measured at its defaults."""
        return _median([cell.against_theirs for cell in self.cells])


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
