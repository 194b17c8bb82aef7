"""What one forward pass leaves for the next."""

from dataclasses import dataclass
from functools import cached_property
from math import isnan

import torch
from torch import Tensor

from cvxfold.batches.near import Later
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.batch import Batch
from cvxfold.engines.tensors.penalty import first_penalty
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.splitting import Splitting


@dataclass(frozen=True)
class Memory:
    """What one call leaves for the next.

    Args:
        splitting: with its M factored, under the penalty that the batch shares or, where it shares no factor,
            under those that each instance was found with.
        late: the share of the batch that came to the costly stages.
        asked: the penalty that was asked for, if any.
        shared: whether the batch began with one penalty for all.
        numbers: the geometric middle of the penalties under which instances were solved before the costly
            stages, NaN where none was; a penalty that the batch began with; the least and the largest of
            ``splitting``.
    """

    splitting: Splitting
    late: float
    asked: float | None
    shared: bool
    numbers: Later

    @classmethod
    def of(cls, batch: Batch, splitting: Splitting, early: Tensor, late: float) -> "Memory":
        """After a pass.

        Args:
            splitting: to be kept.
            early: instances that were solved before the costly stages, ``(B,)``. late: the share of the rest.
        """
        known, kept = batch.whole.penalty, splitting.penalty
        middle = torch.where(early, batch.settled.penalty, torch.nan).log().nanmedian().exp()
        numbers = torch.stack([middle, known[0], kept.amin(), kept.amax()])
        return cls(splitting, late, batch.settings.penalty, len(known) == 1, Later(numbers))

    @cached_property
    def penalty(self) -> float | None:
        """For the next call to start with: the middle one; None where there is none.

        Where that is near the one that a batch with a shared factor began with, that one, whose factor is
        known.
        """
        middle, known, _, _ = self.numbers.get().tolist()
        if self.asked is not None:
            return known
        if isnan(middle):
            return None
        return known if self.shared and 0.2 < middle / known < 5.0 else middle

    def operator(self, program: ConeProgram, settings: ForwardSettings) -> Splitting | None:
        """F for a program, with the factor in memory where P, A and the penalty are the same; else None."""
        known, asked = self.splitting, settings.penalty
        same = known.program.P is program.P and known.program.A is program.A
        if not same or known.alpha != settings.relaxation:
            return None
        if asked is None and not program.shared:  # each instance's own penalty, if any served
            return None if self.penalty is None else known.rebind(program)
        wanted = self.penalty if asked is None else asked
        _, _, least, largest = self.numbers.get().tolist()
        return known.rebind(program) if least == wanted == largest else None


def first_operator(
    program: ConeProgram, settings: ForwardSettings, memory: Memory | None, look: bool
) -> Splitting:
    """F under the penalty that was asked for, or else what worked before, or else a guess."""
    penalty = settings.penalty
    if memory is not None:
        if (known := memory.operator(program, settings)) is not None:
            return known
        penalty = memory.penalty if penalty is None else penalty
    guess = first_penalty(program) if penalty is None else program.q.new_full((1,), penalty)
    return Splitting(program, guess, settings.relaxation, look)
