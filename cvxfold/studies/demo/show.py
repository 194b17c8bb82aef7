"""The demo's output: a progress bar, a table side by side, one plot, and JSON."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cvxfold.studies.demo.train import REFERENCE, Result, Run, Settings, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_EPOCHS = 6  # rows of the table
THEIRS, OURS, NEUTRAL = "#d1495b", "#00798c", "#8d99ae"


@contextmanager
def progress_bars(console: Console, settings: Settings) -> Iterator[Callable[[Step], None]]:
    """Two bars, one for each layer; yields what the training is to call after every step."""
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=24),
        TextColumn("epoch {task.fields[epoch]:>2}/{task.total:.0f}  loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def advance(step: Step) -> None:
            if step.layer not in tasks:
                tasks[step.layer] = progress.add_task(
                    step.layer, total=settings.epochs, epoch=0, loss=step.loss
                )
            done = step.epoch if step.last else step.epoch - 1
            progress.update(tasks[step.layer], completed=done, epoch=step.epoch, loss=step.loss)
            if step.last and step.epoch == settings.epochs:
                progress.stop_task(tasks[step.layer])

        yield advance


def introduction(settings: Settings) -> str:
    """What is about to happen, in a few lines."""
    return (
        "Decision-focused learning on real data: predict a week's returns of 20 S&P 500\n"
        "stocks, invest by Markowitz's problem, learn from the portfolio's regret. The\n"
        f"same model, seed and batches, {settings.epochs} epochs, each layer at its defaults:\n\n"
        "    from cvxpylayers.torch import CvxpyLayer    # and then\n"
        "    from cvxfold.torch import CvxpyLayer\n"
    )


def table(result: Result) -> Table:
    """Both runs side by side."""
    theirs, ours = result.runs
    epochs = result.settings.epochs
    shape = Table(title="The same training with either layer", title_justify="left", caption_justify="left")
    shape.add_column("")
    for run in result.runs:
        shape.add_column(run.layer, justify="right")
    shape.add_column("ratio", justify="right")
    last = epochs - 1
    for epoch in sorted({round(last * i / (SHOWN_EPOCHS - 1)) for i in range(SHOWN_EPOCHS)}):
        losses = f"{theirs.loss[epoch]:.4f}", f"{ours.loss[epoch]:.4f}"
        shape.add_row(f"training regret, epoch {epoch + 1}", *losses, end_section=epoch == last)
    shape.add_row("test regret, untrained", *(f"{run.untrained_test_regret:.4f}" for run in result.runs))
    shape.add_row(
        "test regret, trained", *(f"{run.test_regret:.4f}" for run in result.runs), end_section=True
    )
    for name, of in (
        ("seconds in the layer", lambda run: sum(run.layer_seconds)),
        ("seconds of training", lambda run: sum(run.seconds)),
    ):
        shape.add_row(name, f"{of(theirs):.2f}", f"{of(ours):.2f}", _ratio(of(theirs) / of(ours)))
    shape.add_section()
    for name, of in (("gradient error, median", median), ("gradient error, worst", max)):
        values = of(theirs.gradient_error), of(ours.gradient_error)
        shape.add_row(name, *(f"{v:.1e}" for v in values), _ratio(values[0] / values[1]))
    reported = (f"{max(run.residual):.1e}" if run.residual else "not reported" for run in result.runs)
    shape.add_row("gradient residual, worst", *reported)
    return shape


def notes(result: Result) -> str:
    """What the table's rows mean, and the warnings of the runs, if any."""
    train, test = result.train, result.test
    exact = ", ".join(f"{key}={value!r}" for key, value in REFERENCE.items())
    lines = [
        f"[b]Regret[/b] in percent a week: {len(train)} weeks of training, {train.dates[0]} to "
        f"{train.dates[-1]}, and {len(test)} of test, to {test.dates[-1]}. A week's returns are close to "
        "unpredictable: expect the training regret to fall, not the test regret.",
        "[b]Seconds[/b] of the layer's forward and backward passes, and of all training steps; PyTorch "
        "on one thread, cvxpylayers' solver on all cores.",
        "[b]Gradient error[/b] of one fixed batch in the model's weights, after every epoch: relative, "
        f"against cvxpylayers at {exact}, which shows nothing below about 1e-10.",
        "[b]Gradient residual[/b] of the adjoint system, the worst instance of the whole training.",
    ]
    for run in result.runs:
        lines += [
            f"[b]Warned[/b] {n} times in the run of {run.layer}: {escape(text)}"
            for text, n in run.warnings.items()
        ]
    return "\n".join(lines)


