"""The plot of a comparison."""

import math
from typing import Any

from cvxfold.display.figures import new_figure
from cvxfold.studies.comparison.findings import Findings

_FLOOR = 1e-17  # what is exactly zero has no logarithm
_COLOURS = {True: "#00798c", False: "#d1495b"}  # cvxfold, cvxpylayers


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
    figure = new_figure(figsize=(4.6 * len(panels), 0.45 * len(rows) + 1.6))
    for ax, (title, values) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for place, (row, value) in enumerate(zip(rows, values, strict=True)):
            if value is None:
                continue
            length = max(value, _FLOOR) if math.isfinite(value) else _FLOOR
            ax.barh(place, length, color=_COLOURS[row.folded], height=0.6)
            ax.text(length, place, f" {value:.0e}", va="center")
        ax.axvline(comparison.rtol, color="#8d99ae", ls="--", lw=1.2)
        ax.set(title=title, xscale="log", xlabel="relative, largest over the batch")
        ax.set_xlim(left=_FLOOR)
        ax.margins(x=0.2)
        ax.set_yticks(range(len(rows)), [row.name for row in rows])
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
