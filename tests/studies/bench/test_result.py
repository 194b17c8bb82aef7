"""Medians, ratios and who is right, from known numbers."""

import math
from typing import Any

import pytest

from cvxfold.studies.bench import record
from cvxfold.studies.bench.result import BenchCell, BenchResult, Measurement

FOUND: dict[str, Any] = {"forward_error": 1e-9, "gradient_error": 1e-8}


def cell(*others: Measurement) -> BenchCell:
    ours = Measurement("cvxfold", forward=(1.0, 2.0, 9.0), backward=(1.0, 1.0, 1.0), **FOUND)
    return BenchCell("lp", 3, 1, (ours, *others))


def test_medians() -> None:
    (ours,) = cell().measurements
    assert (ours.rounds, ours.forward_seconds, ours.backward_seconds, ours.total_seconds) == (3, 2, 1, 3)
    nothing = Measurement("x")
    assert (nothing.rounds, nothing.forward_seconds, nothing.total_seconds) == (0, None, None)
    # The median of the sums is not the sum of the medians.
    assert Measurement("x", forward=(1.0, 5.0, 2.0), backward=(9.0, 1.0, 2.0)).total_seconds == 6


@pytest.mark.parametrize(
    ("forward", "gradient", "correct"),
    [
        (1e-7, 1e-6, True),
        (1e-6, 1e-5, True),
        (2e-6, 1e-6, False),
        (1e-7, 2e-5, False),
        (math.nan, 0.0, False),
        (math.inf, math.inf, False),
        (None, None, None),
        (1e-9, None, None),
    ],
)
def test_who_is_right(forward: float | None, gradient: float | None, correct: bool | None) -> None:
    assert Measurement("x", forward_error=forward, gradient_error=gradient).correct is correct


def test_a_wrong_peer_is_not_the_fastest_correct_one() -> None:
    wrong = Measurement(
        "cvxpylayers", forward=(0.5,), backward=(0.5,), forward_error=1e-3, gradient_error=1e-9
    )
    unknown = Measurement("unknown", forward=(0.1,), backward=(0.1,))
    right = Measurement("right", forward=(5.0,), backward=(1.0,), **FOUND)
    slow = Measurement("slow", forward=(50.0,), backward=(1.0,), **FOUND)
    skipped = Measurement("skipped", note="skipped")
    found = cell(wrong, unknown, slow, right, skipped)
    assert found.fastest_correct is right
    assert found.against_fastest == 2
    assert found.against_theirs == pytest.approx(1 / 3)
    assert found.fastest is unknown
    assert cell(wrong).fastest_correct is None
    assert cell(wrong).against_fastest is None
    assert cell(right).against_theirs is None


def test_medians_over_cells() -> None:
    cells = [cell(Measurement("right", forward=(3.0 * k,), backward=(0.0,), **FOUND)) for k in (1, 2, 6)]
    result = BenchResult({}, {}, (*cells, cell()))
    assert result.median_against_fastest == 2
    assert result.median_against_any == 2
    assert result.median_against_theirs is None


def test_record() -> None:
    broken = Measurement(
        "broken", forward=(1.0,), backward=(1.0,), forward_error=math.inf, gradient_error=0.0
    )
    (found,) = record.of(BenchResult({"seed": 0}, {}, (cell(broken),)))["cells"]
    ours, theirs = found["measurements"]
    assert (ours["total_seconds"], ours["correct"]) == (3, True)
    assert (theirs["forward_error"], theirs["correct"]) == ("inf", False)
    assert found["fastest_correct"] is None
