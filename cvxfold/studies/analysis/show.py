"""An analysis as tables, for the terminal and for notebooks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table

from cvxfold.display.html import block, joined, line, table, title
from cvxfold.gradient.verdict import Verdict
from cvxfold.report.shown import badges

_UNITS = ("B", "kB", "MB", "GB", "TB")
_FIGURES = ("", "median", "worst")
_COSTS = ("method", "iterations, median", "most", "time", "memory")


@dataclass(frozen=True)
class Shown:
    """What is shown of an analysis.

    Args:
        verdicts: how many there are of each. flat: gradients that are. place: rows and device.
        convergence: names of figures, their medians, the worst.
        purpose: of the forecasts. forecasts: method, median and most iterations, seconds, bytes.
        advice: in words.
    """

    verdicts: Sequence[tuple[Verdict, int]]
    flat: int
    place: str
    convergence: Sequence[tuple[str, float, float]]
    purpose: str
    forecasts: Sequence[tuple[str, float, float, float, float]]
    advice: str

    def as_rich(self) -> Group:
        """For the terminal."""
        counts = ", ".join(f"{many} {kind}" for kind, many in self.verdicts)
        convergence = Table(title=f"{self._batch} ({counts}{self._flat}), {self.place}")
        costs = Table(title=self.purpose)
        for found, headings, rows in (
            (convergence, _FIGURES, self._figures),
            (costs, _COSTS, self._costs),
        ):
            for place, heading in enumerate(headings):
                found.add_column(heading, justify="right" if place else "left")
            for row in rows:
                found.add_row(*row)
        return Group(convergence, costs, self.advice)

    def as_html(self) -> str:
        """For notebooks."""
        head = joined((f"{self._batch} ", badges(self.verdicts), f"{self._flat}, {self.place}"), "")
        first, second = table(_FIGURES, self._figures), table(_COSTS, self._costs)
        return block(title(head), first, title(self.purpose), second, line(self.advice))

    @property
    def _batch(self) -> str:
        instances = sum(many for _, many in self.verdicts)
        return f"{instances} instance{'s' * (instances > 1)}"

    @property
    def _flat(self) -> str:
        return f", {self.flat} flat" if self.flat else ""

    @property
    def _figures(self) -> list[tuple[str, ...]]:
        return [(name, number(middle), number(worst)) for name, middle, worst in self.convergence]

    @property
    def _costs(self) -> list[tuple[str, ...]]:
        return [
            (method, count(middle), count(most), seconds(time), size(memory))
            for method, middle, most, time, memory in self.forecasts
        ]


def number(value: float) -> str:
    """A figure; a dash where nothing is known."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def count(iterations: float) -> str:
    """Iterations, if they get there."""
    return f"{iterations:,.0f}" if math.isfinite(iterations) else "never"


def seconds(value: float) -> str:
    """A time."""
    return f"{value:.3g} s" if math.isfinite(value) else "-"


def size(value: float) -> str:
    """Bytes in words."""
    if not math.isfinite(value):
        return "-"
    power = min(int(math.log(max(value, 1.0), 1000)), len(_UNITS) - 1)
    return f"{value / 1000**power:.3g} {_UNITS[power]}"
