"""The command line. Each command imports what it needs when it runs, so that ``--help`` comes at once."""

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    name="cvxfold",
    help="Differentiable convex optimization layers by folded optimization.",
    epilog="Example: cvxfold demo --epochs 10 --output demo.png",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from cvxfold import __version__

        others = ", ".join(f"{name} {version(name)}" for name in ("cvxpylayers", "cvxpy", "torch"))
        typer.echo(f"cvxfold {__version__} ({others})")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Differentiable convex optimization layers by folded optimization."""


@app.command(epilog="Example: cvxfold demo --epochs 10 --output demo.png")
def demo(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training weeks.")] = 25,
    batch: Annotated[int, typer.Option(min=1, help="Weeks in a training step.")] = 64,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the initial weights and the order of the weeks.")
    ] = 0,
    weeks: Annotated[
        int | None,
        typer.Option(min=1, help="Use so many training and test weeks only.", show_default="all"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where to save the plot.")] = Path("cvxfold-demo.png"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all numbers as JSON in place of the table.")
    ] = False,
) -> None:
    """Train on real stock prices with cvxpylayers, then with cvxfold, and compare.

    A small network predicts the weekly returns of 20 S&P 500 stocks, Markowitz's problem turns them into a
    portfolio, and the network learns from the portfolio's regret. Prints loss, time and the quality of the
    gradients side by side and saves one plot. The data ships with skfolio (pip install 'cvxfold[examples]');
    nothing is downloaded. Takes half a minute on two cores.
    """
    from rich.console import Console

    from cvxfold.demo import show
    from cvxfold.demo.train import Settings, compare

    settings = Settings(epochs=epochs, batch=batch, seed=seed, weeks=weeks)
    console = Console(stderr=as_json, highlight=False)
    try:
        show.check_plot(output)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    except ModuleNotFoundError as error:
        _stop(error)
    console.print(show.introduction(settings))
    try:
        with show.progress_bars(console, settings) as progress:
            result = compare(settings, progress)
    except ModuleNotFoundError as error:
        _stop(error)
    show.save_plot(result, output)
    if as_json:
        typer.echo(json.dumps(show.record(result), indent=2))
    else:
        console.print("", show.table(result), show.notes(result), sep="\n")
    console.print(f"\nPlot: {output}")


def _stop(error: Exception) -> NoReturn:
    """End with the message alone, for what the user can put right."""
    typer.echo(f"Error: {error}", err=True)
    raise typer.Exit(1) from error
