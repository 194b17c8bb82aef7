"""Plots of one call, and of many."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from cvxfold.display.figures import (
    COLOURS,
    guide,
    legend_below,
    logarithmic,
    new_figure,
    saved,
    tidy,
    with_zeros,
)
from cvxfold.engines.outcome import Status
from cvxfold.gradient.verdict import NO_SOLUTION, Verdict
from cvxfold.report.course import Course
from cvxfold.report.records import BackwardRecord, ForwardRecord

_CURVES = 8  # histories that are drawn
_FEWEST = 4  # bars that there is room for
_PAD = 12  # between axes and their title, where marks stand
_KINDS: dict[Status | Verdict, str] = {
    Status.SOLVED: COLOURS[0],
    Status.UNCONVERGED: COLOURS[2],
    Status.INFEASIBLE: COLOURS[1],
    Status.UNBOUNDED: COLOURS[7],
    Status.INVALID: COLOURS[4],
    Verdict.CONVERGED: COLOURS[0],
    Verdict.SLOW: COLOURS[2],
    Verdict.DEGENERATE: COLOURS[1],
    Verdict.FORWARD_INEXACT: COLOURS[7],
    Verdict.APPROXIMATE: COLOURS[3],
    Verdict.FAILED: "#8b0000",
    Verdict.ILL_CONDITIONED: COLOURS[6],
    Verdict.NO_SOLUTION: COLOURS[5],
}
_RESIDUALS = {
    "forward residual": (COLOURS[5], "s"),
    "backward residual": (COLOURS[0], "o"),
    "error estimate": (COLOURS[2], "^"),
}
_SOUND = (Status.SOLVED, Verdict.CONVERGED)


def draw_report(forward: ForwardRecord, backward: BackwardRecord | None, path: Any = None) -> Any:
    """Figures by instance, the history of an iterative method, and how many of each kind there are.

    Args:
        forward, backward: of one call, on the CPU.
        path: where to save it, if anywhere.

    Returns:
        The figure.
    """
    iterative = backward is not None and len(backward.history) > 1 and not _is_direct(backward)
    panels = 2 + iterative
    figure = new_figure(figsize=(4.6 * panels + 0.4, 3.8))
    axes = figure.subplots(1, panels, width_ratios=[*[1.4] * (panels - 1), 1])
    _by_instance(axes[0], forward, backward)
    if backward is not None and iterative:
        _history(axes[1], backward)
    _counts(axes[-1], forward, backward)
    return saved(figure, path)


def draw_monitor(forward: Course, backward: Course, path: Any = None) -> Any:
    """Residuals, verdicts and times over the calls, one above the other.

    Args:
        forward, backward: what the monitor kept, by call.
        path: where to save it, if anywhere.

    Returns:
        The figure.
    """
    figure = new_figure(figsize=(7.5, 7.5))
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[1.6, 1, 1])
    for course, name, label in (
        (forward, "residual", "forward residual"),
        (backward, "residual", "backward residual"),
        (backward, "error", "error estimate"),
    ):
        values = course.of(name)
        told = with_zeros(f"{label}, worst", values).replace(" (", "\n(")
        top.plot(course.places, logarithmic(values), color=_RESIDUALS[label][0], lw=1.3, label=told)
    medians = logarithmic(backward.of("median"))
    label = "backward residual, median"
    top.plot(backward.places, medians, color=COLOURS[0], lw=1.0, ls=":", label=label)
    top.set(yscale="log", ylabel="relative", title="Residuals and error estimates of the batches")
    _shares(middle, backward if backward.calls else forward)
    for course, name, colour in ((forward, "forward", COLOURS[5]), (backward, "backward", COLOURS[0])):
        milliseconds = [1e3 * value for value in course.of("seconds")]
        bottom.plot(course.places, milliseconds, color=colour, lw=1.3, label=name)
    several = f" (each point: {forward.width:,} calls)" if forward.width > 1 else ""
    bottom.set(ylabel="ms a call", xlabel=f"call{several}", title="Time", ylim=(0, None))
    for ax in (top, middle, bottom):
        tidy(ax)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return saved(figure, path)


def _is_direct(backward: BackwardRecord) -> bool:
    """Whether iterations are the corrections of a factorization, which have no course to look at."""
    return all(part.startswith(("direct", "none")) for part in backward.method.split("; "))


def _by_instance(ax: Any, forward: ForwardRecord, backward: BackwardRecord | None) -> None:
    """Residuals and error estimates of each instance; those that did not end well are ringed."""
    shown = {"forward residual": forward.residual}
    kinds: Sequence[Status | Verdict] = forward.status
    if backward is not None:
        known = backward.codes != NO_SOLUTION
        fine = known & ~backward.degenerate
        shown["backward residual"] = torch.where(known, backward.residual.double(), torch.nan)
        shown["error estimate"] = torch.where(fine, backward.error.double(), torch.nan)
        kinds = backward.verdict
        guide(ax, backward.tol, "backward_tol")
    for name, values in shown.items():
        colour, marker = _RESIDUALS[name]
        numbers = values.tolist()
        label = with_zeros(name, numbers)
        ax.plot(logarithmic(numbers), ls="", marker=marker, ms=4, color=colour, label=label)
    for kind in dict.fromkeys(kinds):
        if kind in _SOUND:
            continue
        places = [place for place, each in enumerate(kinds) if each is kind]
        at = ax.get_xaxis_transform()
        ax.plot(places, [1.02] * len(places), ls="", marker="v", ms=6, color=_KINDS[kind], transform=at,
                clip_on=False, label=str(kind))  # fmt: skip
    ax.set(yscale="log", xlabel="instance", ylabel="relative")
    ax.set_title("Each instance", pad=_PAD)
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend_below(ax)
    tidy(ax)


def _history(ax: Any, backward: BackwardRecord) -> None:
    """Residuals by iteration of some instances, from the slowest to the fastest."""
    history = backward.history.double()
    order = history.isfinite().sum(0).argsort(descending=True, stable=True)
    some = torch.linspace(0, len(order) - 1, min(_CURVES, len(order))).round().long().unique()
    for place, instance in enumerate(order[some].tolist()):
        own = history[:, instance]
        own = own[own.isfinite()]
        if not len(own):
            continue
        verdict = backward.verdict[instance]
        also = "" if verdict is Verdict.CONVERGED else f", {verdict}"
        steps = range(1, len(own) + 1)
        colour = COLOURS[place % len(COLOURS)]
        name = f"instance {instance}{also}"
        mark = "." if len(own) < 3 else ""
        ax.plot(steps, logarithmic(own.tolist()), color=colour, lw=1.3, marker=mark, label=name)
    guide(ax, backward.tol, "backward_tol")
    ax.set(yscale="log", xlabel="iterations", ylabel="relative residual")
    ax.set_title(f"Adjoint by {backward.method}", pad=_PAD)
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend_below(ax)
    tidy(ax)


def _counts(ax: Any, forward: ForwardRecord, backward: BackwardRecord | None) -> None:
    """A bar for each status and each verdict."""
    counted = Counter[Status | Verdict](forward.status)
    if backward is not None:
        counted.update(backward.verdict)
    kinds = [kind for kind in (*Status, *Verdict) if counted[kind]]
    for place, kind in enumerate(kinds):
        ax.barh(place, counted[kind], color=_KINDS[kind], height=0.6)
        ax.text(counted[kind], place, f" {counted[kind]:,}", va="center")
    ax.set_yticks(range(len(kinds)), [str(kind) for kind in kinds])
    ax.set(xlabel="instances", xlim=(0, 1.2 * max(counted.values(), default=1)))
    ax.set_title("Statuses and verdicts", pad=_PAD)
    ax.set_ylim(max(len(kinds), _FEWEST) - 0.5, -0.5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    tidy(ax)


def _shares(ax: Any, course: Course) -> None:
    """How the instances of the batches ended, in shares of all, stacked."""
    kinds = [kind for kind in (*Verdict, *Status) if str(kind) in course.names]
    numbers = [course.of(str(kind)) for kind in kinds]
    totals = [sum(column) or 1.0 for column in zip(*numbers, strict=True)]
    shares = [[100 * n / total for n, total in zip(row, totals, strict=True)] for row in numbers]
    if kinds:
        ax.stackplot(course.places, shares, labels=list(map(str, kinds)), colors=[_KINDS[k] for k in kinds],
                     alpha=0.8)  # fmt: skip
    ax.set(
        ylabel="% of the instances",
        ylim=(0, 100),
        title="Verdicts" if Verdict in map(type, kinds) else "Statuses",
    )
