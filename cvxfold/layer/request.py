"""One call of a layer: what was asked, what came of it, and what is said where that falls short."""

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cvxfold.deadline import NEVER
from cvxfold.engines.tensors.solution import Status
from cvxfold.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DegenerateError,
    InfeasibleError,
    UnboundedError,
)
from cvxfold.gradient.verdict import Complaint, Verdict
from cvxfold.layer.answer import Solved
from cvxfold.layer.options import Options
from cvxfold.report.report import BackwardRecord, ForwardRecord, Report

if TYPE_CHECKING:
    from cvxfold.layer.session import Core

_SPARE = "; with on_unsolvable='nan' they return NaN and the other instances their solutions"


class Call:
    """One call: what was asked, and what came of it.

    Args:
        core: that serves it. batch: B. options: of this call.
        warm_start: whether to start from the last solution.
        invalid: instances whose parameters are not to be solved for, ``(B,)``; None if there are none.
    """

    def __init__(
        self, core: "Core", batch: int, options: Options, warm_start: bool, invalid: Tensor | None = None
    ) -> None:
        self.core = core
        self.batch = batch
        self.options = options
        self.warm_start = warm_start
        self.invalid = invalid
        self.deadline = NEVER  # of the forward pass, once it has begun
        self.report: Report | None = None
        self.solved: Solved | None = None
        self.flattened: Call | None = None  # the call that served this one under torch.func.vmap

    def began(self, record: ForwardRecord) -> None:
        """Report a forward pass, and complain where it fell short."""
        self.report = self.core.report = Report(record)
        self.core.tell(self.report)
        judge_forward(record, self.options)

    def ended(self, record: BackwardRecord) -> None:
        """Report a backward pass, and complain about gradients that are not to be trusted."""
        if self.report is not None:
            self.report.backward = record
            self.core.tell(self.report)
        judge_backward(record, self.options)


def judge_forward(record: ForwardRecord, options: Options) -> None:
    """Raise for instances without a solution, and complain about those that missed the tolerance."""
    infeasible, unbounded = record.instances(Status.INFEASIBLE), record.instances(Status.UNBOUNDED)
    if options.on_unsolvable == "raise":
        if infeasible:
            also = f"; instances {unbounded} are unbounded" if unbounded else ""
            raise InfeasibleError(f"instances {infeasible} are infeasible{also}{_SPARE}", infeasible)
        if unbounded:
            raise UnboundedError(f"instances {unbounded} are unbounded{_SPARE}", unbounded)
    missed = record.instances(Status.UNCONVERGED)
    if missed:
        worst = float(record.residual[missed].nan_to_num(torch.inf).amax())
        _complain(
            f"forward pass: instances {missed} did not reach the tolerance {options.forward.eps_abs:.1e} "
            f"(relative residual up to {worst:.1e}); raise max_iters, time_limit or tol",
            options.on_unconverged,
        )


def judge_backward(record: BackwardRecord, options: Options) -> None:
    """Complain about gradients that are not to be trusted."""
    if options.on_unconverged == "ignore" == (options.on_degenerate or "ignore"):
        return  # without a look at the device
    by_way: dict[str, list[Complaint]] = {}
    for complaint in record.complaints():
        degenerate = complaint.verdict is Verdict.DEGENERATE
        way = options.on_degenerate if degenerate and options.on_degenerate else options.on_unconverged
        by_way.setdefault(way, []).append(complaint)
    for way, found in sorted(by_way.items(), reverse=True):  # what warns is said before what raises
        degenerate = any(complaint.verdict is Verdict.DEGENERATE for complaint in found)
        error = DegenerateError if degenerate else ConvergenceError
        _complain(f"backward pass: {'; '.join(complaint.text for complaint in found)}", way, error)


def _complain(message: str, how: str, error: type[ConvergenceError] = ConvergenceError) -> None:
    if how == "raise":
        raise error(message)
    if how == "warn":
        warnings.warn(message, ConvergenceWarning, stacklevel=_frames_to_the_caller())


def _frames_to_the_caller() -> int:
    """How many frames up the first one is that belongs neither to cvxfold nor to torch."""
    inner = tuple(str(Path(module.__file__ or "").parent) for module in (sys.modules["cvxfold"], torch))
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inner):
        frame, depth = frame.f_back, depth + 1
    return depth
