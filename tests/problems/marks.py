"""The marker ``long``: what the default run leaves to continuous integration."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

long = pytest.mark.long


def sliced(values: Iterable[Any], is_long: Callable[[Any], bool]) -> list[Any]:
    """Values to parametrize with, of which some are long."""
    return [pytest.param(value, marks=long) if is_long(value) else value for value in values]
