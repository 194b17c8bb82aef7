"""Plots have the axes and the numbers of what they show."""

import math
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold import Verdict
from cvxfold.display.figures import FLOOR
from cvxfold.report.course import MOST, Course
from cvxfold.report.report import Report
from cvxfold.torch import CvxpyLayer
from problems.cases import case, evaluate, make_layer
from problems.families import minimize

pytest.importorskip("matplotlib")


def lines(ax: Any) -> dict[str, Any]:
    """The lines of axes by their name in the legend."""
    return {re.split(r"\s\(", line.get_label())[0]: line for line in ax.lines}


def same(plotted: Any, numbers: torch.Tensor) -> None:
    """A line has these numbers, but for zeros and what is not finite."""
    expected = [max(value, FLOOR) if math.isfinite(value) else math.nan for value in numbers.tolist()]
    torch.testing.assert_close(
        torch.as_tensor(plotted.get_ydata()), torch.tensor(expected, dtype=torch.float64), equal_nan=True,
        rtol=0, atol=0,
    )  # fmt: skip


def mixed(**options: Any) -> CvxpyLayer:
    """A layer that was called for a fine instance, a kink, and NaN."""
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x - c), x >= 0, cp.norm(x) <= 9)
    layer = CvxpyLayer(problem, [c], [x], on_unsolvable="nan", on_unconverged="ignore", **options)
    values = torch.tensor([[1.0, 2.0], [1.0, 0.0], [torch.nan, 1.0], [7.0, 8.0]], dtype=torch.float64)
    layer(values.requires_grad_())[0].nansum().backward()
    return layer


def test_a_report_by_instance() -> None:
    report = mixed().report
    figure = report.plot()
    by_instance, counts = figure.axes
    forward, backward = report.forward, report.backward
    assert backward is not None
    shown = lines(by_instance)
    same(shown["forward residual"], forward.residual)
    known = torch.tensor([one is not Verdict.NO_SOLUTION for one in backward.verdict])
    fine = known & ~backward.degenerate
    same(shown["backward residual"], torch.where(known, backward.residual, torch.nan))
    same(shown["error estimate"], torch.where(fine, backward.error, torch.nan))
    assert list(shown["degenerate"].get_xdata()) == [1]
    assert list(shown["no solution"].get_xdata()) == [2]
    assert "converged" not in shown
    names = [label.get_text() for label in counts.get_yticklabels()]
    bars = {name: bar.get_width() for name, bar in zip(names, counts.patches, strict=True)}
    assert bars == {"solved": 3, "invalid": 1, "converged": 2, "degenerate": 1, "no solution": 1}


@pytest.mark.parametrize("method", ["lfpi", "gmres"])
def test_an_iterative_method_has_a_history(method: str) -> None:
    c = case("dense_qp5", 12)
    layer = make_layer(c, backward=method)
    evaluate(layer, c)
    figure = layer.report.plot()
    assert len(figure.axes) == 3
    shown = lines(figure.axes[1])
    backward = layer.report.backward
    numbers = [int(name.split()[1].rstrip(",")) for name in shown if name.startswith("instance")]
    assert len(numbers) == 8
    longest = int(backward.history.isfinite().sum(0).amax())
    assert longest in [len(line.get_ydata()) for line in shown.values()]
    for number in numbers:
        history = backward.history[:, number]
        same(shown[f"instance {number}"], history[history.isfinite()])


def test_before_the_backward_pass_and_before_any_call() -> None:
    c = case("dense_qp5", 3)
    layer = make_layer(c)
    assert len(layer.report.plot().axes) == 2
    layer(*c.params)
    figure = layer.report.plot()
    assert set(lines(figure.axes[0])) == {"forward residual"}
    assert len(figure.axes[1].patches) == 1


def test_a_folded_iteration() -> None:
    folded = cvxfold.fold(lambda x, c: 0.5 * (x + c), start=torch.zeros(3).double(), backward="lfpi")
    c = torch.ones(3, dtype=torch.float64, requires_grad=True)
    folded(c).sum().backward()
    figure = folded.report.plot()
    same(lines(figure.axes[0])["forward residual"], folded.report.forward.residual)


def test_a_monitor_over_training() -> None:
    layer = mixed()
    reports: list[Report] = []
    layer.on_report(lambda report: reports.append(report) if report.backward is not None else None)
    with cvxfold.Monitor(layer) as monitor:
        for step in range(5):
            values = torch.rand(3, 2, dtype=torch.float64) + 0.1
            values[: step // 2, 1] = 0.0
            layer(values.requires_grad_())[0].sum().backward()
    top, middle, bottom = monitor.plot().axes
    shown = lines(top)
    found = [report.backward for report in reports if report.backward is not None]
    forward = torch.tensor([float(report.forward.residual.amax()) for report in reports]).double()
    same(shown["forward residual, worst"], forward)
    same(shown["backward residual, worst"], torch.stack([one.residual.amax() for one in found]))
    same(shown["backward residual, median"], torch.stack([one.residual.median() for one in found]))
    assert list(shown["backward residual, worst"].get_xdata()) == [1, 2, 3, 4, 5]
    seconds = torch.tensor([1e3 * report.forward.seconds for report in reports], dtype=torch.float64)
    same(lines(bottom)["forward"], seconds)
    names = [text.get_text() for text in middle.get_legend().get_texts()]
    assert names == ["converged", "degenerate"]
    edges = [set(area.get_paths()[0].vertices[:, 1].round(9)) for area in middle.collections]
    shares = {round(100 * one.verdict.count(Verdict.CONVERGED) / 3, 9) for one in found}
    assert shares <= edges[0]
    assert edges[1] <= shares | {100.0}


def test_an_empty_monitor() -> None:
    layer = mixed()
    with cvxfold.Monitor(layer) as monitor:
        assert len(monitor.plot().axes) == 3
        layer(torch.ones(2, 2, dtype=torch.float64))
        assert monitor.plot().axes[1].get_title() == "Statuses"
        monitor.reset()
        assert len(lines(monitor.plot().axes[0])["forward residual, worst"].get_xdata()) == 0


def test_a_path_and_a_notebook(tmp_path: Path) -> None:
    layer = mixed()
    monitor = cvxfold.Monitor(layer)
    for name, shown in (("report", layer.report), ("monitor", monitor)):
        figure = shown.plot(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cvxfold.display.canvas", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'cvxfold"):
        mixed().report.plot()


def test_many_calls_become_few_points() -> None:
    """Sums stay sums, the largest stays the largest, and memory does not grow."""
    course, calls = Course(summed=("seconds", "bad")), 5 * MOST + 3
    for call in range(calls):
        rare = {"bad": 1.0} if call % 1_000 == 0 else {}
        course.add({"residual": math.nan if call == 7 else float(call % 977), "seconds": 2.0, **rare})
    assert course.calls == calls
    assert course.width == 8
    places = course.places
    assert MOST / 2 <= len(places) <= MOST
    assert all(a < b for a, b in pairwise(places))
    assert places[0] == 4.5
    assert places[-1] <= calls
    assert max(course.of("residual")) == 976.0
    assert course.of("residual")[0] == 6.0
    assert set(course.of("seconds")) == {2.0}
    sizes = [min(course.width, calls - place * course.width) for place in range(len(places))]
    total = sum(value * size for value, size in zip(course.of("bad"), sizes, strict=True))
    assert total == pytest.approx(math.ceil(calls / 1_000))
    assert course.of("nothing of that name") == pytest.approx([math.nan] * len(places), nan_ok=True)
