"""The forward and the backward pass of a batch, with a report: all but automatic differentiation."""

import sys
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvxfold.backward import DataGradients, Entries, Optimum, fold
from cvxfold.diagnosis import diagnose
from cvxfold.errors import ConvergenceError, ConvergenceWarning, InfeasibleError, UnboundedError
from cvxfold.fold.unrolled import Unrolled
from cvxfold.forward.driver import solve
from cvxfold.forward.memory import Memory, Start
from cvxfold.forward.prepare import Preparation, Prepared
from cvxfold.forward.solution import ForwardSettings, Solution, Status
from cvxfold.monitor.report import BackwardRecord, ForwardRecord, Report
from cvxfold.options import Options
from cvxfold.parametrize import ProgramValues
from cvxfold.program import ConeProgram
from cvxfold.structure import Moving, Structure


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
        self.report: Report | None = None
        self._listeners: dict[int, Callable[[Report], Any]] = {}
        self._keys = count()

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Call ``callback`` with the report after each pass, until the function returned is called."""
        key = next(self._keys)
        self._listeners[key] = callback

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    def tell(self, report: Report) -> None:
        """Call back all that listen."""
        for callback in list(self._listeners.values()):
            callback(report)

    def forward(self, values: ProgramValues, call: "Call") -> "Solved":
        """The forward pass, without derivatives; fills in the call's report."""
        started = time.perf_counter()
        solved, memory = self._solve(values, call)
        self._prepared, self._memory, self._last = solved.prepared, memory, weakref.ref(solved)
        call.began(solved.solution, time.perf_counter() - started)
        return solved

    def look(self, values: ProgramValues, call: "Call") -> "Solved":
        """The last solution, if it lives and is that of the same data, or a new one that leaves no trace."""
        last = self._last()
        if last is not None and last.prepared.fits(values.P, values.A, call.options.forward.bare):
            program, _ = last.prepared.program(values.q, self.right_hand_side(values), call.batch)
            known = last.at.splitting.program
            if torch.equal(known.q, program.q) and torch.equal(known.b, program.b):
                return last
        return self._solve(values, call)[0]

    def _solve(self, values: ProgramValues, call: "Call") -> tuple["Solved", Memory]:
        """Presolve, solve, and undo the presolve."""
        prepared, b = self.prepare(values, call.options.forward), self.right_hand_side(values)
        program, scaling = prepared.program(values.q, b, call.batch)
        solution, memory = solve(
            program, scaling, call.options.forward, self._memory, self._start(values, program, prepared, call)
        )
        point = solution.point
        x, _, y = scaling.original(point.x, point.s, point.y)
        x, y = prepared.reduced.lift(x, y, values.q, b)
        at = Optimum(solution.splitting, scaling, prepared.reduced, point, x, y)
        return Solved(solution, at, prepared), memory

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
        self, values: ProgramValues, program: ConeProgram, prepared: Prepared, call: "Call"
    ) -> Start | None:
        """Where the forward pass begins: another solver's solution, or the last one, or nothing known."""
        solver = call.options.solver
        if solver is None:
            return self._memory.start(program) if call.warm_start and self._memory else None
        s, y, status, iterations = solver.black_box.solve_batch(
            self.structure, values, call.batch, solver.arguments, solver.workers
        )
        return Start(prepared.reduced.rows(s), prepared.reduced.rows(y), status, iterations)

    def backward(self, solved: "Solved", x_bar: Tensor, y_bar: Tensor, call: "Call") -> DataGradients:
        """The backward pass from loss gradients on x and y; fills in the call's report."""
        started = time.perf_counter()
        options, at = call.options, solved.at
        assert not isinstance(options.backward, Unrolled)
        folded = fold(at, at.phi, x_bar, y_bar, options.backward, options.adjoint)
        adjoint = folded.adjoint
        diagnosis = diagnose(at, self.entries, x_bar, y_bar, folded)
        call.ended(
            BackwardRecord.of(
                adjoint.method,
                adjoint.history,
                adjoint.residual,
                adjoint.rate,
                time.perf_counter() - started,
                diagnosis,
                solved.solution.solved,
                options.adjoint.tol,
                approximate=not adjoint.exact,
            )
        )
        return DataGradients(folded.lifted_p, folded.lifted_v, at.x, at.y, self.entries)

    def __deepcopy__(self, _: dict[int, Any]) -> "Core":
        """A copy that remembers nothing yet."""
        return Core(self.structure, self.moving)

    def __reduce__(self) -> tuple[Any, ...]:
        return Core, (self.structure, self.moving)


@dataclass(frozen=True)
class Solved:
    """What the backward pass needs: the solution, where it is in full, and what depends on P and A alone."""

    solution: Solution
    at: Optimum
    prepared: Prepared


class Call:
    """One call: what was asked, and what came of it.

    Args:
        core: that serves it. batch: B. options: of this call.
        warm_start: whether to start from the last solution.
    """

    def __init__(self, core: Core, batch: int, options: Options, warm_start: bool) -> None:
        self.core = core
        self.batch = batch
        self.options = options
        self.warm_start = warm_start
        self.report: Report | None = None
        self.solved: Solved | None = None
        self.flattened: Call | None = None  # the call that served this one under torch.func.vmap

    def began(self, solution: Solution, seconds: float) -> None:
        """Report a forward pass, and complain where it fell short."""
        self.report = self.core.report = Report(ForwardRecord.of(solution, seconds))
        self.core.tell(self.report)
        judge_forward(solution, self.options)

    def ended(self, record: BackwardRecord) -> None:
        """Report a backward pass, and complain about gradients that are not to be trusted."""
        if self.report is not None:
            self.report.backward = record
            self.core.tell(self.report)
        if self.options.on_unconverged != "ignore" and (complaints := record.complaints()):
            _complain(f"backward pass: {'; '.join(complaints)}", self.options)


def judge_forward(solution: Solution, options: Options) -> None:
    """Raise for instances without a solution, and complain about those that missed the tolerance."""
    infeasible, unbounded = solution.instances(Status.INFEASIBLE), solution.instances(Status.UNBOUNDED)
    if infeasible:
        also = f"; instances {unbounded} are unbounded" if unbounded else ""
        raise InfeasibleError(f"instances {infeasible} are infeasible{also}", infeasible)
    if unbounded:
        raise UnboundedError(f"instances {unbounded} are unbounded", unbounded)
    missed = solution.instances(Status.UNCONVERGED)
    if missed:
        worst = float(solution.residuals.worst()[missed].amax())
        _complain(
            f"forward pass: instances {missed} did not reach the tolerance {options.forward.eps_abs:.1e} "
            f"(relative residual up to {worst:.1e}); raise max_iters or tol",
            options,
        )


def _complain(message: str, options: Options) -> None:
    if options.on_unconverged == "raise":
        raise ConvergenceError(message)
    if options.on_unconverged == "warn":
        warnings.warn(message, ConvergenceWarning, stacklevel=_frames_to_the_caller())


def _frames_to_the_caller() -> int:
    """How many frames up the first one is that belongs neither to cvxfold nor to torch."""
    inner = tuple(str(Path(module.__file__ or "").parent) for module in (sys.modules["cvxfold"], torch))
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inner):
        frame, depth = frame.f_back, depth + 1
    return depth
