"""What a layer keeps from call to call, and the two passes of a call: all but automatic differentiation."""

import copy
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cvxfold.batches.pieces import in_pieces
from cvxfold.batches.records import Piece
from cvxfold.cones.product import ProductCone
from cvxfold.deadline import NEVER, Deadline
from cvxfold.engines.choose import engine_for, shortcut_for, unroller_of
from cvxfold.engines.outcome import Start
from cvxfold.engines.protocol import Engine, Seen, Shortcut, Solution, SolveRequest, Unroller
from cvxfold.gradient.adjoint import Bars, bars_of
from cvxfold.layer.answer import Answer, ShortlyAnswered
from cvxfold.layer.backward import FoldedGradient, differentiate, put_together
from cvxfold.layer.complaints import complain_of_flat, judge_backward, judge_forward
from cvxfold.layer.options import Options
from cvxfold.layer.request import CallRequest
from cvxfold.layer.said import Said, in_product
from cvxfold.layer.samples import WarmStarts
from cvxfold.methods.unrolled import Unrolled
from cvxfold.problem.gradients import DataGradients
from cvxfold.problem.program import Entries, Program
from cvxfold.problem.structure import Canonical, Moving, Structure
from cvxfold.problem.values import ProgramValues
from cvxfold.report.announce import Reports
from cvxfold.report.records import BackwardRecord
from cvxfold.report.report import Report


