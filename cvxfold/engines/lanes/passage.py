"""What the passes of the lanes engine's shortcut leave."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cvxfold.engines.lanes.batch import CompiledBatch, Passed
from cvxfold.engines.lanes.binding import BackwardFigure, number_at
from cvxfold.engines.lanes.figures import NEGLIGIBLE, SUSPECT, ended_of, screen_of, system_of
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.memory import empty_like
from cvxfold.engines.outcome import Ended
from cvxfold.gradient.screen import Screen
from cvxfold.methods import AdjointSettings, AdjointSolution


@dataclass(frozen=True)
class LanesSeen:
    """What a backward pass saw: its figures ``(B, ·)``."""

    figures: Tensor

    def system(self, settings: AdjointSettings) -> AdjointSolution:
        """The adjoint systems as reports tell of them."""
        return system_of(self.figures, settings)

    def screen(self) -> Screen:
        """What was seen of the instances."""
        return screen_of(self.figures)

    @property
    def all_flat(self) -> bool:
        """Whether all gradients are zero to rounding while the loss looks at the solutions."""
        figures = self.figures
        if not figures.numel():
            return False
        if figures.is_cpu and number_at(figures.data_ptr() + 8 * BackwardFigure.FLAT) <= 0:
            return False  # the usual case, fast
        return bool((self.figures[:, BackwardFigure.FLAT] > 0).all())


@dataclass(frozen=True)
class LanesReturned:
    """What a backward pass leaves.

    Args:
        gradients: of each parameter, None where unwanted.
        doubtful: how many instances call for a diagnosis or a word.
        seen: for the record.
    """

    gradients: Sequence[Tensor | None]
    doubtful: int
    seen: LanesSeen


@dataclass(frozen=True)
class LanesPassage:
    """What a forward pass leaves.

    Args:
        compiled: that made it. passed: its figures and state.
        found: the variables, until they are handed out.
        maps: of the call.
        ends: what a later pass can begin with, if they were asked for.
    """

    compiled: CompiledBatch
    passed: Passed
    found: list[Tensor]
    maps: Maps
    ends: Tensor | None = None

    def outputs(self, last: bool) -> Sequence[Tensor]:
        """The variables; see :class:`cvxfold.engines.protocol.Passage`."""
        if not last:
            return [value.clone() for value in self.found]
        handed, self.found[:] = self.found[:], []
        return handed

    @property
    def unsolved(self) -> int:
        """How many instances are not solved."""
        return self.passed.unsolved

    @property
    def ended(self) -> Callable[[], Ended]:
        """Tells how the instances ended, by the figures alone."""
        return partial(ended_of, self.passed.figures)

    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        """x ``(B, n)``, y and s ``(B, m)``."""
        return self.compiled.points(self.passed)

    def beginnings(self) -> Tensor:
        """x, y and s side by side, and D and E if the pass was asked to keep them."""
        return torch.cat(self.points(), dim=1) if self.ends is None else self.ends

    def differentiate(
        self,
        bars: Sequence[Tensor | None],
        wanted: Sequence[bool],
        patterns: Sequence[Tensor],
        settings: AdjointSettings,
    ) -> LanesReturned:
        """Gradients of the parameters; see :class:`cvxfold.engines.protocol.Passage`."""
        gradients = [
            empty_like(pattern) if wants else None for pattern, wants in zip(patterns, wanted, strict=True)
        ]
        tolerances, asked = (settings.tol, SUSPECT, NEGLIGIBLE), self.maps.asked(wanted)
        figures, doubtful = self.compiled.backward(self.passed, bars, gradients, tolerances, asked=asked)
        return LanesReturned(gradients, doubtful, LanesSeen(figures))
