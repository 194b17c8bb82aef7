"""The script of the long training, shorter: through linear programs that are degenerate or infeasible."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvxfold
from problems.marks import long


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script of the long training."""
    folder = Path(__file__).resolve().parents[2] / "examples"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return import_module("long_training")


@pytest.mark.parametrize("steps", [pytest.param(300, marks=long), 60])
def test_training_through_degenerate_programs(example: Any, steps: int) -> None:
    short = 60 if steps == 300 else 15
    regularized, plain = example.train(steps, 1.0), example.train(short, 0.0)
    for record, taken in ((regularized, steps), (plain, short)):
        statuses, verdicts = record.monitor.statuses, record.monitor.verdicts
        assert len(record.losses) == taken
        assert record.finite
        assert np.isfinite(record.losses).all()
        assert statuses.total() == verdicts.total() == taken * example.BATCH
        assert statuses[cvxfold.Status.INFEASIBLE] > 0
        assert statuses[cvxfold.Status.UNCONVERGED] == 0
        assert verdicts[cvxfold.Verdict.NO_SOLUTION] == statuses[cvxfold.Status.INFEASIBLE]
    # Ties leave routes free, which the proximal term decides; multipliers that are not unique are no fault.
    assert plain.monitor.verdicts[cvxfold.Verdict.DEGENERATE] > 0.5 * plain.monitor.verdicts.total()
    verdicts = regularized.monitor.verdicts
    assert verdicts[cvxfold.Verdict.CONVERGED] > 0.5 * verdicts.total()
    if steps == 300:
        assert regularized.mean(-100, None) < 0.6 * regularized.mean(0, 10)
    ratio = np.median(regularized.cost_gradients[:short]) / np.median(plain.cost_gradients)
    assert ratio > 2
