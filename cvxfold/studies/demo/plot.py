"""The demo's figure: cost, gradient error, time, and plans."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxfold.studies.demo.decision_focused import Run
from cvxfold.studies.demo.run import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THEIRS, OURS, NEUTRAL, TWO_STAGE = "#d1495b", "#00798c", "#8d99ae", "#edae49"


def save_plot(result: Result, path: Path) -> None:
    """Draw all four in one figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _plot_cost(axes[0, 0], result)
    _plot_errors(axes[0, 1], result)
    _plot_seconds(axes[1, 0], result)
    _plot_plans(axes[1, 1], result)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontweight("bold")
    figure.suptitle("Decision-focused scheduling by real electricity demand, one import changed")
    canvas.print_figure(path, dpi=150)


def _styles(result: Result) -> list[tuple[Run, dict[str, Any]]]:
    theirs, ours = result.runs
    return [
        (theirs, {"color": THEIRS, "label": theirs.layer, "lw": 4, "alpha": 0.5}),
        (ours, {"color": OURS, "label": ours.layer, "lw": 1.6}),
    ]


def _plot_cost(ax: "Axes", result: Result) -> None:
    epochs, base = range(result.settings.epochs + 1), result.two_stage
    start = result.runs[1].untrained_test_cost  # of two-stage training too: all begin with the same weights
    ax.plot(epochs, [start, *base.test_cost], marker="o", ms=3, lw=1.6, color=TWO_STAGE, label="two-stage")
    ax.axhline(base.margin_cost, color=TWO_STAGE, lw=1.2, ls="--", label="two-stage, best margin")
    for run, style in _styles(result):
        ax.plot(epochs, [run.untrained_test_cost, *run.test_cost], marker="o", ms=3, **style)
    ax.set(title="Cost of an unseen day", xlabel="epoch")
    ax.set_ylim(bottom=0)
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
    ax.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.3))


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


def _plot_plans(ax: "Axes", result: Result) -> None:
    demand = result.test.demand.mean(0)
    hours = range(len(demand))
    ax.plot(hours, demand, color="black", lw=1.6, label="demand")
    ax.plot(hours, result.two_stage.mean_plan, color=TWO_STAGE, lw=1.6, label="plan, two-stage")
    ax.plot(hours, result.runs[1].mean_plan, color=OURS, lw=1.6, label="plan, decision-focused")
    ax.set(title="Plans for the unseen days, mean by hour", xlabel="hour", ylabel="GW")
    ax.legend(frameon=False)
