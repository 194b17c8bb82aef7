"""Figures to draw on in one style, and whether they can be saved, to be known before the work."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = ("#00798c", "#d1495b", "#edae49", "#66a182", "#2e4057", "#8d96a3", "#a26769", "#6d597a")
"""Of lines and bars, in this order; the first stands for cvxfold, the second for whoever else there is."""

GUIDE = "#8d99ae"
"""Of lines that are no data: a tolerance."""

FLOOR = 1e-17
"""What stands for zero on a logarithmic axis."""


def new_figure(**settings: Any) -> Any:
    """A matplotlib figure that belongs to no window, laid out so that nothing overlaps; notebooks show it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to get it.
    """
    try:
        from cvxfold.display.canvas import ShownFigure
    except ModuleNotFoundError as error:
        raise without_matplotlib(error) from error
    return ShownFigure(layout="constrained", **settings)


def tidy(ax: Any) -> None:
    """Take away what frames the axes on the right and above, and numbers at minor ticks of the x axis."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.set_minor_formatter("")


def guide(ax: Any, value: float, text: str, upright: bool = False) -> Any:
    """A dashed line at a value of the y axis (the x axis if ``upright``), with its name for the legend."""
    draw = ax.axvline if upright else ax.axhline
    return draw(value, color=GUIDE, ls="--", lw=1.2, zorder=0, label=f"{text} = {value:.0e}")


def logarithmic(values: Sequence[float]) -> list[float]:
    """Numbers for a logarithmic axis: zero as :data:`FLOOR`; what is not finite is left out (NaN)."""
    return [math.nan if not math.isfinite(value) else max(value, FLOOR) for value in values]


def with_zeros(label: str, values: Sequence[float]) -> str:
    """The name of such numbers in a legend, which tells where zeros are."""
    return f"{label} (0 is drawn as {FLOOR:.0e})" if any(value == 0 for value in values) else label


def legend_below(ax: Any) -> None:
    """The legend, below the axes."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=2, frameon=False)


def saved(figure: Any, path: Any) -> Any:
    """The figure, saved at ``path`` if that is given."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def check_plot(path: Path) -> None:
    """Check that matplotlib is there and that it can write a file of this name.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to get it.
        ValueError: the folder does not exist, the file cannot be written, or matplotlib does not write files
            of this kind.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError as error:
        raise without_matplotlib(error) from error
    kinds = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.lstrip(".").lower() not in kinds:
        raise ValueError(f"{path}: the name must end in one of {', '.join(f'.{kind}' for kind in kinds)}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.absolute().parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ValueError(f"{path}: cannot be written")


def without_matplotlib(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error for a plot where matplotlib, or what it needs, is missing."""
    return ModuleNotFoundError("plots need matplotlib: pip install 'cvxfold[examples]'", name=error.name)
