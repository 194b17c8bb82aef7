"""Unrolled differentiation of a layer: automatic differentiation of the operator F itself, nothing folded.

The same presolve, the same equilibration and the same F as in the folded layer, with the parameters on the
tape; what only steers the iteration (equilibration, penalty, relaxation) is held constant. So K iterations
from the fixed point give exactly the gradient of K steps of LFPI.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cvxfold.batches.records import Piece, joined
from cvxfold.compat.functorch import is_mapped
from cvxfold.engines.protocol import Solution, SolveRequest
from cvxfold.gradient.adjoint import fold
from cvxfold.gradient.screen import screen
from cvxfold.layer.backward import examined
from cvxfold.layer.complaints import judge_forward
from cvxfold.layer.request import CallRequest
from cvxfold.layer.session import Session
from cvxfold.methods.adjoint import AdjointSettings
from cvxfold.methods.history import relative_norm
from cvxfold.methods.unrolled import Descent, OnTape, Tape, Unrolled
from cvxfold.problem.program import Program
from cvxfold.problem.values import ProgramValues
from cvxfold.report.records import BackwardRecord, ForwardRecord
from cvxfold.report.report import Report

_ANOTHER = 1e-6  # relative difference of what arrives at the last state from what the loss gradients give


def solve_unrolled(
    values: ProgramValues,
    session: Session,
    request: CallRequest,
    method: Unrolled,
    ended: Callable[[Descent], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve by unrolling, differentiably in the values, once or twice.

    1. Find the solution, unless the start is a cold one; without a gradient that is all.
    2. Iterate on the tape.
    3. Report on a cold start's last iterate like on any other answer.
    4. Wait for the loss gradients.

    Args:
        values: each ``(1|B, ·)``, float64.
        session: of the layer.
        request: what is asked, for a batch of B ≥ 1.
        method: how to unroll.
        ended: told when the gradient has gone back through the tape, in place of the session.

    Returns:
        x ``(B, n)`` and y ``(B, m)`` after the iterations, and which instances have no solution, ``(B,)``.

    Raises:
        NotImplementedError: under ``torch.func.vmap``.
        SolverError, ConvergenceError: as the folded layer does.
    """
    if any(is_mapped(value) for value in values):
        raise NotImplementedError(
            "cvxfold: backward='unrolled' is not available under torch.func.vmap; use the batch dimension"
        )
    options, started = request.options, time.perf_counter()
    nobody = torch.zeros(request.batch, dtype=torch.bool, device=values.q.device)
    absent = invalid = nobody if request.invalid is None else request.invalid
    start: Solution | None = None
    report: Report | None = None
    if method.start == "solution":  # 1
        with torch.no_grad():  # invalid instances hold numbers, and are iterated on like the others
            warm = request.warm if request.invalid is None else None  # which would remember them
            answer = session.solve(values.detached(), replace(request, invalid=None, warm=warm))
        report, absent = answer.report, answer.absent | invalid
        report.forward.invalidate(invalid)
        if not torch.is_grad_enabled() or not any(value.requires_grad for value in values):
            return answer.x, answer.y, absent  # the iterations would change nothing
        start = answer.whole
    program = Program(session.entries, values, request.batch)  # 2
    watch = _Backward(session, request, method, absent)
    tape = Tape(method.iterations, ended or watch.ended)
    x, y, solution = session.unroller.unroll(program, SolveRequest(options.forward), method, tape, start)
    if report is None:  # 3
        record = ForwardRecord.of(solution, time.perf_counter() - started)
        record.invalidate(invalid)
        report = Report(record, solution.engine)
        session.remember(report)
        try:
            judge_forward(report, options, session.said)
        finally:
            session.notify(report)
    watch.wait(solution, report, x, y)  # 4
    return x, y, absent


class _Backward:
    """What is to be known when a gradient has gone back through the tape.

    Args:
        session, request, method: of the call.
        absent: which instances have no solution, ``(B,)``.
    """

    def __init__(self, session: Session, request: CallRequest, method: Unrolled, absent: Tensor) -> None:
        self._session, self._request, self._method, self._absent = session, request, method, absent
        self._bars: dict[str, Tensor] = {}

    def wait(self, solution: Solution, report: Report, x: Tensor, y: Tensor) -> None:
        """Note the loss gradients that will arrive at the outputs ``x`` and ``y``, for the report."""
        self._solution, self._report = solution, report
        for name, output in (("x", x), ("y", y)):
            if output.requires_grad:
                output.register_hook(lambda gradient, name=name: self._note(name, gradient))

    def _note(self, name: str, gradient: Tensor | None) -> None:
        if gradient is not None:
            self._bars[name] = gradient.detach()

    @torch.no_grad()
    def ended(self, descent: Descent) -> None:
        """Report, unless this was a second derivative on its way."""
        solution, bars = self._solution, self._bars
        self._bars = {}
        started = time.perf_counter()
        solution = solution.asked(self._session.entries.asked(self._request.wanted))
        x_bar = bars.get("x", torch.zeros_like(solution.x))
        y_bar = bars.get("y", torch.zeros_like(solution.y))
        phi = self._session.unroller.linearize(solution)
        u_bar = phi.units.unsqueeze(-1) * phi.pull(x_bar, y_bar)
        if not bars or bool((relative_norm(descent.u_bar - u_bar, u_bar) > _ANOTHER).any()):
            return
        rows = (~self._absent).nonzero().squeeze(-1)
        if not len(rows):
            return
        record = self._record(solution, rows, x_bar[rows], y_bar[rows], descent)
        settings, batch = self._request.options.adjoint, self._request.batch
        seconds = descent.seconds + time.perf_counter() - started
        codes = torch.zeros_like(self._absent, dtype=torch.long)
        blank = BackwardRecord.blank(codes, record.method, len(record.history), settings.tol, seconds)
        record = replace(joined([Piece(rows, record)], blank, batch), seconds=seconds)
        self._report.set_backward(record)
        self._session.judge_backward(self._report, self._request.options)

    def _record(
        self, solution: Solution, rows: Tensor, x_bar: Tensor, y_bar: Tensor, descent: Descent
    ) -> BackwardRecord:
        """The record of the instances ``rows`` ``(b,)``, whose loss gradients are given."""
        engine, settings = self._session.unroller, self._request.options.adjoint
        everyone = len(rows) == len(self._absent)
        solution = solution if everyone else solution.take(rows)
        phi = engine.linearize(solution)
        w, history = (descent.w, descent.history) if everyone else (descent.w[rows], descent.history[:, rows])
        method = OnTape(w / phi.units.unsqueeze(-1), history, str(self._method))
        adjoint = fold(phi, x_bar, y_bar, method, settings)
        seen = screen(phi, adjoint, x_bar, y_bar)
        _, diagnosis = examined(engine, solution, (x_bar, y_bar), adjoint, seen, AdjointSettings())
        return BackwardRecord.of(adjoint.system, diagnosis, solution.solved, settings.tol)
