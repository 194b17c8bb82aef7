"""Unrolled differentiation of a layer: automatic differentiation of the operator F itself, nothing folded.

The same presolve, the same equilibration and the same F as in the folded layer, with the parameters on the
tape; what only steers the iteration (equilibration, penalty, relaxation) is held constant. So K iterations
from the fixed point give exactly the gradient of K steps of LFPI.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from cvxfold.engines.reduction.prepare import Prepared
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.penalty import first_penalty
from cvxfold.engines.tensors.residuals import residuals
from cvxfold.engines.tensors.solution import CODES, Solution, Status
from cvxfold.engines.tensors.splitting import Splitting
from cvxfold.fold.adjoint import AdjointSettings, Attempt, estimate_rate, relative_norm
from cvxfold.fold.linearization import Linearization
from cvxfold.fold.unrolled import Descent, Tape, Unrolled, unroll
from cvxfold.gradient.adjoint import Optimum, fold, right_hand_side
from cvxfold.gradient.diagnosis import diagnose
from cvxfold.layer.options import Options
from cvxfold.layer.request import Call
from cvxfold.layer.transforms import is_mapped
from cvxfold.problem.parametrize import ProgramValues
from cvxfold.report.report import BackwardRecord, ForwardRecord

if TYPE_CHECKING:
    from cvxfold.layer.session import Core

_ANOTHER = 1e-6  # relative difference of what arrives at the last state from what the loss gradients give


def solve_unrolled(
    values: ProgramValues,
    call: Call,
    method: Unrolled,
    ended: Callable[[Descent], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve by unrolling, differentiably in the values, once or twice.

    Args:
        values: each ``(1|B, ·)``, float64.
        call: what is asked, for a batch of B ≥ 1; its report is filled in.
        method: how to unroll.
        ended: told when the gradient has gone back through the tape, in place of the call.

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
    core, batch, options = call.core, call.batch, call.options
    invalid, call.invalid = call.invalid, None  # they hold numbers, and are iterated on like the others
    started = time.perf_counter()
    fixed = ProgramValues(*(value.detach() for value in values))
    differentiated = torch.is_grad_enabled() and any(value.requires_grad for value in values)
    with torch.no_grad():
        if method.start == "solution":
            solved = core.forward(fixed, call)
            absent = solved.absent if invalid is None else solved.absent | invalid
            if not differentiated:  # the iterations would change nothing
                return solved.x, solved.y, absent
            whole = solved.whole
            prepared, operator, u = whole.prepared, whole.solution.splitting, whole.at.u
        else:
            prepared = core.prepare(fixed, options.forward)
            operator = _operator(prepared, fixed.q, core.right_hand_side(fixed), batch, options)
            u = torch.zeros_like(operator.program.b)
            absent = torch.zeros(batch, dtype=torch.bool, device=u.device) if invalid is None else invalid
        u = operator.run(u, method.untracked)
    on_tape = core.preparation(options.forward.bare).on_tape(values.P, values.A, prepared)
    b = core.right_hand_side(values)
    program, scaling = on_tape.program(values.q, b, batch)
    splitting = Splitting(program, operator.penalty, operator.alpha)
    backward = _Backward(core, call, method, absent)
    tape = Tape(method.iterations, ended or backward.ended)
    u = unroll(lambda u: splitting.run(u, 1), tape.begin(u, list(values)), method, tape)
    point = splitting.evaluate(u)
    x, _, y = scaling.original(point.x, point.s, point.y)
    x, y = on_tape.reduced.lift(x, y, values.q, b)
    solution = _solution(operator, scaling, u.detach(), options, method)
    if method.start == "cold":
        record = ForwardRecord.of(solution, time.perf_counter() - started)
    else:
        assert call.report is not None
        record = call.report.forward
    if invalid is not None:
        record.codes[invalid] = CODES.index(Status.INVALID)
    if method.start == "cold":
        call.began(record)
    backward.watch(
        Optimum(operator, scaling, prepared.reduced, solution.point, x.detach(), y.detach()),
        solution.solved,
        x,
        y,
    )
    return x, y, absent


def _operator(prepared: Prepared, q: Tensor, b: Tensor, batch: int, options: Options) -> Splitting:
    """F as a cold start finds it: nothing is known of the instances but their data."""
    program, _ = prepared.program(q, b, batch)
    given = options.forward.penalty
    penalty = first_penalty(program) if given is None else program.q.new_tensor([given])
    return Splitting(program, penalty, options.forward.relaxation)


@torch.no_grad()
def _solution(
    splitting: Splitting, scaling: Scaling, u: Tensor, options: Options, method: Unrolled
) -> Solution:
    """The last iterate, judged like any other answer."""
    point = splitting.evaluate(u)
    residual = residuals(splitting.program, scaling, point.x, point.s, point.y)
    solved = residual.within(options.forward.eps_abs, options.forward.eps_rel)
    status = torch.where(solved, CODES.index(Status.SOLVED), CODES.index(Status.UNCONVERGED))
    iterations = torch.full_like(status, method.untracked + method.iterations)
    unknown = torch.full_like(residual.primal, torch.nan)
    return Solution(
        splitting, scaling, point, status, iterations, 0 * iterations, residual, unknown, status < 0
    )


@dataclass(frozen=True)
class _Found:
    """The adjoint that a tape amounts to, as a method, so that its residual is measured like any other's.

    From the solution that is what arrives at the first state. From a cold start it also has in it that the
    tape's iterations were not all at the last one's derivative.
    """

    w: Tensor
    history: Tensor
    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """The adjoint as it is."""
        return Attempt(
            self.w, self.history, "unrolled", torch.ones(len(rhs), dtype=torch.bool, device=rhs.device)
        )


class _Backward:
    """What is to be known when a gradient has gone back through the tape."""

    def __init__(self, core: "Core", call: Call, method: Unrolled, absent: Tensor) -> None:
        self._core, self._call, self._method, self._absent = core, call, method, absent
        self._at: Optimum | None = None
        self._solved: Tensor | None = None
        self._bars: dict[str, Tensor] = {}

    def watch(self, at: Optimum, solved: Tensor, x: Tensor, y: Tensor) -> None:
        """Note the loss gradients that will arrive at the outputs ``x`` and ``y``."""
        self._at, self._solved = at, solved
        for name, output in (("x", x), ("y", y)):
            if output.requires_grad:
                output.register_hook(lambda gradient, name=name: self._note(name, gradient))

    def _note(self, name: str, gradient: Tensor | None) -> None:
        if gradient is not None:
            self._bars[name] = gradient.detach()

    @torch.no_grad()
    def ended(self, descent: Descent) -> None:
        """Report, unless this was a second derivative on its way."""
        at, solved, bars = self._at, self._solved, self._bars
        self._bars = {}
        assert at is not None
        assert solved is not None
        started = time.perf_counter()
        x_bar, y_bar = bars.get("x", torch.zeros_like(at.x)), bars.get("y", torch.zeros_like(at.y))
        size = at.scaling.size.unsqueeze(-1)  # loss gradients are on x and y in the units of the program
        u_bar = size * right_hand_side(at, at.phi, x_bar, y_bar)[-1]
        if not bars or bool((relative_norm(descent.u_bar - u_bar, u_bar) > _ANOTHER).any()):
            return
        settings = self._call.options.adjoint
        rows = (~self._absent).nonzero().squeeze(-1)
        if not len(rows):
            return
        everyone = len(rows) == len(self._absent)
        if not everyone:
            at, x_bar, y_bar, solved, size = at.take(rows), x_bar[rows], y_bar[rows], solved[rows], size[rows]
        w, history = (descent.w, descent.history) if everyone else (descent.w[rows], descent.history[:, rows])
        folded = fold(at, at.phi, x_bar, y_bar, _Found(w / size, history), settings)
        record = BackwardRecord.of(
            str(self._method), history, folded.adjoint.residual, estimate_rate(history), 0.0,
            folded.adjoint.exhausted, diagnose(at, self._core.entries, x_bar, y_bar, folded), solved,
            settings.tol, approximate=False,
        )  # fmt: skip
        seconds = descent.seconds + time.perf_counter() - started
        codes = torch.zeros_like(self._absent, dtype=torch.long)
        self._call.ended(BackwardRecord.joined([(rows, record)], codes, seconds))
