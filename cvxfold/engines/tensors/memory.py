"""What a forward pass may begin with: a point, and what the previous call left."""

from dataclasses import dataclass

from torch import Tensor

from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.splitting import Splitting


@dataclass(frozen=True)
class Start:
    """A point to start from.

    Args:
        s, y: in original units, ``(B, m)``.
        x: in original units, ``(B, n)``; None where it is not known.
        status: how another solver ended there, as indices into ``CODES``, ``(B,)``; then its iterations
            ``(B,)`` stand in the record. None where nobody claims that it is a solution.
    """

    s: Tensor
    y: Tensor
    x: Tensor | None = None
    status: Tensor | None = None
    iterations: Tensor | None = None


@dataclass(frozen=True)
class Memory:
    """What one call leaves for the next.

    Args:
        splitting: with a penalty shared by the batch, and its M factored.
        penalty: under which instances were solved before the costly stages, for the next call to start with;
            None where none was.
        late: the share of the batch that came to the costly stages.
        s, y: the solutions, in original units, ``(B, m)``.
    """

    splitting: Splitting
    penalty: float | None
    late: float
    s: Tensor
    y: Tensor

    def start(self, program: ConeProgram) -> Start | None:
        """The solutions as a point to start from, if there are as many as the program has instances."""
        fits = self.s.shape == program.b.shape and self.s.device == program.b.device
        return Start(self.s, self.y) if fits else None

    def operator(self, program: ConeProgram, penalty: float, relaxation: float) -> Splitting:
        """F for a program, with the factor in memory where P, A and the penalty are the same."""
        known = self.splitting
        same = known.program.P is program.P and known.program.A is program.A
        if same and known.alpha == relaxation and float(known.penalty[0]) == penalty:
            return known.rebind(program)
        return Splitting(program, program.q.new_tensor([penalty]), relaxation)
