"""What the lanes engine keeps of solutions for their backward pass: the packs that the kernels left."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cvxfold.engines.lanes.batch import Passed
from cvxfold.problem.structure import Structure


@dataclass(frozen=True)
class Packs:
    """The state of a pass, by instance.

    The kernels lay it out as a head, where the batch shares P and A, and a block for each pack of
    instances: equilibrated P and A (unless shared), D, E, q, b, x and u, and nine numbers, of which the
    first three are ρ, the size of the data and the limit that bounds far beyond it were lowered to. What
    tilted exponential cones have of their own is behind that; those that are moved have none.

    Args:
        passed: the state. entries: of P and of A as the kernels store them. structure: of the programs.
    """

    passed: Passed
    entries: tuple[int, int]
    structure: Structure

    def take(self, index: Tensor) -> "Packs":
        """Keep the instances ``index`` ``(b,)``."""
        rows = self._rows()[index]
        missing = -len(index) % self.passed.width
        rows = torch.cat([rows, rows[-1:].expand(missing, -1)])  # the last one fills the last pack
        blocks = rows.view(-1, self.passed.width, rows.shape[1]).transpose(1, 2).reshape(-1)
        state = torch.cat([self.passed.state[: self._head], blocks])
        figures = self.passed.figures[index]
        return replace(self, passed=replace(self.passed, figures=figures, state=_aligned(state)))

    def release(self) -> None:
        """Nothing here can be computed again without a forward pass."""

    def least(self) -> "Packs":
        """All of it, which is sparse."""
        return self

    def moved(self, index: Tensor, x: Tensor, y: Tensor, s: Tensor) -> None:
        """Put the instances ``index`` ``(b,)`` at other points, in the program's own units; in place."""
        n, m = self.structure.n, self.structure.m
        rows = self._rows()
        before = 0 if self.passed.shared else sum(self.entries)
        columns, E, at = (
            rows[index, before : before + n],
            rows[index, before + n : before + n + m],
            before + 2 * (n + m),
        )
        b = rows[index, at - m : at]
        rho, size, limit = rows[index, at + n + m : at + n + m + 3].split(1, dim=1)
        R = rho.expand(-1, m).clone()
        R[:, : self.structure.cones.zero] *= EQUALITY_PENALTY
        beyond = (b - limit).clamp(min=0)
        state = torch.cat([x / (columns * size), s * E / size - beyond - y / (E * size * R)], dim=1)
        blocks = self.passed.state[self._head :].view(-1, rows.shape[1], self.passed.width)
        blocks[index // self.passed.width, at : at + n + m, index % self.passed.width] = state

    def _rows(self) -> Tensor:
        """A row for each instance, and for those that fill the last pack."""
        blocks = (len(self.passed.figures) + self.passed.width - 1) // self.passed.width
        return (
            self.passed.state[self._head :].view(blocks, -1, self.passed.width).transpose(1, 2).flatten(0, 1)
        )

    @property
    def _head(self) -> int:
        """Numbers before the first block."""
        numbers = sum(self.entries) + self.structure.n + self.structure.m if self.passed.shared else 0
        return -(-numbers // self.passed.width) * self.passed.width


EQUALITY_PENALTY = 10.0
"""Times ρ on the zero cone, as the kernels have it."""


def _aligned(state: Tensor) -> Tensor:
    """A copy that begins where a pack may begin."""
    memory = state.new_empty(len(state) + 8)
    aligned = memory[(-memory.data_ptr() // 8) % 8 :][: len(state)]
    return aligned.copy_(state)
