"""What notebooks show: well-formed, escaped, in any theme, with every verdict."""

import pickle
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold import Status, Verdict
from cvxfold.engines.outcome import CODES
from cvxfold.gradient.verdict import VERDICTS
from cvxfold.report.records import ForwardRecord
from cvxfold.report.report import Report
from cvxfold.report.shown import badges
from cvxfold.torch import CvxpyLayer
from problems.comparisons import compared
from problems.families import minimize

HOSTILE = '"><script>alert(1)</script>&amp;<b'
VOID = {"br", "hr", "img", "meta", "link", "input"}


class Reading(HTMLParser):
    """Tags that open and close, styles, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value or "" for name, value in attrs if name == "style"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(shown: Any) -> Reading:
    """What an object shows in a notebook, once that is well-formed and suits every theme."""
    html = shown._repr_html_()
    assert isinstance(html, str)
    found = Reading(html)
    assert found.tags <= {
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "b",
        "details",
        "summary",
    }
    assert found.attributes <= {"style"}
    for style in found.styles:
        assert "url(" not in style
        for colour in re.findall(r"(?:^|;)(?:color|background)\s*:\s*([^;]*)", style):
            translucent = re.fullmatch(r"rgba\(\d+,\d+,\d+,(0?\.\d+)\)", colour)
            assert colour in ("inherit", "transparent") or (translucent and float(translucent[1]) <= 0.3)
    return found


def test_what_is_not_well_formed_would_be_seen() -> None:
    for broken in ("<div><b></div></b>", "<div>", "</div>"):
        with pytest.raises((AssertionError, IndexError)):
            Reading(broken)


def layer_of(name: str, **options: Any) -> CvxpyLayer:
    x, c = cp.Variable(2, name=f"x{name}"), cp.Parameter(2, name=f"c{name}")
    problem = minimize(cp.sum_squares(x - c), x >= 0, cp.norm(x) <= 9)
    return CvxpyLayer(problem, [c], [x], on_unsolvable="nan", on_unconverged="ignore", **options)


def called(layer: CvxpyLayer) -> CvxpyLayer:
    """With a gradient that is fine, one that does not exist, and an instance that is not there."""
    values = torch.tensor([[1.0, 2.0], [1.0, 0.0], [torch.nan, 1.0], [7.0, 8.0]], dtype=torch.float64)
    layer(values.requires_grad_())[0].nansum().backward()
    return layer


def test_a_layer_with_hostile_names() -> None:
    layer = layer_of(HOSTILE, penalty=0.25)
    for one in (layer, called(layer)):
        seen = read(one)
        assert f"c{HOSTILE} 2" in seen.text
        assert f"x{HOSTILE} 2" in seen.text
        assert "penalty=0.25" in seen.text
        assert "1 second-order cones" in seen.text
        assert "<script" not in one._repr_html_()
    assert "2 converged" in seen.text


def test_a_layer_before_the_first_call_and_from_a_file() -> None:
    layer = layer_of("")
    assert "not called yet" in read(layer).text
    assert "c 2" in read(pickle.loads(pickle.dumps(layer))).text


def test_the_jax_layer() -> None:
    pytest.importorskip("jax")
    from cvxfold.jax import CvxpyLayer as JaxLayer

    x, c = cp.Variable(2), cp.Parameter(2, name=HOSTILE)
    layer = JaxLayer(minimize(cp.sum_squares(x - c)), [c], [x], tol=1e-7)
    assert HOSTILE in read(layer).text
    assert "tol=1e-07" in read(layer).text


def test_a_report_has_the_numbers_of_its_table() -> None:
    report = called(layer_of("")).report
    seen = read(report)
    forward, backward = report.forward, report.backward
    assert backward is not None
    gap, residual = forward.gap[[0, 1, 3]], backward.residual[[0, 1, 3]]
    for name, values in (("gap", gap), ("residual", residual), ("iterations", forward.iterations)):
        middle, worst = values.double().median(), values.double().max()
        pattern = "{:.1e}" if values.is_floating_point() else "{:.0f}"
        row = f"{name} {pattern.format(middle)} {pattern.format(worst)}"
        assert row in seen.text
        assert row in " ".join(str(report).split())
    for words in ("3 solved", "1 invalid", "2 converged", "1 degenerate", "1 no solution"):
        assert words in seen.text
        assert words in str(report)
    assert "degenerate instance 1" in seen.text
    assert report.complaints["backward pass: degenerate"] in seen.text
    assert "backward" not in Reading(Report(report.forward)._repr_html_()).text.replace(
        "backward: not run", ""
    )


@pytest.mark.parametrize("kind", [*VERDICTS, *CODES], ids=str)
def test_every_verdict_and_status_is_shown_and_stands_out_unless_it_is_good(kind: Verdict | Status) -> None:
    good = kind in (Verdict.CONVERGED, Status.SOLVED)
    seen = Reading(badges([(kind, 3)]))
    assert seen.text == f"3 {kind}"
    (style,) = seen.styles
    assert ("font-weight:600" in style) is not good


@pytest.mark.parametrize("code", range(len(VERDICTS)))
def test_a_report_mentions_each_verdict(code: int) -> None:
    report = called(layer_of("")).report
    backward = report.backward
    assert backward is not None
    told = Report(report.forward)
    told.set_backward(replace(backward, codes=torch.full_like(backward.codes, code)))
    seen = read(told)
    assert f"4 {VERDICTS[code]}" in seen.text
    assert ("instances 0, 1, 2, 3" in seen.text) is (VERDICTS[code] is not Verdict.CONVERGED)


def test_many_instances_are_counted_and_not_listed() -> None:
    record = ForwardRecord.blank(torch.full((5_000,), CODES.index(Status.INFEASIBLE)), 1.0)
    seen = read(Report(record, "nobody"))
    assert "5,000 infeasible" in seen.text
    assert "… (5,000 in all)" in seen.text
    assert len(seen.text) < 1_000


def test_a_report_of_nothing() -> None:
    assert "no instance" in read(layer_of("").report).text


def test_a_monitor() -> None:
    layer = layer_of("")
    with cvxfold.Monitor(layer) as monitor:
        assert "0 calls" in read(monitor).text
        for _ in range(3):
            called(layer)
    seen = read(monitor)
    for words in (
        "3 calls, 12 gradients",
        "3 degenerate",
        "3 no solution",
        "backward pass: degenerate in 3 calls",
    ):
        assert words in seen.text
    assert f"residual, worst {monitor.to_dict()['backward/residual_max']:.1e}" in seen.text
    monitor.complaints["backward pass: degenerate"] = (1, HOSTILE)
    assert HOSTILE in read(monitor).text


def test_an_analysis() -> None:
    values = torch.tensor([[1.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    analysis = cvxfold.analyze(layer_of(""), values, costs=False)
    seen = read(analysis)
    assert "2 instances 1 converged 1 degenerate" in seen.text
    cells = [cell.strip() for line in str(analysis).splitlines() if "│" in line for cell in line.split("│")]
    assert len(cells) > 40
    for cell in cells:
        assert cell in seen.text


def test_a_comparison() -> None:
    comparison = compared("dense_qp20")
    first, *others = comparison.rows
    named = replace(first, name=f"cvxfold {HOSTILE}", verdicts=[Verdict.SLOW, *(first.verdicts or [])[1:]])
    failed = replace(others[-1], error="<i>no</i>", solution=None, gradients=None)
    seen = read(replace(comparison, rows=(named, *others[:-1], failed)))
    assert named.name in seen.text
    assert "1 slow" in seen.text
    assert "fails" in seen.text
    assert "<i>no</i>" in seen.text
    for row in others[:-1]:
        assert f"{row.name} {row.solution_difference:.1e} {row.gradient_difference:.1e}" in seen.text


def test_a_folded_iteration() -> None:
    def nearest(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return (x - 0.5 * (x - c)).clamp(0, 1)

    nearest.__qualname__ = HOSTILE
    folded = cvxfold.fold(nearest, start=torch.zeros(3), tol=1e-5)
    seen = read(folded)
    assert HOSTILE in seen.text
    assert "start=a tensor 3" in seen.text
    assert "tol=1e-05" in seen.text
    c = torch.tensor([-1.0, 0.3, 2.0], requires_grad=True)
    folded(c).sum().backward()
    assert "1 solved" in read(folded).text
    assert "contraction rate" in read(folded.report).text
