"""The forward and the backward pass of a batch, with a report: all but automatic differentiation."""

import sys
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvxfold.backward import DataGradients, Entries, SplittingLinearization, differentiate
from cvxfold.errors import ConvergenceError, ConvergenceWarning, InfeasibleError, UnboundedError
from cvxfold.fold import METHODS
from cvxfold.forward.driver import solve
from cvxfold.forward.memory import Memory, Start
from cvxfold.forward.prepare import Preparation, Prepared
from cvxfold.forward.presolve import Reduced
from cvxfold.forward.solution import Solution, Status
from cvxfold.monitor.report import BackwardRecord, ForwardRecord, Report
from cvxfold.options import Options
from cvxfold.parametrize import ProgramValues
from cvxfold.program import ConeProgram
from cvxfold.structure import Structure


class Core:
    """Solves batches of one structure of cone program and differentiates the solutions.

    Keeps from call to call what the next one can use: factors, the equilibration, the penalty.

    Args:
        structure: of the program.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self._preparations: dict[bool, Preparation] = {}
        self._entries = Entries(structure)
        self._prepared: Prepared | None = None
        self._memory: Memory | None = None
        self.report: Report | None = None

    def forward(self, values: ProgramValues, call: "Call") -> "Solved":
        """The forward pass, without derivatives; fills in the call's report."""
        started = time.perf_counter()
        prepared = self._prepare(values, call.options.forward.bare)
        b = values.b.new_zeros(values.b.shape[0], self.structure.m)
        b.index_copy_(1, self._entries.b.on(b.device), values.b)
        program, scaling = prepared.program(values.q, b, call.batch)
        solution, memory = solve(
            program, scaling, call.options.forward, self._memory, self._start(values, program, prepared, call)
        )
        self._prepared, self._memory = prepared, memory
        x, _, y = scaling.original(solution.x, solution.s, solution.y)
        x, y = prepared.reduced.lift(x, y, values.q, b)
        call.report = self.report = Report(ForwardRecord.of(solution, time.perf_counter() - started))
        _judge_forward(solution, call.options)
        return Solved(solution, prepared.reduced, x, y)

    def _prepare(self, values: ProgramValues, bare: bool) -> Prepared:
        """What depends on P and A alone, from the last call where they are the same."""
        prepared = self._prepared
        if prepared is not None and prepared.fits(values.P, values.A, bare):
            return prepared
        if bare not in self._preparations:
            self._preparations[bare] = Preparation(self.structure, bare)
        return self._preparations[bare].prepare(values.P, values.A)

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
        options, reduced = call.options, solved.reduced
        p, v, adjoint = differentiate(
            solved.solution,
            solved.linearization,
            *reduced.restrict(x_bar, y_bar),
            METHODS[options.backward],
            options.adjoint,
        )
        p, v = reduced.lift_adjoint(p, v, x_bar, y_bar)
        record = BackwardRecord.of(adjoint, time.perf_counter() - started)
        if call.report is not None:
            call.report.backward = record
        _judge_backward(record, options)
        return DataGradients(p, v, solved.x, solved.y, self._entries)

    def __deepcopy__(self, _: dict[int, Any]) -> "Core":
        """A copy that remembers nothing yet."""
        return Core(self.structure)

    def __reduce__(self) -> tuple[Any, ...]:
        return Core, (self.structure,)


@dataclass(frozen=True)
class Solved:
    """What the backward pass needs: the reduced solution, the way back, and x and y in full."""

    solution: Solution
    reduced: Reduced
    x: Tensor
    y: Tensor

    @cached_property
    def linearization(self) -> SplittingLinearization:
        """Φ at the solution; it keeps its factor, so the rows of a Jacobian share one."""
        return SplittingLinearization.at(self.solution.splitting, self.solution.u)


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


def _judge_forward(solution: Solution, options: Options) -> None:
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


def _judge_backward(record: BackwardRecord, options: Options) -> None:
    if options.on_unconverged == "ignore" or bool(record.converged.all()):
        return
    missed = (~record.converged).nonzero().squeeze(-1).tolist()
    worst = float(record.residual[missed].amax())
    _complain(
        f"backward pass: the gradients of instances {missed} did not reach the tolerance "
        f"{options.adjoint.tol:.1e} by method {record.method!r} (relative residual up to {worst:.1e}); "
        "raise backward_max_iters, choose backward='auto', or see whether the solution is degenerate",
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
