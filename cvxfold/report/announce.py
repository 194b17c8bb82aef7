"""The report of the last call, and who is told of each."""

from collections.abc import Callable
from itertools import count
from typing import Any

import torch

from cvxfold.report.per_thread import PerThread
from cvxfold.report.records import ForwardRecord
from cvxfold.report.report import Report


def _of_no_instance() -> ForwardRecord:
    return ForwardRecord.blank(torch.zeros(0, dtype=torch.long, device="cpu"), 0.0)


class Reports:
    """Keeps the last report of each thread and calls back those that listen."""

    def __init__(self) -> None:
        self._last = PerThread[Report]()
        self._listeners: dict[int, Callable[[Report], Any]] = {}
        self._keys = count()

    @property
    def last(self) -> Report:
        """Of the last call of this thread, or of any where this one made none; of no instance before."""
        return self._last.get() or Report(_of_no_instance, "nobody yet")

    @property
    def latest(self) -> Report:
        """Of the last call of any thread; of no instance before."""
        return self._last.latest() or Report(_of_no_instance, "nobody yet")

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Call ``callback`` with the report after each pass, until the function returned is called.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"callback: expected a function of a report, got {type(callback).__name__}")
        key = next(self._keys)
        self._listeners[key] = callback

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    def remember(self, report: Report) -> None:
        """Keep the report of a call as the last one."""
        self._last.set(report)

    def notify(self, report: Report) -> None:
        """Call back all that listen, after a pass."""
        for callback in list(self._listeners.values()):
            callback(report)

    def __deepcopy__(self, _: dict[int, Any]) -> "Reports":
        """A copy that remembers nothing and that nobody listens to."""
        return Reports()

    def __reduce__(self) -> tuple[Any, ...]:
        return Reports, ()
