"""What one forward pass leaves for the next."""

from dataclasses import dataclass

from torch import Tensor

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
        penalty: under which instances were solved before the costly stages, for the next call to start with;
            None where none was.
        late: the share of the batch that came to the costly stages.
    """

    splitting: Splitting
    penalty: float | None
    late: float

    def operator(self, program: ConeProgram, settings: ForwardSettings) -> Splitting | None:
        """F for a program, with the factor in memory where P, A and the penalty are the same; else None."""
        known, asked = self.splitting, settings.penalty
        same = known.program.P is program.P and known.program.A is program.A
        if not same or known.alpha != settings.relaxation:
            return None
        if asked is None and not program.shared:  # each instance's own penalty, if any served
            return None if self.penalty is None else known.rebind(program)
        wanted = self.penalty if asked is None else asked
        fits = wanted is not None and bool((known.penalty == wanted).all())
        return known.rebind(program) if fits else None


def first_operator(program: ConeProgram, settings: ForwardSettings, memory: Memory | None) -> Splitting:
    """F under the penalty that was asked for, or else what worked before, or else a guess."""
    penalty = settings.penalty
    if memory is not None:
        if (known := memory.operator(program, settings)) is not None:
            return known
        penalty = memory.penalty if penalty is None else penalty
    guess = first_penalty(program) if penalty is None else program.q.new_tensor([penalty])
    return Splitting(program, guess, settings.relaxation)


def penalty_for_next_call(batch: Batch, early: Tensor) -> float | None:
    """The geometric middle of the penalties under which instances were solved early; None if none was.

    Where that is near the one that a batch with a shared factor began with, that one: its factor is known.
    """
    known = batch.whole.penalty
    if batch.settings.penalty is not None:
        return float(known[0])
    solved = batch.settled.penalty[early]
    if not len(solved):
        return None
    middle = float(solved.log().median().exp())
    near = len(known) == 1 and 0.2 < middle / float(known[0]) < 5.0
    return float(known[0]) if near else middle
