"""Numbers of many calls in little memory: a night of training, for a plot."""

import math
from collections.abc import Mapping, Sequence

MOST = 2_048
"""Points that are kept; then two neighbours become one, time and again."""


class Course:
    """Numbers by call, from the first call to the last. Each point stands for the same number of calls.

    Args:
        summed: names of the numbers that are added up where calls become one point (counts, seconds); of all
            others the largest is kept.
    """

    def __init__(self, summed: Sequence[str] = ()) -> None:
        self._summed = frozenset(summed)
        self._points: list[dict[str, float]] = []
        self.calls = 0
        self.width = 1

    def add(self, values: Mapping[str, float]) -> None:
        """The numbers of one more call; NaN, or no entry, where there is none."""
        if self.calls % self.width:
            self._points[-1] = self._one(self._points[-1], values)
        else:
            if len(self._points) == MOST:
                pairs = zip(self._points[::2], self._points[1::2], strict=True)
                self._points = [self._one(*pair) for pair in pairs]
                self.width *= 2
            self._points.append(dict(values))
        self.calls += 1

    @property
    def names(self) -> list[str]:
        """Of the numbers that were ever given."""
        return list(dict.fromkeys(name for point in self._points for name in point))

    @property
    def places(self) -> list[float]:
        """The middle of the calls that each point stands for, counted from 1."""
        ends = [min((place + 1) * self.width, self.calls) for place in range(len(self._points))]
        return [(place * self.width + 1 + end) / 2 for place, end in enumerate(ends)]

    def of(self, name: str) -> list[float]:
        """The number of each point: the sums by call; zero, or else NaN, where there is none."""
        none = 0.0 if name in self._summed else math.nan
        found = [point.get(name, none) for point in self._points]
        if name not in self._summed:
            return found
        return [value / self._size(place) for place, value in enumerate(found)]

    def _size(self, place: int) -> int:
        """How many calls a point stands for."""
        return min(self.width, self.calls - place * self.width)

    def _one(self, first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
        together = dict(first)
        for name, value in second.items():
            if name in self._summed:
                together[name] = together.get(name, 0.0) + value
            else:
                known = together.get(name, math.nan)
                together[name] = value if math.isnan(known) or value > known else known
        return together
