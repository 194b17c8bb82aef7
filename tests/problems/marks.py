"""Markers: what the default run leaves to continuous integration, and what runs on both engines."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cvxfold.engines.choose import compiled

long = pytest.mark.long
needs_lanes = pytest.mark.skipif(
    compiled().why_not is not None, reason=f"no compiled part: {compiled().why_not}"
)
ENGINES = [pytest.param("lanes", marks=needs_lanes), "tensors"]
ONE = "tensors" if compiled().why_not else "lanes"
"""In place of the two, where both hand the work to the same code."""

one_engine = pytest.mark.parametrize("engine", [ONE], indirect=True)


def sliced(values: Iterable[Any], is_long: Callable[[Any], bool]) -> list[Any]:
    """Values to parametrize with, of which some are long."""
    return [pytest.param(value, marks=long) if is_long(value) else value for value in values]
