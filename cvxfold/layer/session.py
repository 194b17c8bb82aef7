"""The forward and the backward pass of a batch, with a report: all but automatic differentiation."""

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.engines.external import named
from cvxfold.engines.reduction.prepare import Preparation, Prepared
from cvxfold.engines.tensors.memory import Memory, Start
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.solution import ForwardSettings
from cvxfold.engines.tensors.solve import Rescue, solve
from cvxfold.fold import AdjointSettings
from cvxfold.fold.unrolled import Unrolled
from cvxfold.gradient.adjoint import DataGradients, Entries, Optimum, fold, regularized
from cvxfold.gradient.diagnosis import diagnose
from cvxfold.layer.answer import Part, Solved, joined_gradients
from cvxfold.layer.latest import Latest
from cvxfold.layer.memory import is_out_of_memory, release, too_large
from cvxfold.layer.options import Options
from cvxfold.layer.request import Call
from cvxfold.problem.parametrize import ProgramValues
from cvxfold.problem.structure import Moving, Structure
from cvxfold.report.report import BackwardRecord, Report

_RESCUER = "CLARABEL"
_RESCUE_ARGUMENTS = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}


class Core:
    """Solves batches of one structure of cone program and differentiates the solutions.

    Keeps from call to call what the next one can use: factors, the equilibration, the penalty.

    Args:
        structure: of the program.
        moving: what of its data a parameter reaches.
    """

    def __init__(self, structure: Structure, moving: Moving) -> None:
        self.structure = structure
        self.moving = moving
        self._preparations: dict[bool, Preparation] = {}
        self.entries = Entries(structure, moving)
        self._prepared: Prepared | None = None
        self._memory: Memory | None = None
        self._last: Callable[[], Solved | None] = lambda: None  # a weak reference
        self._reports = Latest[Report]()
        self._listeners: dict[int, Callable[[Report], Any]] = {}
        self._keys = count()

    @property
    def report(self) -> Report | None:
        """Of the last call of this thread, or of any where this one made none."""
        return self._reports.get()

    @report.setter
    def report(self, report: Report) -> None:
        self._reports.set(report)

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Call ``callback`` with the report after each pass, until the function returned is called.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"callback: expected a function of a report, got {type(callback).__name__}")
        key = next(self._keys)
        self._listeners[key] = callback

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    def tell(self, report: Report) -> None:
        """Call back all that listen."""
        for callback in list(self._listeners.values()):
            callback(report)

    def forward(self, values: ProgramValues, call: Call) -> Solved:
        """The forward pass, without derivatives; fills in the call's report."""
        started = time.perf_counter()
        rows = torch.arange(call.batch, device=values.q.device)
        call.deadline = Deadline.after(call.options.forward.time_limit)
        if call.invalid is not None:
            rows = rows[~call.invalid]
        parts = self._solve_in_parts(values, call, rows) if len(rows) else []
        solved = Solved.of(parts, values.q, call.batch, self.structure.n, self.structure.m)
        if parts:
            self._prepared = parts[-1].prepared
            self._last = weakref.ref(solved)
        call.began(solved.record(time.perf_counter() - started))
        return solved

    def look(self, values: ProgramValues, call: Call) -> Solved:
        """The last solution, if it lives and is that of the same data, or a new one that leaves no trace."""
        last = self._last()
        if last is not None and len(last.parts) == 1 and len(last.codes) == call.batch:
            known = last.parts[0]
            if known.prepared.fits(values.P, values.A, call.options.forward.bare):
                program, _ = known.prepared.program(values.q, self.right_hand_side(values), call.batch)
                before = known.at.splitting.program
                if torch.equal(before.q, program.q) and torch.equal(before.b, program.b):
                    return last
        part, _ = self._solve(values, call, torch.arange(call.batch, device=values.q.device))
        return Solved.of([part], values.q, call.batch, self.structure.n, self.structure.m)

    def _solve_in_parts(self, values: ProgramValues, call: Call, rows: Tensor) -> list[Part]:
        """Solve the instances ``rows`` ``(b,)`` together, or in halves where memory does not suffice."""
        try:
            part, memory = self._solve(values, call, rows)
            self._memory = memory
            return [part]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        # Out of the handler: the traceback would keep what the attempt had allocated.
        release(rows.device)
        if len(rows) == 1:
            presolve = self.preparation(call.options.forward.bare)
            raise too_large(presolve.columns, presolve.rows, message)
        middle = len(rows) // 2
        return [
            *self._solve_in_parts(values, call, rows[:middle]),
            *self._solve_in_parts(values, call, rows[middle:]),
        ]

    def _solve(self, values: ProgramValues, call: Call, rows: Tensor) -> tuple[Part, Memory]:
        """Presolve, solve, and undo the presolve, for the instances ``rows`` ``(b,)``."""
        if len(rows) < call.batch:
            values = values.take(rows)
        prepared, b = self.prepare(values, call.options.forward), self.right_hand_side(values)
        program, scaling = prepared.program(values.q, b, len(rows))
        solution, memory = solve(
            program,
            scaling,
            call.options.forward,
            known := self._memory,
            self._start(values, program, prepared, call, known),
            self._rescue(values, prepared) if call.options.rescue else None,
            call.deadline,
        )
        point = solution.point
        x, _, y = scaling.original(point.x, point.s, point.y)
        x, y = prepared.reduced.lift(x, y, values.q, b)
        at = Optimum(solution.splitting, scaling, prepared.reduced, point, x, y)
        if call.options.proximal:
            at = regularized(at, call.options.proximal)
        return Part(rows, solution, at, prepared), memory

    def prepare(self, values: ProgramValues, settings: ForwardSettings) -> Prepared:
        """What depends on P and A alone, from the last call where they are the same."""
        prepared = self._prepared
        if prepared is not None and prepared.fits(values.P, values.A, settings.bare):
            return prepared
        return self.preparation(settings.bare).prepare(values.P, values.A)

    def preparation(self, bare: bool) -> Preparation:
        """Presolve and equilibration for this structure, with or without the former."""
        if bare not in self._preparations:
            self._preparations[bare] = Preparation(self.structure, bare)
        return self._preparations[bare]

    def right_hand_side(self, values: ProgramValues) -> Tensor:
        """b ``(1|B, m)`` from its stored entries."""
        b = values.b.new_zeros(values.b.shape[0], self.structure.m)
        return b.index_copy(1, self.entries.b.on(b.device), values.b)

    def _start(
        self,
        values: ProgramValues,
        program: ConeProgram,
        prepared: Prepared,
        call: Call,
        memory: Memory | None,
    ) -> Start | None:
        """Where the forward pass begins: another solver's solution, or the last one, or nothing known."""
        solver = call.options.solver
        if solver is None:
            return memory.start(program) if call.warm_start and memory else None
        start = solver.black_box.solve_batch(
            self.structure, values, program.batch, solver.arguments, solver.workers, call.deadline
        )
        return prepared.reduced.start(start)

    def _rescue(self, values: ProgramValues, prepared: Prepared) -> Rescue:
        """An interior-point method for what our own does not reach."""

        def rescue(index: Tensor, deadline: Deadline) -> Start:
            start = named(_RESCUER).solve_batch(
                self.structure, values.take(index), len(index), _RESCUE_ARGUMENTS, None, deadline
            )
            return prepared.reduced.start(start)

        return rescue

    def backward(self, solved: Solved, x_bar: Tensor, y_bar: Tensor, call: Call) -> DataGradients:
        """The backward pass from loss gradients on x and y; fills in the call's report."""
        started = time.perf_counter()
        solved.note(x_bar, y_bar)
        settings = replace(call.options.adjoint, deadline=Deadline.after(call.options.forward.time_limit))
        pieces: list[_Piece] = []
        for part in solved.parts:
            rows, at = part.present
            if len(rows):
                bars = (x_bar, y_bar) if len(rows) == call.batch else (x_bar[rows], y_bar[rows])
                good = part.solution.solved[part.kept]
                pieces += self._fold_in_parts(rows, at, *bars, good, call.options, settings)
        seconds = time.perf_counter() - started
        records = [(piece.rows, piece.record) for piece in pieces]
        call.ended(BackwardRecord.joined(records, solved.codes, seconds))
        return joined_gradients([(piece.rows, piece.data) for piece in pieces], solved, self.entries)

    def _fold_in_parts(
        self,
        rows: Tensor,
        at: Optimum,
        x_bar: Tensor,
        y_bar: Tensor,
        good: Tensor,
        options: Options,
        settings: AdjointSettings,
        only: Tensor | None = None,
    ) -> list["_Piece"]:
        """Fold the instances ``rows`` ``(b,)`` together, or in halves where memory does not suffice.

        Args:
            only: the positions among them, and among the other arguments', to fold; all if None.
        """
        method = options.backward
        assert not isinstance(method, Unrolled)
        given = (rows, at, x_bar, y_bar, good)
        try:
            if only is not None:
                rows, x_bar, y_bar, good = rows[only], x_bar[only], y_bar[only], good[only]
                at = at.take(only)
            folded = fold(at, at.phi, x_bar, y_bar, method, settings)
            adjoint = folded.adjoint
            diagnosis = diagnose(at, self.entries, x_bar, y_bar, folded, settings.deadline)
            record = BackwardRecord.of(
                adjoint.method, adjoint.history, adjoint.residual, adjoint.rate, 0.0, adjoint.exhausted,
                diagnosis, good, options.adjoint.tol, approximate=not adjoint.exact,
            )  # fmt: skip
            data = DataGradients(folded.lifted_p, folded.lifted_v, at.x, at.y, self.entries)
            return [_Piece(rows, data, record)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        rows, at, x_bar, y_bar, good = given
        at.__dict__.pop("phi", None)  # the factor it keeps for the next backward pass
        release(rows.device)
        if only is None:
            only = torch.arange(len(rows), device=rows.device)
        if len(only) == 1:
            program = at.splitting.program
            raise too_large(program.q.shape[1], program.cone.dim, message)
        middle = len(only) // 2
        return [
            piece
            for half in (only[:middle], only[middle:])
            for piece in self._fold_in_parts(rows, at, x_bar, y_bar, good, options, settings, half)
        ]

    def __deepcopy__(self, _: dict[int, Any]) -> "Core":
        """A copy that remembers nothing yet."""
        return Core(self.structure, self.moving)

    def __reduce__(self) -> tuple[Any, ...]:
        return Core, (self.structure, self.moving)


@dataclass(frozen=True)
class _Piece:
    """Gradients of the instances ``rows`` ``(b,)``, and their record."""

    rows: Tensor
    data: DataGradients
    record: BackwardRecord
