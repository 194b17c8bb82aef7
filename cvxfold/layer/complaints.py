"""What is said where a solution or a gradient falls short, and to whom."""

from collections.abc import Mapping, Sequence
from functools import partial

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
from cvxfold.report.records import BackwardRecord
from cvxfold.report.report import BACKWARD, FORWARD, Report

_SPARE = "; with on_unsolvable='nan' they return NaN and the other instances their solutions"


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
        complain_of_forward({str(Status.UNCONVERGED): text}, options.on_unconverged, report, said)


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
    record = report.backward
    assert record is not None
    if on_unconverged == "ignore" == (on_degenerate or "ignore"):
        report.set_complaints(BACKWARD, partial(_texts, record, remedies))
        return  # without a look at the device
    found = record.complaints(remedies)
    report.set_complaints(BACKWARD, _by_kind(found))
    by_way: dict[str, list[Complaint]] = {}
    for complaint in found:
        degenerate = complaint.verdict is Verdict.DEGENERATE
        way = on_degenerate if degenerate and on_degenerate else on_unconverged
        by_way.setdefault(way, []).append(complaint)
    for way, those in sorted(by_way.items(), reverse=True):  # what warns is said before what raises
        degenerate = any(complaint.verdict is Verdict.DEGENERATE for complaint in those)
        _say(BACKWARD, _by_kind(those), way, said, DegenerateError if degenerate else ConvergenceError)


def _texts(record: BackwardRecord, remedies: Remedies) -> dict[str, str]:
    """All that is to be said of gradients, by kind."""
    return _by_kind(record.complaints(remedies))


def _by_kind(found: Sequence[Complaint]) -> dict[str, str]:
    """What is to be said of each kind of gradient."""
    texts: dict[str, list[str]] = {}
    for complaint in found:
        texts.setdefault(str(complaint.verdict), []).append(complaint.text)
    return {kind: "; ".join(those) for kind, those in texts.items()}


def complain_of_flat(options: Options) -> None:
    """Say that nothing can be learned from a batch whose gradients are all zero to rounding."""
    if options.on_unconverged != "ignore":
        warn(
            "backward pass: all gradients of this batch are zero to rounding, though the loss looks at the "
            "solutions: these do not move with the parameters, as the vertices of a linear program do not, "
            "so nothing is learned here; a quadratic term in the objective (0.1 * sum_squares(x)) makes them "
            "move (documentation: 'Training that goes wrong', section 'Flat gradients'; report.backward.flat "
            "tells which; this is said once)",
            FlatGradientWarning,
        )


def complain_of_forward(texts: dict[str, str], how: str, report: Report, said: Said) -> None:
    """Note complaints of a forward pass in the report, by kind, and raise or warn."""
    report.set_complaints(FORWARD, texts)
    _say(FORWARD, texts, how, said, ConvergenceError)


def _say(subject: str, texts: Mapping[str, str], how: str, said: Said, error: type[ConvergenceError]) -> None:
    """Raise or warn, by kind: in full the first time, then by counts."""
    if how == "ignore":
        return
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
