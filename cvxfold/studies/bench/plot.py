"""The plot of a benchmark: time against batch, against size, against error, a row for each family."""

from collections.abc import Callable, Sequence
from typing import Any

from cvxfold.display.figures import COLOURS, FLOOR, GUIDE, new_figure, saved, tidy
from cvxfold.studies.bench.result import BenchCell, BenchResult, Measurement

_Point = tuple[float, Measurement]
_AXES: dict[str, Callable[[BenchCell], int]] = {
    "instances of the batch": lambda cell: cell.batch,
    "size": lambda cell: cell.size,
}
_ERROR = "relative error of the gradient"


def draw(result: BenchResult, path: Any = None) -> Any:
    """Draw what was varied, and the errors; wrong answers are crosses.

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
    colours = {peer: COLOURS[place % len(COLOURS)] for place, peer in enumerate(peers)}
    panels = [name for name in _AXES if any(len(_varied(result, family, name)) > 1 for family in families)]
    panels.append(_ERROR)
    figure = new_figure(figsize=(5 * len(panels) + 1, 2.8 * max(1, len(families)) + 0.6))
    axes = figure.subplots(max(1, len(families)), len(panels), squeeze=False)
    for row, family in zip(axes, families, strict=False):
        cells = [cell for cell in result.cells if cell.family == family]
        for ax, name in zip(row, panels, strict=True):
            for peer in peers:
                for points in _points(cells, peer, name):
                    _line(ax, points, colours[peer], name != _ERROR)
            ax.set(xscale="log", yscale="log", xlabel=name, ylabel="s, both passes", title=family)
            tidy(ax)
            if name != _ERROR:
                at = _varied(result, family, name)
                ax.set_xticks(at, [f"{value:,}" for value in at])
    handles = [axes[0][0].plot([], [], "o-", color=colours[peer], label=peer)[0] for peer in peers]
    if any(one.correct is False for cell in result.cells for one in cell.measurements):
        handles += axes[0][0].plot([], [], "x", color=GUIDE, label="wrong answer")
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, min(len(handles), 4)))
    return saved(figure, path)


def _varied(result: BenchResult, family: str, axis: str) -> list[int]:
    """The values on an axis that a family was measured at."""
    return sorted({_AXES[axis](cell) for cell in result.cells if cell.family == family})


def _points(cells: Sequence[BenchCell], peer: str, axis: str) -> list[list[_Point]]:
    """The lines of a peer: what differs in nothing but what is on the axis."""
    lines: dict[int, list[_Point]] = {}
    for cell in cells:
        one = cell.of(peer)
        if one is None or one.total_seconds is None:
            continue
        if axis == _ERROR:
            if one.gradient_error is not None:
                lines.setdefault(0, []).append((max(one.gradient_error, FLOOR), one))
        else:
            other = next(values for name, values in _AXES.items() if name != axis)
            lines.setdefault(other(cell), []).append((_AXES[axis](cell), one))
    return [sorted(line, key=lambda point: point[0]) for line in lines.values()]


def _line(ax: Any, points: Sequence[_Point], colour: str, joined: bool) -> None:
    if joined:
        ax.plot([x for x, _ in points], [one.total_seconds for _, one in points], color=colour, lw=1.4)
    for x, one in points:
        ax.plot(x, one.total_seconds, "x" if one.correct is False else "o", color=colour, ms=5)
