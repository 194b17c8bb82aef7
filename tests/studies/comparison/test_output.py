"""A comparison as a table, as a record and as a plot."""

import json
import re
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cvxfold.fold import Unrolled
from cvxfold.studies.comparison import Comparison, show
from problems.comparisons import BEST, compared

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")


def test_table_and_record() -> None:
    comparison = compared("dense_qp20")
    shown = str(comparison)
    assert max(map(len, shown.splitlines())) <= 80
    for row in comparison.rows:
        assert row.name in shown
    record = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [row["name"] for row in record["rows"]] == [row.name for row in comparison.rows]
    assert record["agrees"] is False
    assert record["right"] == list(comparison.right)
    assert record["finite_differences"]["directions"] == 3
    for row in record["rows"]:
        assert row["forward_seconds"] > 0
        assert row["backward_seconds"] > 0
        assert len(row["solution_differences"]) == 4
        assert len(row["adjoint_residuals"]) == 4


def with_long_names(comparison: Comparison) -> Comparison:
    """The same with a method that has settings of its own, given as an object, and slow."""
    first = replace(comparison.rows[0], name=f"cvxfold {Unrolled(20)}", forward_seconds=123.4567)
    return replace(comparison, rows=(first, *comparison.rows[1:]))


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_numbers_are_never_cut(width: int) -> None:
    comparison = with_long_names(compared("dense_qp20"))
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(show.table(comparison), crop=False)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert not any("…" in line for line in lines)
    numbers = r"(\d\.\de[+-]\d\d +){4}\d+\.\d +\d+\.\d +(\d+\.\d|-) *$"
    assert sum(bool(re.search(numbers, line)) for line in lines) == len(comparison.rows)
    assert any("123456.7" in line for line in lines)
    if width > 40:
        assert sum(line.startswith("cvxpylayers") for line in lines) == 4


def test_a_long_name_stays_whole_in_the_table() -> None:
    comparison = with_long_names(compared("dense_qp20"))
    lines = str(comparison).splitlines()
    assert max(map(len, lines)) <= 80
    below = lines[lines.index(next(line for line in lines if "───" in line)) + 1 :]
    rows = below[: next(place for place, line in enumerate(below) if line.startswith("cvxfold lfpi"))]
    name = " ".join(re.split(r"  +", row)[0].strip() for row in rows)
    assert name.replace(" ", "") == comparison.rows[0].name.replace(" ", "")


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    comparison = compared("dense_qp20")
    figure = comparison.plot()
    assert len(figure.axes) == 3
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [row.name for row in comparison.rows]
    residuals = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in figure.axes[1].patches}
    assert residuals[names.index(BEST)] == comparison[BEST].adjoint_residual
    comparison.plot(tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 10_000
    assert len(replace(comparison, finite_differences=None).plot().axes) == 2


def test_plot_names_absent_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cvxfold.display.canvas", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"plots need matplotlib: pip install 'cvxfold\[examples\]'"
    ):
        compared("dense_qp20").plot()
