"""What is said where a solution or a gradient falls short, and to whom."""

import os
import sys
import warnings
from pathlib import Path

import torch

from cvxfold.engines.outcome import Status
from cvxfold.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DegenerateError,
    InfeasibleError,
    UnboundedError,
)
from cvxfold.gradient.verdict import OF_A_LAYER, Complaint, Remedies, Verdict
from cvxfold.layer.options import Options
from cvxfold.report.records import BackwardRecord, ForwardRecord

_SPARE = "; with on_unsolvable='nan' they return NaN and the other instances their solutions"


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
        complain(
            f"forward pass: instances {missed} did not reach the tolerance {options.forward.eps_abs:.1e} "
            f"(relative residual up to {worst:.1e}); raise max_iters, time_limit or tol",
            options.on_unconverged,
        )


def judge_backward(record: BackwardRecord, options: Options) -> None:
    """Complain about gradients that are not to be trusted."""
    say(record, OF_A_LAYER, options.on_unconverged, options.on_degenerate)


def say(record: BackwardRecord, remedies: Remedies, on_unconverged: str, on_degenerate: str | None) -> None:
    """Complain about gradients that are not to be trusted, each kind in the way that was asked for."""
    if on_unconverged == "ignore" == (on_degenerate or "ignore"):
        return  # without a look at the device
    by_way: dict[str, list[Complaint]] = {}
    for complaint in record.complaints(remedies):
        degenerate = complaint.verdict is Verdict.DEGENERATE
        way = on_degenerate if degenerate and on_degenerate else on_unconverged
        by_way.setdefault(way, []).append(complaint)
    for way, found in sorted(by_way.items(), reverse=True):  # what warns is said before what raises
        degenerate = any(complaint.verdict is Verdict.DEGENERATE for complaint in found)
        error = DegenerateError if degenerate else ConvergenceError
        complain(f"backward pass: {'; '.join(complaint.text for complaint in found)}", way, error)


def complain(message: str, how: str, error: type[ConvergenceError] = ConvergenceError) -> None:
    """Raise, warn, or do nothing, as ``how`` says."""
    if how == "raise":
        raise error(message)
    if how == "warn":
        warnings.warn(message, ConvergenceWarning, stacklevel=_frames_to_the_caller())


def _frames_to_the_caller() -> int:
    """How many frames up the first one is that belongs neither to cvxfold nor to torch."""
    inner = tuple(
        f"{Path(module.__file__ or '').parent}{os.sep}" for module in (sys.modules["cvxfold"], torch)
    )
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inner):
        frame, depth = frame.f_back, depth + 1
    return depth
