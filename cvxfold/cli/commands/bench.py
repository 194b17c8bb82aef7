"""``cvxfold bench``: what is asked, and how it is shown."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cvxfold.cli.commands.request import UsageError, check_plot_path, device_named
from cvxfold.studies.bench import record, show
from cvxfold.studies.bench.families.table import families
from cvxfold.studies.bench.peers import peers
from cvxfold.studies.bench.plot import draw
from cvxfold.studies.bench.run import bench
from cvxfold.studies.bench.settings import BenchSettings

_WIDTH = 130


def run(settings: BenchSettings, json_file: Path | None, plot: Path | None) -> None:
    """Measure, print, save.

    Raises:
        UsageError: naming the argument.
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    _check(settings, json_file)
    device_named(settings.device)
    check_plot_path(plot)
    result = bench(settings)
    console = Console(highlight=False, soft_wrap=True)
    if result.cells:
        _print_whole(console, show.table(result))
        if settings.profile:
            _print_whole(console, show.profile_table(result))
        console.print(show.summary(result))
    if result.training:
        _print_whole(console, show.training_table(result))
    if json_file is not None:
        json_file.write_text(json.dumps(record.of(result), indent=2) + "\n", encoding="utf-8")
        console.print(f"Numbers: {json_file}")
    if plot is not None:
        draw(result, plot)
        console.print(f"Plot: {plot}")


def _print_whole(console: Console, table: Table) -> None:
    """Numbers are never cut off: where the console is too narrow the table is wider than that."""
    wide = Console(highlight=False, width=max(console.width, _WIDTH))
    wide.print(table, "")


def _check(settings: BenchSettings, json_file: Path | None) -> None:
    """What can be known before the work."""
    for check, names, hint in (
        (families, settings.families, "--family"),
        (peers, settings.peers, "--peer"),
    ):
        try:
            check(names)
        except ValueError as error:
            raise UsageError(str(error), hint) from error
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UsageError(f"{json_file}: there is no folder {json_file.absolute().parent}", "--json")
