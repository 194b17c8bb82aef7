"""What is said where a solution or a gradient falls short, and to whom."""

import os
import sys
import warnings
from pathlib import Path

import torch

from cvxfold.engines.choose import why_no_rescue
from cvxfold.engines.outcome import Status
from cvxfold.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DegenerateError,
    FlatGradientWarning,
    InfeasibleError,
    UnboundedError,
)
from cvxfold.gradient.verdict import Complaint, Verdict
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
        _complain(
            f"forward pass: instances {missed} did not reach the tolerance {options.forward.eps:.1e} "
            f"(relative residual up to {worst:.1e}); raise max_iters, time_limit or tol{_unrescued(options)}",
            options.on_unconverged,
        )


def _unrescued(options: Options) -> str:
    """What else would help, where a rescue is wanted and there is none."""
    reason = why_no_rescue() if options.rescue else None
    return "" if reason is None else f"; {reason}"


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


def complain_of_flat(options: Options) -> None:
    """Say that nothing can be learned from a batch whose gradients are all zero to rounding."""
    if options.on_unconverged != "ignore":
        warnings.warn(
            "backward pass: all gradients of this batch are zero to rounding, though the loss looks at the "
            "solutions: these do not move with the parameters, as the vertices of a linear program do not, "
            "so nothing is learned here; a quadratic term in the objective (0.1 * sum_squares(x)) makes them "
            "move (docs/choosing.md, 'Flat gradients'; report.backward.flat tells which; this is said once)",
            FlatGradientWarning,
            stacklevel=_frames_to_the_caller(),
        )


def _complain(message: str, how: str, error: type[ConvergenceError] = ConvergenceError) -> None:
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
