"""``cvxfold analyze``: what is asked, and how it is shown."""

import json

import typer
from rich.console import Console

from cvxfold.cli.commands.request import Request
from cvxfold.errors import SolverError
from cvxfold.studies.analysis.run import analyze
from cvxfold.torch import CvxpyLayer


def run(request: Request, tol: float, costs: bool, as_json: bool) -> None:
    """Analyze, print, save the plot.

    Raises:
        UsageError: naming the argument.
        SolverError: instances have no solution.
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    target, values = request.load()
    with request.blamed():
        layer = CvxpyLayer(target.problem, target.parameters, target.variables, gp=request.gp)
        try:
            analysis = analyze(layer, *values, tol=tol, seed=request.seed, costs=costs)
        except SolverError as error:
            instances = str(error).partition("; with on_unsolvable")[0]
            typer.echo(f"Error: {instances}; another --seed draws other values", err=True)
            raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(analysis.to_dict(), indent=2))
    else:
        Console(highlight=False).print(analysis)
    if request.plot is not None:
        analysis.plot(request.plot)
        typer.echo(f"Plot: {request.plot}", err=True)
