"""What a forward pass leaves for the backward pass: solutions, in one part or in several.

A batch is one part, unless its parameters were not all valid or it had to be solved in chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.engines.reduction.prepare import Prepared
from cvxfold.engines.tensors.solution import CODES, Solution, Status, is_absent
from cvxfold.gradient.adjoint import DataGradients, Entries, Optimum
from cvxfold.report.report import ForwardRecord


@dataclass(frozen=True)
class Part:
    """Instances of a batch that were solved together.

    Args:
        rows: which, ``(b,)``.
        solution: theirs.
        at: where that is in full.
        prepared: what depends on P and A alone.
    """

    rows: Tensor
    solution: Solution
    at: Optimum
    prepared: Prepared

    @cached_property
    def broken(self) -> Tensor:
        """Instances whose numbers went beyond what can be represented, ``(b,)``."""
        at = self.at
        finite = [value.isfinite().all(-1) for value in (at.x, at.y, at.u)]
        return ~torch.stack(finite).all(0)

    @cached_property
    def kept(self) -> Tensor:
        """The instances, of this part, that can be differentiated, ``(b,)``."""
        return ~(is_absent(self.solution.status) | self.broken)

    @cached_property
    def present(self) -> tuple[Tensor, Optimum]:
        """The same: which of the batch, and where their solutions are."""
        if bool(self.kept.all()):
            return self.rows, self.at
        keep = self.kept.nonzero().squeeze(-1)
        return self.rows[keep], self.at.take(keep)


@dataclass(frozen=True)
class Solved:
    """The solutions of a batch.

    Args:
        parts: what was solved together.
        x: ``(B, n)``, zero where there is no solution, NaN where the numbers went out of range.
        y: ``(B, m)``, likewise.
        codes: statuses, ``(B,)``.
        bars: the loss gradients on x and y of the last backward pass; None before the first.
    """

    parts: Sequence[Part]
    x: Tensor
    y: Tensor
    codes: Tensor
    bars: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def note(self, x_bar: Tensor, y_bar: Tensor) -> None:
        """Remember the loss gradients of a backward pass, without the graph that holds this solution."""
        object.__setattr__(self, "bars", (x_bar.detach(), y_bar.detach()))

    @classmethod
    def of(cls, parts: Sequence[Part], like: Tensor, batch: int, n: int, m: int) -> "Solved":
        """Put the parts of a batch of ``batch`` together; what is in none of them is invalid."""
        x, y = like.new_zeros(batch, n), like.new_zeros(batch, m)
        codes = torch.full((batch,), CODES.index(Status.INVALID), device=like.device)
        for part in parts:
            rows, at = part.present
            x[rows], y[rows] = at.x, at.y
            codes[part.rows] = part.solution.status
            broken = part.rows[part.broken & ~is_absent(part.solution.status)]
            x[broken], y[broken] = torch.nan, torch.nan
        return cls(parts, x, y, codes)

    @property
    def absent(self) -> Tensor:
        """Which instances have no solution, ``(B,)``."""
        return is_absent(self.codes)

    @property
    def whole(self) -> Part:
        """The batch as one part.

        Raises:
            ValueError: it is in several.
        """
        if len(self.parts) != 1 or len(self.parts[0].rows) != len(self.codes):
            raise ValueError(
                "expected a batch that is solved as a whole, got one with invalid instances or in chunks "
                "(it does not fit into memory); use a smaller one"
            )
        return self.parts[0]

    def record(self, seconds: float) -> ForwardRecord:
        """The record of the pass."""
        records = [(part.rows, ForwardRecord.of(part.solution, seconds)) for part in self.parts]
        return ForwardRecord.joined(records, self.codes, seconds)


def joined_gradients(
    pieces: Sequence[tuple[Tensor, DataGradients]], solved: Solved, entries: Entries
) -> DataGradients:
    """The gradients of a batch from those of its pieces: which instances, and theirs; zero for the rest."""
    if len(pieces) == 1 and len(pieces[0][0]) == len(solved.codes):
        return pieces[0][1]
    p, v = torch.zeros_like(solved.x), torch.zeros_like(solved.y)
    for rows, data in pieces:
        p[rows], v[rows] = data.p, data.v
    return DataGradients(p, v, solved.x.nan_to_num(), solved.y.nan_to_num(), entries)
