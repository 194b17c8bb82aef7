"""Time and memory of a call."""

import math

import torch

from cvxfold.studies.measure import timed
from problems.processes import run_python

MEASURE = """
import torch
from cvxfold.studies.measure import measure
cpu = torch.device("cpu")
measured = measure(lambda: torch.ones(30_000_000).sum().item(), cpu)
print(measured.value, measured.seconds, measured.peak_bytes or "nan")
print(measure(lambda: None, cpu).peak_bytes or 0)
"""


def test_measure() -> None:
    """In a process of its own: a used one holds freed memory, in which the tensor would fit unseen."""
    out, err = run_python(MEASURE)
    assert out, err[-2_000:]
    value, seconds, peak, nothing = map(float, out.split())
    assert value == 30_000_000
    assert seconds > 0
    if math.isfinite(peak):  # the system tells
        assert 100e6 < peak < 400e6
        assert nothing < 20e6
    found, elapsed = timed(lambda: 3, torch.device("cpu"))
    assert (found, elapsed >= 0) == (3, True)
