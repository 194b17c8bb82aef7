"""Figures to draw on, and whether they can be saved, found out before the work that they are to show."""

import os
from pathlib import Path
from typing import Any


def new_figure(**settings: Any) -> Any:
    """A matplotlib figure that belongs to no window, laid out so that nothing overlaps.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to get it.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise without_matplotlib(error) from error
    return Figure(layout="constrained", **settings)


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
