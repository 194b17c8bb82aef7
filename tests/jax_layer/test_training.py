"""The example of a training under JAX runs and learns."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from problems.jax_layers import double
from problems.marks import long

__all__ = ["double"]
pytestmark = [pytest.mark.usefixtures("double"), long]


def test_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that imitates a controller learns its weights."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parents[2] / "examples"), *sys.path])
    losses, found, true = import_module("jax_training").train(steps=60)
    assert losses[-1] < 1e-3 * losses[0]
    assert abs(found - true).max() < 0.1 * true.max()
