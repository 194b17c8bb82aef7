"""The plot of a comparison."""

import math
from typing import Any

from cvxfold.display.figures import COLOURS, FLOOR, guide, new_figure, saved, tidy
from cvxfold.studies.comparison.findings import Findings

_COLOURS = {True: COLOURS[0], False: COLOURS[1]}  # cvxfold, cvxpylayers
_ROOM = 3e3  # beyond the longest bar, for its number


def draw(comparison: Findings, path: Any = None) -> Any:
    """Bars, one for each contestant: gradient difference, adjoint residual, error by finite differences.

    Args:
        comparison: what to draw.
        path: where to save it, if anywhere.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    rows = [row for row in comparison.rows if row.error is None]
    panels = {
        f"Gradient: difference from {comparison.reference.name}": [row.gradient_difference for row in rows],
        "Residual of its own adjoint system": [row.adjoint_residual for row in rows],
    }
    if comparison.finite_differences is not None:
        panels["Gradient: error by finite differences"] = [
            comparison.finite_difference_error(row) for row in rows
        ]
    known = [value for values in panels.values() for value in values if value is not None and value > 0]
    widest = max([comparison.rtol, *(value for value in known if math.isfinite(value))])
    figure = new_figure(figsize=(4.6 * len(panels), 0.45 * len(rows) + 1.9))
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        guide(ax, comparison.rtol, "what counts as agreement: rtol", upright=True)
        for place, (row, value) in enumerate(zip(rows, values, strict=True)):
            if value is None:
                continue
            length = max(value, FLOOR) if math.isfinite(value) else FLOOR
            ax.barh(place, length, color=_COLOURS[row.folded], height=0.6)
            told = f"{value:.0e}" if value else "0"
            ax.annotate(
                told, (length, place), (4, 0), textcoords="offset points", va="center",
                bbox={"fc": "white", "ec": "none", "pad": 1.0},
            )  # fmt: skip
        ax.set(title=title, xscale="log", xlabel="relative, largest over the batch")
        ax.set_xlim(FLOOR, widest * _ROOM)
        ax.set_yticks(range(len(rows)), [row.name for row in rows])
        tidy(ax)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return saved(figure, path)
