"""What a call found: solutions, in one piece or in several, and its report.

A batch is one piece, unless its parameters were not all valid or it had to be solved in halves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cvxfold.batches.near import fetched, places
from cvxfold.batches.records import Piece, joined
from cvxfold.engines.outcome import INVALID, is_absent
from cvxfold.engines.protocol import Solution
from cvxfold.layer.request import CallRequest
from cvxfold.problem.program import Program
from cvxfold.problem.values import ProgramValues
from cvxfold.report.records import ForwardRecord
from cvxfold.report.report import Report


@dataclass
class Answer:
    """The solutions of a batch.

    Args:
        request: what was asked.
        pieces: what was solved together.
        x: ``(B, n)``, zero where there is no solution, NaN where the numbers went out of range.
        y: ``(B, m)``, likewise.
        codes: statuses, ``(B,)``.
        report: of the call; a backward pass adds its record.
        kept: which instances of each piece can be differentiated, ``(b,)``, on the CPU.
        bars: the loss gradients on x and y of the last backward pass; None before the first.
    """

    request: CallRequest
    pieces: Sequence[Piece[Solution]]
    x: Tensor
    y: Tensor
    codes: Tensor
    report: Report
    kept: Sequence[Tensor]
    bars: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    @classmethod
    def of(
        cls, pieces: Sequence[Piece[Solution]], program: Program, request: CallRequest, seconds: float
    ) -> "Answer":
        """Put the pieces of a batch together; what is in none of them is invalid."""
        batch, structure, like = request.batch, program.structure, program.values.q
        x, y = like.new_zeros(batch, structure.n), like.new_zeros(batch, structure.m)
        codes = torch.full((batch,), INVALID, device=like.device)
        kept: list[Tensor] = []
        record = ForwardRecord.blank(codes, seconds)
        for piece in pieces:
            rows, solution = piece.rows, piece.value
            absent = is_absent(solution.status)
            sound = ~(absent | is_broken(solution))
            blank = torch.where(absent, 0.0, torch.nan).to(like.dtype).unsqueeze(-1)
            x[rows] = torch.where(sound.unsqueeze(-1), solution.x, blank)
            y[rows] = torch.where(sound.unsqueeze(-1), solution.y, blank)
            codes[rows] = solution.status
            kept.append(sound)
        records = [Piece(piece.rows, ForwardRecord.of(piece.value, seconds)) for piece in pieces]
        record = joined(records, record, batch)
        codes_here, *kept_here = fetched(codes, *kept)
        record.know(codes_here)
        engines = dict.fromkeys(piece.value.engine for piece in pieces)
        report = Report(record, ", ".join(engines) or "none")
        return cls(request, pieces, x, y, codes, report, kept_here)

    @property
    def absent(self) -> Tensor:
        """Which instances have no solution, ``(B,)``."""
        return is_absent(self.codes)

    @cached_property
    def differentiable(self) -> list[Piece[Solution]]:
        """The instances that can be differentiated; what the engine keeps of them serves every pass."""
        found = []
        for piece, kept in zip(self.pieces, self.kept, strict=True):
            if bool(kept.all()):
                found.append(piece)
            elif len(keep := places(kept).to(piece.rows.device)):
                found.append(Piece(piece.rows[keep], piece.value.take(keep)))
        return found

    def beginnings(self) -> Tensor:
        """x, y and s side by side, ``(B, n + 2m)``, NaN for instances that are not solved."""
        points = self.x.new_full((len(self.x), self.x.shape[1] + 2 * self.y.shape[1]), torch.nan)
        for piece in self.pieces:
            found = piece.value
            side_by_side = torch.cat([found.x, found.y, found.s], dim=1)
            points[piece.rows] = torch.where(found.solved.unsqueeze(-1), side_by_side, torch.nan)
        return points

    @property
    def whole(self) -> Solution:
        """The batch as one piece.

        Raises:
            ValueError: it is in several.
        """
        if len(self.pieces) != 1 or not self.pieces[0].is_all_of(self.request.batch):
            raise ValueError(
                "expected a batch that is solved as a whole, got one with invalid instances or in chunks "
                "(it does not fit into memory); use a smaller one"
            )
        return self.pieces[0].value


@runtime_checkable
class ShortlyAnswered(Protocol):
    """A call by the engine's shortcut."""

    def answered(self, values: ProgramValues) -> Answer | None:
        """What it found, with the loss gradients of its backward pass, if its data were these values."""
        ...


def is_broken(solution: Solution) -> Tensor:
    """Instances whose numbers went beyond what can be represented, ``(b,)``."""
    finite = [value.isfinite().all(-1) for value in (solution.x, solution.y, solution.s)]
    return ~torch.stack(finite).all(0)
