"""What a layer warns of: in full the first time, then by counts, and at the user's own line."""

import os
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class Said:
    """What was said already, so that training does not hear the same at every step."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()

    def times(self, kind: str) -> int:
        """How often there was reason to say ``kind``, this one included."""
        self._times[kind] += 1
        return self._times[kind]

    def once(self, kind: str, text: str, category: type[Warning] = UserWarning) -> None:
        """Warn, the first time."""
        if self.times(kind) == 1:
            warn(text, category)

    def __deepcopy__(self, _: dict[int, Any]) -> "Said":
        """A copy that has said nothing yet."""
        return Said()

    def __reduce__(self) -> tuple[Any, ...]:
        return Said, ()


_lock = threading.Lock()
_products = 0  # that are being made now; autograd may make them in threads of its own


@contextmanager
def product() -> Iterator[None]:
    """Backward passes in here make a product with Φᵀ, not the gradient of a loss: zero is no news."""
    global _products
    with _lock:
        _products += 1
    try:
        yield
    finally:
        with _lock:
            _products -= 1


def in_product() -> bool:
    """Whether one is being made."""
    return _products > 0


def is_due(times: int) -> bool:
    """Whether a count is given: at the 10th, 100th, 1,000th … time."""
    return times == 10 ** (len(str(times)) - 1)


def warn(text: str, category: type[Warning]) -> None:
    """Warn at the first frame up the stack that belongs neither to cvxfold nor to a framework."""
    known = [sys.modules["cvxfold"], torch, *(sys.modules[name] for name in ("jax",) if name in sys.modules)]
    inner = tuple(f"{Path(module.__file__ or '').parent}{os.sep}" for module in known)
    frame, depth = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inner):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(text, category, stacklevel=depth)
