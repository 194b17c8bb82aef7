"""A benchmark as numbers, strings and lists, for JSON."""

import math
from dataclasses import asdict
from typing import Any

from cvxfold.studies.bench.result import BenchCell, BenchResult, Measurement


def of(result: BenchResult) -> dict[str, Any]:
    """All of it; seconds and bytes; a number that is not finite as a string."""
    return {
        "settings": result.settings,
        "machine": result.machine,
        "skipped": list(result.skipped),
        "median_against_fastest": result.median_against_fastest,
        "median_against_any": result.median_against_any,
        "median_against_theirs": result.median_against_theirs,
        "cells": [of_cell(cell) for cell in result.cells],
        "training": [
            asdict(row) | {"gain": row.gain, "gain_shuffled": row.gain_shuffled} for row in result.training
        ],
    }


def of_cell(cell: BenchCell) -> dict[str, Any]:
    """One cell of it."""
    fastest = cell.fastest_correct
    return {
        "family": cell.family,
        "size": cell.size,
        "batch": cell.batch,
        "checked": cell.checked,
        "fastest_correct": None if fastest is None else fastest.peer,
        "against_fastest": cell.against_fastest,
        "against_any": cell.against_any,
        "against_theirs": cell.against_theirs,
        "measurements": [_measurement(one, cell.batch) for one in cell.measurements],
        "profile": cell.profile,
    }


def _measurement(one: Measurement, batch: int) -> dict[str, Any]:
    return {
        "peer": one.peer,
        "setup_seconds": one.setup,
        "device": one.device,
        "engine": one.engine,
        "instances_measured": one.count or batch,
        "first_seconds": one.first,
        "forward_seconds": one.forward_seconds,
        "backward_seconds": one.backward_seconds,
        "total_seconds": one.total_seconds,
        "instances_a_second": batch / one.total_seconds if one.total_seconds else None,
        "peak_bytes": one.peak_bytes,
        "forward_error": _number(one.forward_error),
        "gradient_error": _number(one.gradient_error),
        "host_error": _number(one.host_error),
        "correct": one.correct,
        "rounds": {"forward": list(one.forward), "backward": list(one.backward)},
        "note": one.note,
    }


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
