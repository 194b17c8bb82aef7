"""A limit on the time of one pass."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """A moment after which a pass takes no further step.

    Args:
        moment: on the monotonic clock, in seconds; None for never.
    """

    moment: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        """The moment ``seconds`` from now; never if None."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        """Whether that moment is over."""
        return self.moment is not None and time.monotonic() >= self.moment

    @property
    def left(self) -> float | None:
        """Seconds until then, at least 0; None for never."""
        return None if self.moment is None else max(0.0, self.moment - time.monotonic())


NEVER = Deadline()
