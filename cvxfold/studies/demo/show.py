"""The demo's output: progress bars, the training curve, a table side by side, a verdict, and JSON."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cvxfold.studies.demo.data import Days
from cvxfold.studies.demo.run import REFERENCE, Result
from cvxfold.studies.demo.settings import Settings, Step

SHOWN_EPOCHS = 8  # rows of the curve
BAR = 24  # characters of its longest bar


@contextmanager
def progress_bars(console: Console, settings: Settings) -> Iterator[Callable[[Step], None]]:
    """A bar for each model; yields what the training is to call after every step."""
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=24),
        TextColumn("epoch {task.fields[epoch]:>2}/{task.total:.0f}  loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def advance(step: Step) -> None:
            if step.model not in tasks:
                tasks[step.model] = progress.add_task(
                    step.model, total=settings.epochs, epoch=0, loss=step.loss
                )
            done = step.epoch if step.last else step.epoch - 1
            progress.update(tasks[step.model], completed=done, epoch=step.epoch, loss=step.loss)
            if step.last and step.epoch == settings.epochs:
                progress.stop_task(tasks[step.model])

        yield advance


def introduction(settings: Settings) -> str:
    """What is about to happen, in a few lines."""
    return (
        "Decision-focused learning on real data: forecast tomorrow's electricity demand in\n"
        "Victoria, plan a plant by it whose output changes slowly, and learn from what the\n"
        "plan costs: ten times as much for a GWh that is short as for one too many. The\n"
        f"same model, seed and batches, {settings.epochs} epochs: first fitted by squared error\n"
        "(two-stage), then through the layer at its defaults:\n\n"
        "    from cvxpylayers.torch import CvxpyLayer    # and then\n"
        "    from cvxfold.torch import CvxpyLayer\n"
    )


def report(result: Result) -> list[RenderableType]:
    """All that is printed in the end, part by part."""
    return [curve(result), table(result), notes(result), "", verdict(result)]


def curve(result: Result) -> Table:
    """The cost of the test days by epoch, of each way to train."""
    theirs, ours = result.runs
    shape = Table(title="Cost of a day that training never saw", title_justify="left")
    for name in ("epoch", "two-stage", theirs.layer, ours.layer):
        shape.add_column(name, justify="right")
    shape.add_column("")
    highest = max(ours.untrained_test_cost, *ours.test_cost)

    def row(epoch: int, *costs: float) -> None:
        bar = "━" * round(BAR * costs[-1] / highest)
        shape.add_row(str(epoch), *(f"{cost:.2f}" for cost in costs), bar)

    start = ours.untrained_test_cost  # of two-stage training too: all begin with the same weights
    row(0, start, theirs.untrained_test_cost, start)
    last = result.settings.epochs - 1
    for epoch in sorted({round(last * i / (SHOWN_EPOCHS - 1)) for i in range(SHOWN_EPOCHS)}):
        costs = result.two_stage.test_cost, theirs.test_cost, ours.test_cost
        row(epoch + 1, *(cost[epoch] for cost in costs))
    return shape


def table(result: Result) -> Table:
    """Both layers side by side."""
    theirs, ours = result.runs
    shape = Table(title="The same training with either layer", title_justify="left")
    shape.add_column("")
    for run in result.runs:
        shape.add_column(run.layer, justify="right")
    shape.add_column("ratio", justify="right")
    for name, of in (
        ("seconds in the layer", lambda run: sum(run.layer_seconds)),
        ("seconds of training", lambda run: sum(run.seconds)),
    ):
        shape.add_row(name, f"{of(theirs):.2f}", f"{of(ours):.2f}", ratio(of(theirs) / of(ours)))
    shape.add_section()
    for name, of in (("gradient error, median", median), ("gradient error, worst", max)):
        values = of(theirs.gradient_error), of(ours.gradient_error)
        shape.add_row(name, *(f"{v:.1e}" for v in values), ratio(values[0] / values[1]))
    reported = (f"{max(run.residual):.1e}" if run.residual else "not reported" for run in result.runs)
    shape.add_row("gradient residual, worst", *reported)
    return shape


def verdict(result: Result) -> str:
    """What came of it, in a sentence on the decisions and one on the layers."""
    base, (theirs, ours) = result.two_stage, result.runs
    return (
        f"[b]Verdict:[/b] on {len(result.test)} unseen days, training through the layer costs "
        f"{ours.test_cost[-1]:.1f} a day, {change(result.saving)} than two-stage training "
        f"({base.test_cost[-1]:.1f}) and {change(result.saving_with_margin)} than that with its best margin "
        f"({base.margin_cost:.1f}); following last week's demand costs {base.last_week_cost:.1f}. "
        f"cvxfold spends {sum(ours.layer_seconds):.2f} s in the layer, cvxpylayers "
        f"{sum(theirs.layer_seconds):.2f} s ({ratio(result.layer_speedup)}); gradient errors (median) are "
        f"{median(ours.gradient_error):.0e} and {median(theirs.gradient_error):.0e}."
    )


def notes(result: Result) -> str:
    """What the figures mean, and the warnings of the runs, if any."""
    train, test = result.train, result.test
    exact = ", ".join(f"{key}={value!r}" for key, value in REFERENCE.items())
    lines = [
        "[b]Cost[/b] of a day: 10 for each GWh that the plan is short of demand, 1 for each too many. "
        f"{len(train)} days of training, {train.dates[0]} to {train.dates[-1]}, and {len(test)} of test, to "
        f"{test.dates[-1]}. The best margin, {result.two_stage.margin:.2f} GW on all forecasts, is chosen on "
        "the days of training.",
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
        "train": _extent(result.train),
        "test": _extent(result.test),
        "two_stage": asdict(result.two_stage),
        "runs": [asdict(run) for run in result.runs],
        "layer_speedup": result.layer_speedup,
        "training_speedup": result.training_speedup,
        "saving": result.saving,
        "saving_with_margin": result.saving_with_margin,
    }


def ratio(value: float) -> str:
    """How many times as much, with ×."""
    return f"{value:.1f}×" if value < 1000 else f"{value:.0e}×".replace("e+0", "e")


def change(saving: float) -> str:
    """A share that is saved, or lost if it is negative."""
    return f"{abs(saving):.0%} {'less' if saving >= 0 else 'more'}"


def _extent(days: Days) -> dict[str, Any]:
    return {"days": len(days), "from": days.dates[0], "to": days.dates[-1]}
