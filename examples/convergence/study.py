"""What the scripts of this folder share: problems with known answers, Φ as a matrix, figures, arguments."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cvxfold import analyze
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.layer.request import CallRequest
from cvxfold.torch import CvxpyLayer

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"

sys.path.insert(0, str(ROOT / "tests"))
_cases = import_module("problems.cases")  # the test suite's families, and its independent reference
Case: TypeAlias = Any
case: Callable[..., Case] = _cases.case
errors: Callable[..., Tensor] = _cases.errors
evaluate: Callable[..., tuple[list[Tensor], list[Tensor]]] = _cases.evaluate
make_layer: Callable[..., CvxpyLayer] = _cases.make_layer
weighted: Callable[..., Tensor] = _cases.weighted

COLOURS = {
    "forward": "#3b6fb6",
    "backward": "#d1495b",
    "theory": "#222222",
    "folded": "#2a9d6f",
    "accent": "#e2a23b",
    "other": "#8663a8",
}

_STYLE: Any = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
}

_COLOURS_KEPT = 192  # in a saved figure: with a palette it is half the size


@dataclass(frozen=True)
class Arguments:
    """What the command line said."""

    quick: bool
    output: Path


def arguments(name: str, description: str | None, argv: Sequence[str] | None = None) -> Arguments:
    """Read the command line and set PyTorch up: one thread, for the problems are small."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, a few seconds")
    parser.add_argument("--output", type=Path, default=FIGURES / f"{name}.png", help="where the figure goes")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message=".*Converting A to a CSC.*")
    return Arguments(given.quick, given.output)


def linearized(layer: CvxpyLayer, params: Sequence[Tensor]) -> ProgramLinearization:
    """The operator F, linearized at the layer's solutions."""
    given, values, _ = layer.program(*params)
    answer = layer.session.answer_to(values, CallRequest(given.batch or 1, layer.options))
    return layer.session.engine.linearize(answer.whole)


def reached_radius(layer: CvxpyLayer, truth: Case) -> Tensor:
    """ρ(Φ) on the subspace that the case's loss reaches, by ``cvxfold.analyze``, ``(B,)``."""
    found = analyze(layer, *truth.params, loss=lambda *outputs: weighted(truth.weights, outputs), costs=False)
    return found.spectral_radius


def phi_matrix(phi: ProgramLinearization) -> Tensor:
    """Φ of every instance, ``(B, m, m)``: row i is Φᵀ eᵢ."""
    batch, m = phi.u.shape
    unit = torch.eye(m, dtype=phi.u.dtype)
    return torch.stack([phi.vjp(unit[i].expand(batch, m)) for i in range(m)], dim=1)


def spectral_radius(phi: ProgramLinearization) -> Tensor:
    """ρ(Φ) by all eigenvalues of the matrix, ``(B,)``."""
    return torch.linalg.eigvals(phi_matrix(phi)).abs().amax(-1)


def axes(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure 8 inches wide in the common style, and its axes as a matrix."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finish(figure: Figure, output: Path) -> None:
    """Save a figure."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE), BytesIO() as full:
        figure.savefig(full, format="png")
        Image.open(full).convert("RGB").quantize(_COLOURS_KEPT).save(output, optimize=True)
    print(f"figure: {output}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table; the first column is a name."""
    out = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        out.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        out.add_row(*row)
    Console(width=110).print(out)