class Session:
    """Solves batches of one structure of cone program and differentiates the solutions.

    Args:
        structure: of the program.
        moving: what of its data a parameter reaches.
        engine: the name of the one that is wanted, or "auto".
        looks: a number for each entry of x ``(n,)`` and y ``(m,)``, zero where nobody is handed it; None:
            everything is handed out.

    Attributes:
        entries: where its data are.
        engine: what works on it, and remembers what its next call can use.
        starts: what warm starts begin from.
        unroller: an engine whose iterations can be differentiated, where that is asked for.
        said: what was warned of. flat_is_said: whether it was said that gradients are flat.
    """

    def __init__(
        self,
        structure: Structure,
        moving: Moving,
        engine: str = "auto",
        looks: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._made_from = structure, moving, engine, looks
        self._looks = looks
        self.entries = Entries(structure, moving)
        self.engine: Engine = engine_for(self.entries, engine)
        self.unroller: Unroller = unroller_of(self.engine, structure)
        self.starts = WarmStarts()
        self.said = Said()
        self._shortcut: Shortcut | None = None
        self._looked_for_shortcut = False
        self._last: Callable[[], Answer | ShortlyAnswered | None] = lambda: None  # a weak reference
        self._reports = Reports()
        self.flat_is_said = False

    def shortcut(self, canonical: Canonical) -> Shortcut | None:
        """The engine's way from a layer's parameters to its variables, if it has one; made at first use."""
        if not self._looked_for_shortcut:
            self._shortcut = shortcut_for(self.engine, canonical)
            self._looked_for_shortcut = True
        return self._shortcut

    @cached_property
    def cone(self) -> ProductCone:
        """K."""
        return ProductCone(self.entries.structure.cones)

    @property
    def report(self) -> Report:
        """Of the last call of this thread, or of any where this one made none; of no instance before."""
        return self._reports.last

    @property
    def latest_report(self) -> Report:
        """Of the last call of any thread; of no instance before."""
        return self._reports.latest

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Call ``callback`` with the report after each pass, until the function returned is called.

        Raises:
            TypeError: it cannot be called.
        """
        return self._reports.on_report(callback)

    def remember(self, report: Report) -> None:
        """Keep the report of a call as the last one."""
        self._reports.remember(report)

    def remember_call(self, call: ShortlyAnswered) -> None:
        """Keep a call by the shortcut as the last one, as long as others do."""
        self._last = weakref.ref(call)

    def notify(self, report: Report) -> None:
        """Call back all that listen, after a pass."""
        self._reports.notify(report)

    def say_if_flat(self, seen: Seen | BackwardRecord, options: Options) -> None:
        """Say, once, that all gradients of a batch are zero to rounding, where they are."""
        if not self.flat_is_said and not in_product() and seen.all_flat:
            self.flat_is_said = True
            complain_of_flat(options)

    def solve(self, values: ProgramValues, request: CallRequest) -> Answer:
        """The forward pass, without derivatives.

        1. Solve the valid instances, together or in halves where memory does not suffice.
        2. Put them together, with the report.
        3. Complain where they fall short.

        Raises:
            InfeasibleError, UnboundedError, ConvergenceError: as the options say.
        """
        answer = self.solve_quietly(values, request)
        if answer.pieces:
            self._last = weakref.ref(answer)
        if request.warm is not None:
            request.warm.keep(answer)
        self.remember(answer.report)
        try:
            judge_forward(answer.report, request.options, self.said)  # 3
        finally:
            self.notify(answer.report)
        return answer

    def solve_quietly(self, values: ProgramValues, request: CallRequest) -> Answer:
        """Steps 1 and 2 of the forward pass: nobody is told, and nothing is remembered but the engine's."""
        started = time.perf_counter() - request.spent
        program = Program(self.entries, values, request.batch)
        limit = request.options.forward.time_limit
        deadline = Deadline.after(None if limit is None else limit - request.spent)
        rows = torch.arange(request.batch, device=values.q.device)
        if request.invalid is not None:
            rows = rows[~request.invalid]
        pieces = self._solve_in_pieces(self.engine, program, request, rows, deadline)  # 1
        return Answer.of(pieces, program, request, time.perf_counter() - started)  # 2

    @staticmethod
    def _solve_in_pieces(
        engine: Engine, program: Program, request: CallRequest, rows: Tensor, deadline: Deadline
    ) -> list[Piece[Solution]]:
        """Solve the instances ``rows`` ``(b,)``, if there are any."""
        options, structure = request.options, program.structure
        given = None if request.warm is None else request.warm.points(request.batch)
        begin = None if given is None else given.to(program.values.q.device)

        def work(some: Tensor) -> Solution:
            part = program if len(some) == program.batch else program.take(some)
            start = None if begin is None else _starting_at(begin[some], structure)
            if (solver := options.solver) is not None:
                start = solver.external.solve_batch(part, solver.arguments, solver.workers, deadline)
            asked = SolveRequest(
                options.forward, start, options.rescue, options.proximal, deadline,
                request.found if part is program else None,
            )  # fmt: skip
            return engine.solve(part, asked)

        if not len(rows):
            return []
        return in_pieces(rows, work, lambda: engine.size(options.forward), least=Solution.least)

    def differentiate(
        self,
        answer: Answer,
        x_bar: Tensor,
        y_bar: Tensor,
        tangent: bool = False,
        wanted: Sequence[bool] | None = None,
    ) -> DataGradients:
        """The backward pass from loss gradients on x ``(B, n)`` and y ``(B, m)``.

        With ``tangent`` they are none: who looks at what is known from what the layer hands out, and all
        parameters may move. Else ``wanted`` are the parameters that gradients are asked for on, None: those
        of the request.

        1. Fold the instances that have a solution, each piece together or in halves.
        2. Put the gradients together, zero for the rest, and report.
        3. Complain about gradients that are not to be trusted.

        Raises:
            ConvergenceError, DegenerateError: as the options say.
        """
        started = time.perf_counter()
        answer.bars = x_bar.detach(), y_bar.detach()
        options = answer.request.options
        whole = self.fold(answer, x_bar, y_bar, tangent, wanted)  # 1, 2
        record = replace(whole.record, seconds=time.perf_counter() - started)
        answer.report.set_backward(record)
        self.judge_backward(answer.report, options)  # 3
        self.say_if_flat(record, options)
        return DataGradients(whole.p, whole.v, answer.x.nan_to_num(), answer.y.nan_to_num(), self.entries)

    def fold(
        self,
        answer: Answer,
        x_bar: Tensor,
        y_bar: Tensor,
        tangent: bool = False,
        wanted: Sequence[bool] | None = None,
    ) -> FoldedGradient:
        """Steps 1 and 2 of the backward pass: nobody is told, and nothing is remembered."""
        options, found = answer.request.options, list[Piece[FoldedGradient]]()
        deadline = Deadline.after(options.forward.time_limit)
        wanted = answer.request.wanted if wanted is None else wanted
        entries = self.entries if tangent else self.entries.asked(wanted)
        for piece in answer.differentiable:
            asked = Piece(piece.rows, piece.value.asked(entries))
            found += self._fold_in_pieces(asked, (x_bar, y_bar), options, deadline, tangent)
        return put_together(found, answer)

    def judge_aside(self, answer: Answer, record: BackwardRecord) -> None:
        """Complain about what was folded beside the backward pass and is not to be trusted."""
        aside = Report(answer.report.forward, answer.report.engine)
        aside.set_backward(record)
        judge_backward(aside, answer.request.options, self.said)

    def judge_backward(self, report: Report, options: Options) -> None:
        """Complain about gradients that are not to be trusted, and call back all that listen."""
        try:
            judge_backward(report, options, self.said)
        finally:
            self.notify(report)

    def _fold_in_pieces(
        self, piece: Piece[Solution], bars: Bars, options: Options, deadline: Deadline, tangent: bool
    ) -> list[Piece[FoldedGradient]]:
        """Fold the instances of a piece, whose rows the loss gradients of the batch are picked by."""
        rows, solution, method = piece.rows, piece.value, options.backward
        assert not isinstance(method, Unrolled)
        settings = replace(options.adjoint, deadline=deadline)

        def work(places: Tensor) -> FoldedGradient:
            some = len(places) < len(rows)
            part = solution.take(places) if some else solution
            of_part = rows[places] if some else rows
            of_bars = bars if len(of_part) == len(bars[0]) else bars_of(bars, of_part)
            looks = self._looks_like(of_bars) if tangent else None
            return differentiate(self.engine, part, of_bars, method, settings, looks)

        places = torch.arange(len(rows), device=rows.device)
        found = in_pieces(places, work, lambda: self.engine.size(options.forward), solution.release)
        return [Piece(rows[one.rows], one.value) for one in found]

    def _looks_like(self, like: Bars) -> Bars:
        """Loss gradients, of the shapes of ``like``, that are zero where nothing is handed out."""
        if self._looks is None:
            return torch.ones_like(like[0]), torch.ones_like(like[1])
        x, y = (part.to(one).expand_as(one) for part, one in zip(self._looks, like, strict=True))
        return x, y

    def answer_to(self, values: ProgramValues, request: CallRequest) -> Answer:
        """The last answer, if it lives and is that of the same data, or a new one that leaves no trace."""
        last = self._last()
        last = last.answered(values) if isinstance(last, ShortlyAnswered) else last
        if last is not None and len(last.pieces) == 1 and last.request.batch == request.batch:
            known = last.pieces[0].value.program.values
            bare = last.request.options.forward.bare == request.options.forward.bare
            if bare and known.same_as(values):
                return last
        program, aside = Program(self.entries, values, request.batch), copy.copy(self.engine)
        rows = torch.arange(request.batch, device=values.q.device)
        pieces = self._solve_in_pieces(aside, program, request, rows, NEVER)
        return Answer.of(pieces, program, request, 0.0)

    def __deepcopy__(self, _: dict[int, Any]) -> "Session":
        """A copy that remembers nothing yet."""
        return Session(*self._made_from)

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, self._made_from


def _starting_at(points: Tensor, structure: Structure) -> Start:
    """A start from x, y and s side by side, whatever follows."""
    n, m = structure.n, structure.m
    return Start(points[:, n + m : n + 2 * m], points[:, n : n + m], points[:, :n])
