"""The latest of something, for each thread its own."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class PerThread(Generic[T]):
    """Remembers what this thread set last, and for threads that set nothing what any did."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._any: T | None = None

    def set(self, value: T) -> None:
        """Remember."""
        self._own.value = self._any = value

    def latest(self) -> T | None:
        """What any thread set last; None if nothing was."""
        return self._any

    def get(self) -> T | None:
        """What was set last; None if nothing was."""
        return getattr(self._own, "value", self._any)
