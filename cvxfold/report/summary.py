"""A summary over many calls: an epoch, a night of training."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Protocol

from cvxfold.engines.outcome import Status
from cvxfold.gradient.verdict import NO_SOLUTION, Verdict
from cvxfold.report.course import Course
from cvxfold.report.records import ForwardRecord
from cvxfold.report.report import Report, key


class Reporting(Protocol):
    """What calls back with a report after each pass: a layer."""

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Call ``callback`` after each pass; returns what ends that."""
        ...


class Monitor:
    """Counts statuses and verdicts and keeps the worst of all calls of a layer since the last :meth:`reset`.

    Args:
        layer: to listen to, until :meth:`close` or the end of a ``with`` block.

    Attributes:
        complaints: by kind ("backward pass: degenerate"), how many passes were complained of, and the last
            complaint in full.

    Example:
        >>> monitor = cvxfold.Monitor(layer)
        >>> for epoch in range(10):
        ...     train_one_epoch()
        ...     print(monitor)
        ...     monitor.reset()
    """

    def __init__(self, layer: Reporting) -> None:
        self.reset()
        self.close = layer.on_report(self.note)

    def reset(self) -> None:
        """Forget what was seen."""
        self.forward_calls = 0
        self.backward_calls = 0
        self.statuses: Counter[Status] = Counter()
        self.verdicts: Counter[Verdict] = Counter()
        self.methods: Counter[str] = Counter()
        self.flat = 0
        self.complaints: dict[str, tuple[int, str]] = {}
        self._worst: dict[str, float] = dict.fromkeys(
            ("residual", "forward_error", "error", "rate"), -math.inf
        )
        self._residuals: list[float] = []
        self._seconds = [0.0, 0.0]
        self._forward = Course(summed=("seconds", *map(str, Status)))
        self._backward = Course(summed=("seconds", *map(str, Verdict)))

    def note(self, report: Report) -> None:
        """Take a report in; called after each pass."""
        backward = None if report.backward is None else report.backward.here
        passed = "forward" if backward is None else "backward"
        for kind, text in report.complaints.items():
            if kind.startswith(passed):
                self.complaints[kind] = (self.complaints.get(kind, (0, ""))[0] + 1, text)
        if backward is None:
            forward = report.forward.here
            self.forward_calls += 1
            self.statuses.update(forward.status)
            self._seconds[0] += forward.seconds
            self._forward.add(_of_forward(forward))
            return
        self.backward_calls += 1
        self.verdicts.update(backward.verdict)
        self.methods[backward.method] += 1
        self.flat += int(backward.flat.sum())
        self._seconds[1] += backward.seconds
        known = backward.codes != NO_SOLUTION
        if bool(known.any()):
            self._residuals.append(float(backward.residual[known].detach().double().median()))
        now: dict[str, float] = {}
        for name, values in (
            ("residual", backward.residual[known]),
            ("forward_error", backward.forward_error[known]),
            ("error", backward.error[known & ~backward.degenerate]),
            ("rate", backward.rate[~backward.rate.isnan()]),
        ):
            if values.numel():
                now[name] = float(values.detach().double().amax())
                self._worst[name] = _worse(self._worst[name], now[name])
        self._backward.add({
            "residual": now.get("residual", math.nan),
            "median": self._residuals[-1] if bool(known.any()) else math.nan,
            "error": now.get("error", math.nan),
            "seconds": backward.seconds,
            **_counted(backward.verdict),
        })  # fmt: skip

    def to_dict(self) -> dict[str, float]:
        """One flat dictionary of numbers, for a logger, once an epoch."""
        flat: dict[str, float] = {
            "calls/forward": float(self.forward_calls),
            "calls/backward": float(self.backward_calls),
        }
        flat |= {f"forward/{kind}": float(self.statuses[kind]) for kind in Status}
        flat |= {f"verdict/{key(kind)}": float(self.verdicts[kind]) for kind in Verdict}
        flat["backward/flat"] = float(self.flat)
        flat["backward/residual_median"] = self._median()
        flat |= {f"backward/{name}_max": _known(worst) for name, worst in self._worst.items()}
        flat["forward/seconds"], flat["backward/seconds"] = self._seconds
        return flat

    def __str__(self) -> str:
        """Four lines, and one for each kind of complaint."""
        worst = {name: _known(value) for name, value in self._worst.items()}
        return "\n".join([
            f"forward   {self.forward_calls:,} calls, {sum(self.statuses.values()):,} instances: "
            f"{_listed(self.statuses, Status)} in {self._seconds[0]:.3g} s",
            f"backward  {self.backward_calls:,} calls, {sum(self.verdicts.values()):,} gradients: "
            f"{_listed(self.verdicts, Verdict)}{f', {self.flat:,} flat' if self.flat else ''} in "
            f"{self._seconds[1]:.3g} s",
            f"          residual {_shown(self._median())} (median), {_shown(worst['residual'])} (worst); "
            f"rate up to {_shown(worst['rate'])}",
            f"          error estimate up to {_shown(worst['error'])}, forward's share up to "
            f"{_shown(worst['forward_error'])}",
            *(f"{kind} in {count:,} calls" for kind, (count, _) in self.complaints.items()),
        ])  # fmt: skip

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        from cvxfold.report.shown import monitor_shown

        worst = {name: _known(value) for name, value in self._worst.items()}
        figures = {
            "residual, median": self._median(),
            "residual, worst": worst["residual"],
            "error estimate, worst": worst["error"],
            "forward's share, worst": worst["forward_error"],
            "contraction rate, worst": worst["rate"],
        }
        return monitor_shown(
            (self.forward_calls, self.statuses, self._seconds[0]),
            (self.backward_calls, self.verdicts, self._seconds[1]),
            self.flat,
            {name: _shown(value) for name, value in figures.items()},
            self.complaints,
        )

    def plot(self, path: Any = None) -> Any:
        """Draw residuals, verdicts and times over the calls since the last :meth:`reset`.

        Of more than some two thousand calls neighbours are drawn as one: the worst residual, all verdicts,
        the mean time.

        Args:
            path: where to save it, if anywhere.

        Returns:
            The matplotlib figure.

        Raises:
            ModuleNotFoundError: matplotlib is missing; the message says how to get it.
        """
        from cvxfold.report.plot import draw_monitor

        return draw_monitor(self._forward, self._backward, path)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _median(self) -> float:
        return median(self._residuals) if self._residuals else math.nan


def _of_forward(record: ForwardRecord) -> dict[str, float]:
    """What is kept of a forward pass."""
    residuals = record.residual[record.present].detach().double()
    residuals = residuals[~residuals.isnan()]
    worst = float(residuals.amax()) if residuals.numel() else math.nan
    return {"residual": worst, "seconds": record.seconds, **_counted(record.status)}


def _counted(kinds: Sequence[Status] | Sequence[Verdict]) -> dict[str, float]:
    return {str(kind): float(count) for kind, count in Counter[Status | Verdict](kinds).items()}


def _worse(known: float, new: float) -> float:
    """The larger; a NaN that was measured stays."""
    return math.nan if math.isnan(known) or math.isnan(new) else max(known, new)


def _known(worst: float) -> float:
    return math.nan if worst == -math.inf else worst


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1e}"


def _listed(counted: Counter[Any], kinds: Any) -> str:
    return ", ".join(f"{counted[kind]:,} {kind}" for kind in kinds if counted[kind]) or "none"
