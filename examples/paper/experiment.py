"""What the scripts of this folder share: arguments, a progress bar, a figure, a file of numbers, a table."""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cvxfold.studies.plotting import check_plot, new_figure

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"


@dataclass(frozen=True)
class Arguments:
    """What the command line said.

    Args:
        quick: whether small sizes were asked for.
        output: where the figure goes; the numbers go beside it, as JSON.
        seed: of all that is random.
    """

    quick: bool
    output: Path
    seed: int


def start(name: str, description: str | None, argv: Sequence[str] | None = None) -> Arguments:
    """Read the command line and set PyTorch up: one thread, for the problems are small."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, less than three minutes")
    parser.add_argument("--output", type=Path, default=FIGURES / f"{name}.png", help="where the figure goes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    check_plot(given.output)
    torch.set_num_threads(1)
    return Arguments(given.quick, given.output, given.seed)


class Experiment:
    """One run: a progress bar while it lasts, then a figure and a file of numbers.

    Args:
        given: the command line.
        what: is counted. total: how much of it there is.
    """

    def __init__(self, given: Arguments, what: str, total: int) -> None:
        self._given, self._console = given, Console()
        self._progress = Progress(console=self._console)
        self._task = self._progress.add_task(what, total=total)
        self._figure: Any = None
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        if self._figure is not None and error[0] is None:
            self._figure.savefig(self._given.output, dpi=110)
            self._console.print(f"wrote {self._given.output} and {self.numbers}")

    @property
    def numbers(self) -> Path:
        """The file of numbers."""
        return self._given.output.with_suffix(".json")

    def advance(self, doing: str, by: int = 1) -> None:
        """Tell what has been done."""
        self._progress.update(self._task, advance=by, description=doing)

    def save(self, found: dict[str, Any]) -> None:
        """Write the numbers, with what they depend on."""
        about = {
            "quick": self._given.quick,
            "seed": self._given.seed,
            "seconds": time.perf_counter() - self._began,
            "torch": torch.__version__,
            "processor": platform.machine(),
        }
        self.numbers.write_text(json.dumps({"about": about, **found}, indent=1) + "\n", encoding="utf-8")

    def figure(self, panels: int, title: str, label: str) -> list[Any]:
        """Axes side by side."""
        self._figure = new_figure(figsize=(6.5 * panels, 3.8))
        self._figure.suptitle(title)
        axes = list(self._figure.subplots(1, panels, squeeze=False)[0])
        axes[0].set_xlabel(label)
        return axes

    def table(self, rows: Sequence[dict[str, Any]]) -> None:
        """Print rows with the same keys."""
        table = Table()
        for name in rows[0]:
            table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
        for row in rows:
            table.add_row(*(one if isinstance(one, str) else f"{one:.3g}" for one in row.values()))
        self._console.print(table)
