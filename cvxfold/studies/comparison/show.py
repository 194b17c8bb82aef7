"""A comparison as a table."""

from collections import Counter
from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cvxfold.display.html import badge, block, line, title
from cvxfold.display.html import table as table_of
from cvxfold.gradient.verdict import Verdict
from cvxfold.report.shown import badges
from cvxfold.studies.comparison.findings import Findings, Row
from cvxfold.studies.comparison.verdict import words

_WIDTH = 80
_NARROWEST = len("cvxpylayers")  # of the column of names


def table(comparison: Findings) -> Table:
    """One line for each contestant: the largest figures over the batch.

    Names are folded where there is no room for them; numbers never are, and on a narrow console the table is
    wider than that (print it with ``crop=False``).
    """
    headings = _headings(comparison)
    lines = [(row, _cells(comparison, row)) for row in comparison.rows]
    found = Table(
        title=_title(comparison),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    found.add_column("", overflow="fold", min_width=_NARROWEST)
    for place, heading in enumerate(headings):
        cells = [*heading.splitlines(), *(cells[place] for _, cells in lines if place < len(cells))]
        found.add_column(heading, justify="right", no_wrap=True, min_width=max(map(len, cells)))
    for row, cells in lines:
        found.add_row(escape(row.name), *cells)
    return found


def text(comparison: Findings) -> str:
    """The table and the verdict in plain characters."""
    buffer = StringIO()
    console = Console(
        file=buffer, width=_WIDTH, color_system=None, highlight=False, markup=False, force_jupyter=False
    )
    console.print(table(comparison))
    console.print(words(comparison))
    return buffer.getvalue().rstrip()


def html(comparison: Findings) -> str:
    """For notebooks: the table, with what cvxfold says of its own gradients, and the verdict."""
    lines: list[Sequence[str]] = []
    for row in comparison.rows:
        counted = Counter(row.verdicts or ())
        name = badge(row.name, "good") if row.name in comparison.right else row.name
        verdicts = badges((kind, counted[kind]) for kind in Verdict if counted[kind])
        cells = _cells(comparison, row)
        if row.error is not None:
            cells = [badge(cells[0], "bad"), *[""] * (len(_headings(comparison)) - 1)]
        lines.append((name, *cells, verdicts))
    headings = [heading.replace("\n", " ") for heading in _headings(comparison)]
    return block(
        title(_title(comparison)), table_of(("", *headings, "verdicts"), lines), line(words(comparison))
    )


def _title(comparison: Findings) -> str:
    return f"{_counted(comparison.batch)}, differences from {comparison.reference.name}"


def _headings(comparison: Findings) -> list[str]:
    judged = comparison.finite_differences is not None
    found = ["value\ndiff.", "grad.\ndiff.", "adjoint\nresid.", *(["finite\ndiff."] if judged else [])]
    return [*found, "forw.\nms", "back\nms", "peak\nMB"]


def _cells(comparison: Findings, row: Row) -> list[str]:
    if row.error is not None:
        return ["fails"]
    figures = [row.solution_difference, row.gradient_difference, row.adjoint_residual]
    if comparison.finite_differences is not None:
        figures.append(comparison.finite_difference_error(row))
    megabytes = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.1f}"
    return [*map(_e, figures), _ms(row.forward_seconds), _ms(row.backward_seconds), megabytes]


def _counted(batch: int) -> str:
    return "1 instance" if batch == 1 else f"{batch} instances"


def _e(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"
