"""A benchmark as tables."""

from collections.abc import Iterable

from rich import box
from rich.markup import escape
from rich.table import Table

from cvxfold.studies.bench.peers import OURS
from cvxfold.studies.bench.profile import STAGES
from cvxfold.studies.bench.result import (
    FORWARD_LIMIT,
    GRADIENT_LIMIT,
    BenchCell,
    BenchResult,
    Measurement,
)

_HEADINGS = (
    "set-up\nms",
    "forward\nms",
    "backward\nms",
    "total\nms",
    "instances\na second",
    "memory\nMB",
    "forward\nerror",
    "gradient\nerror",
    "times\ncvxfold",
)


def table(result: BenchResult) -> Table:
    """One line for each peer on each cell; wrong answers are red and say so."""
    found = _table("Side by side, medians", _HEADINGS)
    for cell in result.cells:
        title = f"[b]{escape(cell.family)}[/b] {cell.size}, batch {cell.batch}"
        found.add_row(title, *[""] * len(_HEADINGS), "")
        for last, one in _marked(cell.measurements):
            found.add_row(*_line(cell, one), end_section=last)
    return found


def summary(result: BenchResult) -> str:
    """Ratios, what was skipped, what the columns are."""
    lines = list(result.skipped)
    measured = [cell for cell in result.cells if cell.against_fastest is not None]
    ahead = sum(1 for cell in measured if (cell.against_fastest or 0.0) > 1)
    for who, ratio, of in (
        ("The fastest correct peer", result.median_against_fastest, f" of {len(measured)}, {ahead} above 1"),
        ("The fastest peer, right or wrong,", result.median_against_any, ""),
        ("cvxpylayers at its defaults", result.median_against_theirs, ""),
    ):
        if ratio is not None:
            lines.append(f"{who} takes {_times(ratio)} times as long as cvxfold (median{of}).")
    alone = len([cell for cell in result.cells if cell.fastest_correct is None])
    if alone:
        lines.append(f"In {alone} of {len(result.cells)} no other peer is known to be correct.")
    lines.append(
        f"Wrong: a relative error above {FORWARD_LIMIT:g} in the solution or {GRADIENT_LIMIT:g} in the "
        "gradient, against an independent reference."
    )
    return "\n".join(lines)


def profile_table(result: BenchResult) -> Table:
    """Where cvxfold's own time goes: milliseconds by stage, one column for each cell."""
    cells = [cell for cell in result.cells if cell.profile is not None]
    found = _table("cvxfold by stage, ms", [f"{c.family}\n{c.size}, batch {c.batch}" for c in cells])
    found.columns.pop()  # no notes
    for stage in STAGES:
        found.add_row(stage, *(_ms((cell.profile or {}).get(stage)) for cell in cells))
    return found


def training_table(result: BenchResult) -> Table:
    """Steps of a training from nothing and from earlier solutions."""
    headings = ("cold\nms", "warm\nms", "cold /\nwarm", "shuffled\nms", "cold /\nshuffled")
    found = _table("Training, a step", (*headings, "difference\nof outputs", "steps"))
    for row in result.training:
        found.add_row(
            f"{escape(row.family)} {row.size}, batch {row.batch}, {row.peer}",
            _ms(row.cold),
            _ms(row.warm),
            _times(row.gain),
            _ms(row.shuffled),
            _times(row.gain_shuffled),
            _e(row.difference),
            str(row.steps),
            escape(row.note),
        )
    return found


def _table(title: str, headings: Iterable[str]) -> Table:
    found = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    found.add_column("", no_wrap=True)
    for heading in headings:
        found.add_column(heading, justify="right", no_wrap=True)
    found.add_column("")
    return found


def _line(cell: BenchCell, one: Measurement) -> list[str]:
    wrong = one.correct is False
    fastest = cell.fastest_correct
    remarks = ["[red]wrong[/red]"] if wrong else []
    if fastest is not None and one.peer == fastest.peer:
        remarks.append("fastest correct peer")
    if one.host_error is not None:
        remarks.append(f"{_e(one.host_error)} from CPU's")
    if one.note:
        remarks.append(escape(one.note))
    ours = cell.of(OURS)
    total = None if ours is None else ours.total_seconds
    times = None if not total or one.total_seconds is None else one.total_seconds / total
    megabytes = "-" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.1f}"
    return [
        f"  {escape(one.peer)}",
        _ms(one.setup),
        _ms(one.forward_seconds),
        _ms(one.backward_seconds),
        _ms(one.total_seconds),
        "-" if not one.total_seconds else f"{cell.batch / one.total_seconds:.3g}",
        megabytes,
        _limited(one.forward_error, FORWARD_LIMIT),
        _limited(one.gradient_error, GRADIENT_LIMIT),
        _times(times),
        ", ".join(remarks),
    ]


def _marked(measurements: tuple[Measurement, ...]) -> list[tuple[bool, Measurement]]:
    """Each with whether it is the last."""
    return [(place == len(measurements) - 1, one) for place, one in enumerate(measurements)]


def _limited(error: float | None, limit: float) -> str:
    text = _e(error)
    return text if error is None or error <= limit else f"[red]{text}[/red]"


def _e(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}" if value < 100 else f"{value:.0f}"
