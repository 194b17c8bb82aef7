"""What is shown of a pass: counts, and medians and the worst of its figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cvxfold.engines.outcome import Status
from cvxfold.gradient.verdict import Verdict


@dataclass(frozen=True)
class PassSummary:
    """What is shown of a pass.

    Args:
        name: "forward" or "backward".
        kinds: how each instance ended, or its verdict.
        tail: what else is counted, the engine or the method, and the time, in words.
        figures: by name, each ``(b,)``.
    """

    name: str
    kinds: Sequence[Status] | Sequence[Verdict]
    tail: str
    figures: dict[str, Tensor]

    @property
    def counts(self) -> list[tuple[Status | Verdict, int]]:
        """How many of each kind there are, in the order of the enumeration."""
        counted = Counter[Status | Verdict](self.kinds)
        return [(kind, counted[kind]) for kind in (*Status, *Verdict) if counted[kind]]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Names of the figures with their median and the worst over the batch."""
        found = []
        for name, values in self.figures.items():
            middle, worst = spread(name, values).values()
            found.append((name, _told(middle, values), _told(worst, values)))
        return found

    def instances(self, kind: Status | Verdict) -> list[int]:
        """Which ended so."""
        return [place for place, each in enumerate(self.kinds) if each is kind]


def spread(name: str, values: Tensor) -> dict[str, float]:
    """Median and worst over the batch; a NaN among residuals is the worst."""
    if values.numel() == 0:
        return {f"{name}_median": float("nan"), f"{name}_max": float("nan")}
    numbers = values.detach().double()
    unknown = numbers.isnan()
    if bool(unknown.all()) or (bool(unknown.any()) and not name.endswith("rate")):
        return {f"{name}_median": float(numbers.nanmedian()), f"{name}_max": float("nan")}
    return {
        f"{name}_median": float(numbers.nanmedian()),
        f"{name}_max": float(numbers[~unknown].amax()),
    }


def _told(value: float, values: Tensor) -> str:
    """A figure of ``values``: counts are whole, and a dash stands where nothing is known."""
    if values.numel() == 0 or bool(values.isnan().all()):
        return "-"
    return f"{value:.1e}" if values.is_floating_point() else f"{value:.0f}"