def record(result: Result) -> dict[str, Any]:
    """All numbers of a result, for JSON."""
    return {
        "settings": asdict(result.settings),
        "train": {"weeks": len(result.train), "from": result.train.dates[0], "to": result.train.dates[-1]},
        "test": {"weeks": len(result.test), "from": result.test.dates[0], "to": result.test.dates[-1]},
        "runs": [asdict(run) for run in result.runs],
        "equal_wealth": result.equal_wealth,
        "layer_speedup": result.layer_speedup,
        "training_speedup": result.training_speedup,
    }


def save_plot(result: Result, path: Path) -> None:
    """Loss, gradient error, time and wealth of both runs in one figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _plot_loss(axes[0, 0], result)
    _plot_errors(axes[0, 1], result)
    _plot_seconds(axes[1, 0], result)
    _plot_wealth(axes[1, 1], result)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontweight("bold")
    figure.suptitle("Decision-focused portfolio training on S&P 500 stocks, one import changed")
    canvas.print_figure(path, dpi=150)


def _ratio(value: float) -> str:
    return f"{value:.1f}×" if value < 1000 else f"{value:.0e}×".replace("e+0", "e")


def _styles(result: Result) -> list[tuple[Run, dict[str, Any]]]:
    theirs, ours = result.runs
    return [
        (theirs, {"color": THEIRS, "label": theirs.layer, "lw": 4, "alpha": 0.5}),
        (ours, {"color": OURS, "label": ours.layer, "lw": 1.6}),
    ]


def _plot_loss(ax: "Axes", result: Result) -> None:
    epochs = range(1, result.settings.epochs + 1)
    for run, style in _styles(result):
        ax.plot(epochs, run.loss, marker="o", ms=3, **style)
    ax.set(title="Training loss", xlabel="epoch", ylabel="regret, percent a week")
    ax.locator_params(axis="x", integer=True)
    ax.legend(frameon=False)


def _plot_errors(ax: "Axes", result: Result) -> None:
    epochs = range(1, result.settings.epochs + 1)
    for run, style in _styles(result):
        ax.semilogy(epochs, run.gradient_error, marker="o", ms=3, **style | {"lw": 1.6, "alpha": 1})
    ours = result.runs[1]
    label = "residual that cvxfold reports"
    ax.semilogy(epochs, ours.residual, ":", color=OURS, lw=1.6, label=label)
    ax.set(title="Gradient error by epoch", xlabel="epoch", ylabel="relative error")
    ax.locator_params(axis="x", integer=True)
    ax.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.62))


def _plot_seconds(ax: "Axes", result: Result) -> None:
    for y, (run, style) in enumerate(_styles(result)):
        layer, total = sum(run.layer_seconds), sum(run.seconds)
        ax.barh(y, layer, color=style["color"], height=0.55)
        ax.barh(y, total - layer, left=layer, color=NEUTRAL, height=0.55)
        ax.text(total, y, f"  {total:.1f} s", va="center")
    ax.barh(0, 0, color=NEUTRAL, label="predictor and optimizer")
    ax.set_yticks([0, 1], [run.layer for run in result.runs])
    ax.invert_yaxis()
    ax.margins(x=0.15)
    faster = f"layer {result.layer_speedup:.1f}× as fast"
    ax.set(title=f"Training time ({faster})", xlabel="seconds, forward and backward")
    ax.legend(frameon=False, loc="best")


def _plot_wealth(ax: "Axes", result: Result) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, datestr2num

    dates = datestr2num(result.test.dates)
    for run, style in _styles(result):
        ax.plot(dates, run.wealth, **style)
    ax.plot(dates, result.equal_wealth, color=NEUTRAL, lw=1.2, ls="--", label="equal weights")
    locator = AutoDateLocator()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.set(title="Wealth over the test weeks (before costs)", ylabel="multiple of the start")
    ax.legend(frameon=False, loc="upper left")
