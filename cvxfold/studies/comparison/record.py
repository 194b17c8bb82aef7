"""A comparison as numbers, strings and lists."""

import math
from typing import Any

from torch import Tensor

from cvxfold.studies.comparison.findings import Findings, Row
from cvxfold.studies.comparison.verdict import words


def of(comparison: Findings) -> dict[str, Any]:
    """All of it, for JSON; a number that is not finite as a string."""
    record = {
        "batch": comparison.batch,
        "rtol": comparison.rtol,
        "agrees": comparison.agrees(),
        "right": list(comparison.right),
        "degenerate": comparison.degenerate,
        "unsolvable": comparison.unsolvable,
        "verdict": words(comparison),
        "rows": [_row(comparison, row) for row in comparison.rows],
    }
    differences = comparison.finite_differences
    if differences is not None:
        record["finite_differences"] = {
            "solver": differences.solver,
            "directions": differences.directions,
            "own_error": _numbers(differences.own_error),
        }
    return record


def _row(comparison: Findings, row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "error": row.error,
        "solution_difference": _number(row.solution_difference),
        "solution_differences": _numbers(row.solution),
        "gradient_difference": _number(row.gradient_difference),
        "gradient_differences": row.gradients and {k: _numbers(v) for k, v in row.gradients.items()},
        "adjoint_residual": _number(row.adjoint_residual),
        "adjoint_residuals": _numbers(row.residual),
        "finite_difference_error": _number(comparison.finite_difference_error(row)),
        "finite_difference_errors": _numbers(row.finite_difference_error),
        "verdicts": row.verdicts and [str(each) for each in row.verdicts],
        "flat": row.flat,
        "forward_seconds": row.forward_seconds,
        "backward_seconds": row.backward_seconds,
        "peak_bytes": row.peak_bytes,
    }


def _numbers(values: Tensor | None) -> list[Any] | None:
    return None if values is None else [_number(each) for each in values.tolist()]


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
