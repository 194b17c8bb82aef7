"""What is said where a solution or a gradient falls short, and to whom."""

from collections.abc import Mapping

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
from cvxfold.gradient.verdict import OF_A_LAYER, Complaint, Remedies, Verdict
from cvxfold.layer.options import Options
from cvxfold.layer.said import Said, is_due, warn
from cvxfold.report.report import Report

_SPARE = "; with on_unsolvable='nan' they return NaN and the other instances their solutions"

FORWARD, BACKWARD = "forward pass", "backward pass"


def judge_forward(report: Report, options: Options, said: Said) -> None:
    """Raise for instances without a solution, and complain about those that missed the tolerance."""
    record = report.forward
    infeasible, unbounded = record.instances(Status.INFEASIBLE), record.instances(Status.UNBOUNDED)
    if options.on_unsolvable == "raise":
        if infeasible:
            also = f"; instances {unbounded} are unbounded" if unbounded else ""
            raise InfeasibleError(f"instances {infeasible} are infeasible{also}{_SPARE}", infeasible)
        if unbounded:
            raise UnboundedError(f"instances {unbounded} are unbounded{_SPARE}", unbounded)
    missed = record.instances(Status.UNCONVERGED)
    if missed:
        worst = float(record.here.residual[missed].nan_to_num(torch.inf).amax())
        text = (
            f"instances {missed} did not reach the tolerance {options.forward.eps:.1e} "
            f"(relative residual up to {worst:.1e}); raise max_iters, time_limit or tol{_unrescued(options)}"
        )
        complain(FORWARD, {str(Status.UNCONVERGED): text}, options.on_unconverged, report, said)


def _unrescued(options: Options) -> str:
    """What else would help, where a rescue is wanted and there is none."""
    reason = why_no_rescue() if options.rescue else None
    return "" if reason is None else f"; {reason}"


def judge_backward(report: Report, options: Options, said: Said) -> None:
    """Complain about gradients that are not to be trusted."""
    say(report, said, OF_A_LAYER, options.on_unconverged, options.on_degenerate)


def say(
    report: Report, said: Said, remedies: Remedies, on_unconverged: str, on_degenerate: str | None
) -> None:
    """Complain about gradients that are not to be trusted, each kind in the way that was asked for."""
    if on_unconverged == "ignore" == (on_degenerate or "ignore"):
        return  # without a look at the device
    record = report.backward
    assert record is not None
    report.complaints = {k: text for k, text in report.complaints.items() if not k.startswith(BACKWARD)}
    by_way: dict[str, list[Complaint]] = {}
    for complaint in record.complaints(remedies):
        degenerate = complaint.verdict is Verdict.DEGENERATE
        way = on_degenerate if degenerate and on_degenerate else on_unconverged
        by_way.setdefault(way, []).append(complaint)
    for way, found in sorted(by_way.items(), reverse=True):  # what warns is said before what raises
        degenerate = any(complaint.verdict is Verdict.DEGENERATE for complaint in found)
        error = DegenerateError if degenerate else ConvergenceError
        texts: dict[str, list[str]] = {}
        for complaint in found:
            texts.setdefault(str(complaint.verdict), []).append(complaint.text)
        joined = {kind: "; ".join(those) for kind, those in texts.items()}
        complain(BACKWARD, joined, way, report, said, error)


def complain_of_flat(options: Options) -> None:
    """Say that nothing can be learned from a batch whose gradients are all zero to rounding."""
    if options.on_unconverged != "ignore":
        warn(
            "backward pass: all gradients of this batch are zero to rounding, though the loss looks at the "
            "solutions: these do not move with the parameters, as the vertices of a linear program do not, "
            "so nothing is learned here; a quadratic term in the objective (0.1 * sum_squares(x)) makes them "
            "move (docs/choosing.md, 'Flat gradients'; report.backward.flat tells which; this is said once)",
            FlatGradientWarning,
        )


def complain(
    subject: str,
    texts: Mapping[str, str],
    how: str,
    report: Report,
    said: Said,
    error: type[ConvergenceError] = ConvergenceError,
) -> None:
    """Note complaints in the report, by kind, and raise or warn: in full the first time, then by counts."""
    if how == "ignore":
        return
    report.complaints |= {f"{subject}: {kind}": text for kind, text in texts.items()}
    if how == "raise":
        raise error(f"{subject}: {'; '.join(texts.values())}")
    parts = []
    for kind, text in texts.items():
        times = said.times(f"{subject}: {kind}")
        if times == 1:
            parts.append(text)
        elif is_due(times):
            parts.append(f"{kind!s} for the {times:,}th time; the report and cvxfold.Monitor tell all")
    if parts:
        warn(f"{subject}: {'; '.join(parts)}", ConvergenceWarning)
