"""Real quadratic programs: cvxpylayers and cvxfold on the Maros–Mészáros set, against Clarabel.

Run from the root: ``python examples/maros_meszaros.py FOLDER [NAME …]``; the folder holds the files
in MATLAB form. A row shows the relative error of the objective, the largest violation, the relative error of
the gradient of a random linear loss with respect to the linear term, and the seconds of both passes. An error
in brackets is one that the layer warns of; where there is no certain gradient a dash stands.
"""

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as Upstream
from rich.console import Console
from rich.table import Table

from cvxfold.torch import CvxpyLayer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from problems.hard import QP, Gradient, Kind, ask, gradient, load, optimum, problem  # pyright: ignore[reportMissingImports]

LAYERS: dict[str, Callable[..., Any]] = {"cvxpylayers": Upstream, "cvxfold": CvxpyLayer}


def main(folder: Path, names: list[str]) -> None:
    """Print a row for each file, the smallest first."""
    table = Table(title="objective / violation / gradient / seconds")
    for column in ("problem", "variables", "rows", *LAYERS):
        table.add_column(column, justify="left" if column == "problem" else "right")
    for file in sorted(folder.glob("*.mat"), key=lambda file: file.stat().st_size):
        if names and file.stem not in names:
            continue
        qp = load(file)
        c = np.random.default_rng(0).standard_normal(len(qp.q))
        best, truth = qp.objective(optimum(qp)[0]), gradient(qp, c)
        cells = [cell(make, qp, c, best, truth) for make in LAYERS.values()]
        table.add_row(file.stem, str(len(qp.q)), str(qp.A.shape[0]), *cells)
    Console(width=120).print(table)


def cell(make: Callable[..., Any], qp: QP, c: np.ndarray, best: float, truth: Gradient) -> str:
    """The errors of one layer on one program."""
    start = time.perf_counter()
    try:
        (found,) = ask(make(*problem(qp, alone=True)), [qp], c[None], alone=True)
    except Exception as error:
        return type(error).__name__
    seconds = time.perf_counter() - start
    objective = abs(qp.objective(found.x) - best) / max(1.0, abs(best))
    solution = f"{objective:.0e} / {qp.violation(found.x):.0e}"
    slope = f"{truth.errors(found)[0]:.0e}" if truth.q_kind is Kind.UNIQUE else "–"
    solution = solution if found.solved else f"({solution})"
    return f"{solution} / {slope if found.trusted else f'({slope})'} / {seconds:.1f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Converting A to a CSC.*")
        main(Path(sys.argv[1]), sys.argv[2:])
