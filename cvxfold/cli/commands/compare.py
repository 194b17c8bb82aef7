"""``cvxfold compare``: what is asked, and how it is shown."""

import json

import typer
from rich.console import Console

from cvxfold.checks import require_positive
from cvxfold.cli.commands.request import Request, UsageError
from cvxfold.studies.comparison import show
from cvxfold.studies.comparison.contestants import USUAL_MODES, modes
from cvxfold.studies.comparison.run import compare


def run(
    request: Request, rtol: float, finite_differences: int, as_json: bool, upstream: list[str] | None
) -> bool:
    """Compare, print, save the plot; whether all answers agree.

    Raises:
        UsageError: naming the argument.
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    asked = upstream or USUAL_MODES
    try:
        modes(asked)
    except ValueError as error:
        raise UsageError(str(error), "--upstream") from error
    try:
        require_positive("rtol", rtol)
    except ValueError as error:
        raise UsageError(str(error), "--rtol") from error
    target, values = request.load()
    with request.blamed():
        comparison = compare(
            target.problem,
            target.parameters,
            target.variables,
            values,
            finite_differences=finite_differences,
            rtol=rtol,
            seed=request.seed,
            layer_options={"gp": request.gp},
            upstream=asked,
        )
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2))
    else:
        console = Console(highlight=False, markup=False)
        console.print(show.table(comparison), crop=False)
        console.print(comparison.verdict)
    if request.plot is not None:
        comparison.plot(request.plot)
        typer.echo(f"Plot: {request.plot}", err=True)
    return comparison.agrees()
