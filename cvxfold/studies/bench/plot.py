"""The plot of a benchmark: time against batch, against size, against error, a row for each family."""

from collections.abc import Sequence
from typing import Any

from cvxfold.studies.bench.peers import OURS
from cvxfold.studies.bench.result import BenchResult, Measurement
from cvxfold.studies.plotting import new_figure

_FLOOR = 1e-17  # what is exactly zero has no logarithm
_COLOURS = ("#00798c", "#d1495b", "#edae49", "#66a182", "#2e4057", "#8d96a3", "#a26769", "#6d597a")


def draw(result: BenchResult, path: Any = None) -> Any:
    """Draw; wrong answers are crosses.

    Args:
        result: what to draw.
        path: where to save it, if anywhere.

    Returns:
        The matplotlib figure.

    Raises:
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    families = list(dict.fromkeys(cell.family for cell in result.cells))
    peers = list(dict.fromkeys(one.peer for cell in result.cells for one in cell.measurements))
    colours = {peer: _COLOURS[place % len(_COLOURS)] for place, peer in enumerate(peers)}
    figure = new_figure(figsize=(12, 2.8 * max(1, len(families)) + 0.6))
    axes = figure.subplots(max(1, len(families)), 3, squeeze=False)
    for (by_batch, by_size, by_error), family in zip(axes, families, strict=False):
        for peer in peers:
            points = [
                (cell.size, cell.batch, one)
                for cell in result.cells
                if cell.family == family and (one := cell.of(peer)) is not None and one.total_seconds
            ]
            for size in sorted({size for size, _, _ in points}):
                line = [(batch, one) for at, batch, one in points if at == size]
                _line(by_batch, line, colours[peer], peer)
            for batch in sorted({batch for _, batch, _ in points}):
                line = [(size, one) for size, at, one in points if at == batch]
                _line(by_size, line, colours[peer], peer)
            errors = [
                (max(one.gradient_error, _FLOOR), one)
                for _, _, one in points
                if one.gradient_error is not None
            ]
            _line(by_error, errors, colours[peer], peer, joined=False)
        names = ("instances of the batch", "size", "relative error of the gradient")
        for ax, name in zip((by_batch, by_size, by_error), names, strict=True):
            ax.set(xscale="log", yscale="log", xlabel=name, ylabel="s, both passes", title=family)
            ax.spines[["top", "right"]].set_visible(False)
    handles = [axes[0][0].plot([], [], "o-", color=colours[peer], label=peer)[0] for peer in peers]
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, min(len(peers), 4)))
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _line(
    ax: Any, points: Sequence[tuple[float, Measurement]], colour: str, peer: str, joined: bool = True
) -> None:
    """Points of one peer by what is on the axis."""
    points = sorted(points, key=lambda point: point[0])
    if joined:
        width = 2.0 if peer == OURS else 1.2
        ax.plot([x for x, _ in points], [one.total_seconds for _, one in points], color=colour, lw=width)
    for x, one in points:
        ax.plot(x, one.total_seconds, "x" if one.correct is False else "o", color=colour, ms=5)
