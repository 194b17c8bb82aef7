"""A comparison as a table and as a plot."""

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from cvxfold.comparison.result import Comparison

_WIDTH = 100
_FLOOR = 1e-17  # of the plot: what is exactly zero has no logarithm
_COLOURS = {True: "#00798c", False: "#d1495b"}  # cvxfold, cvxpylayers


def table(comparison: "Comparison") -> Table:
    """One line for each contestant: the largest figures over the batch."""
    judged = comparison.finite_differences is not None
    found = Table(
        title=f"{_counted(comparison.batch)}, differences from {comparison.reference.name}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    found.add_column("", no_wrap=True)
    headings = ["value\ndiff.", "grad.\ndiff.", "adjoint\nresid.", *(["finite\ndiff."] if judged else [])]
    for heading in [*headings, "forw.\nms", "back\nms", "peak\nMB"]:
        found.add_column(heading, justify="right")
    for row in comparison.rows:
        if row.error is not None:
            found.add_row(escape(row.name), "fails")
            continue
        error = row.finite_difference_error
        figures = (row.solution_difference, row.gradient_difference, row.adjoint_residual)
        cells = [_e(figure) for figure in figures]
        cells += [_e(None if error is None else float(error.max()))] if judged else []
        megabytes = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.1f}"
        cells += [_ms(row.forward_seconds), _ms(row.backward_seconds), megabytes]
        found.add_row(escape(row.name), *cells)
    return found


def text(comparison: "Comparison") -> str:
    """The table and the verdict in plain characters."""
    buffer = StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None, highlight=False, markup=False)
    console.print(table(comparison))
    console.print(comparison.verdict)
    return buffer.getvalue().rstrip()


def save_plot(comparison: "Comparison", path: Path) -> None:
    """Bars, one for each contestant: gradient difference, adjoint residual, error by finite differences."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in comparison.rows if row.error is None]
    panels = {
        f"Gradient: difference from {comparison.reference.name}": [row.gradient_difference for row in rows],
        "Residual of its own adjoint system": [row.adjoint_residual for row in rows],
    }
    if comparison.finite_differences is not None:
        panels["Gradient: error by finite differences"] = [
            None if row.finite_difference_error is None else float(row.finite_difference_error.max())
            for row in rows
        ]
    figure = Figure(figsize=(4.6 * len(panels), 0.45 * len(rows) + 1.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for ax, (title, values) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for place, (row, value) in enumerate(zip(rows, values, strict=True)):
            if value is not None:
                ax.barh(place, max(value, _FLOOR), color=_COLOURS[row.folded], height=0.6)
                ax.text(max(value, _FLOOR), place, f" {value:.0e}", va="center")
        ax.axvline(comparison.rtol, color="#8d99ae", ls="--", lw=1.2)
        ax.set(title=title, xscale="log", xlabel="relative, largest over the batch")
        ax.set_xlim(left=_FLOOR)
        ax.margins(x=0.2)
        ax.set_yticks(range(len(rows)), [row.name for row in rows])
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    canvas.print_figure(path, dpi=150)


def _counted(batch: int) -> str:
    return "1 instance" if batch == 1 else f"{batch} instances"


def _e(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"
