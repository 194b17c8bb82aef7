"""``cvxfold compare``: what is asked, and how it is shown."""

import json

import typer
from rich.console import Console

from cvxfold.commands.request import Request, progress_bar
from cvxfold.comparison import show
from cvxfold.comparison.contestants import MODES
from cvxfold.comparison.run import compare


def run(
    request: Request, rtol: float, finite_differences: int, as_json: bool, upstream: list[str] | None
) -> bool:
    """Compare, print, save the plot; whether the packages agree.

    Raises:
        UsageError: naming the argument.
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    target, values = request.load()
    with progress_bar() as progress, request.blamed():
        comparison = compare(
            target.problem,
            target.parameters,
            target.variables,
            values,
            finite_differences=finite_differences,
            rtol=rtol,
            seed=request.seed,
            layer_options={"gp": request.gp},
            progress=progress,
            upstream=upstream or tuple(MODES),
        )
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2))
    else:
        console = Console(highlight=False, markup=False)
        console.print(show.table(comparison))
        console.print(comparison.verdict)
    if request.plot is not None:
        show.save_plot(comparison, request.plot)
        typer.echo(f"Plot: {request.plot}", err=True)
    return comparison.agrees()
