"""Progress: nothing where nobody looks, a bar in a terminal and in a notebook once it takes long."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.display import progress
from cvxfold.studies.bench.run import bench
from cvxfold.studies.bench.settings import BenchSettings
from cvxfold.studies.fuzz.run import fuzz
from cvxfold.torch import CvxpyLayer
from problems.families import minimize

LONG = """
import time
from cvxfold.display import progress
progress.PATIENCE, progress._INTERVAL = {patience}, 0.02
with progress.told({wanted}) as tell:
    tell("the [first] step", 1, 7)
    time.sleep(0.3)
print("done")
"""


def written(patience: float, wanted: bool, terminal: bool) -> tuple[str, str]:
    """What a process prints, and what it writes to standard error, which is a terminal or a pipe."""
    code = LONG.format(patience=patience, wanted=wanted)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    if not terminal:
        environment |= {"FORCE_COLOR": "1"}  # which is no terminal
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        return done.stdout, done.stderr
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, text=True, env=environment,
            check=True,
        )  # fmt: skip
        os.set_blocking(master, False)
        return done.stdout, _all_of(master)
    finally:
        os.close(slave)
        os.close(master)


def _all_of(master: int) -> str:
    found = b""
    try:
        while part := os.read(master, 65_536):
            found += part
    except BlockingIOError:
        pass
    return found.decode()


def test_nothing_is_written_to_a_pipe() -> None:
    assert written(0.05, True, terminal=False) == ("done\n", "")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_a_terminal_sees_what_takes_long() -> None:
    out, seen = written(0.05, True, terminal=True)
    assert out == "done\n"
    assert "the [first] step" in seen
    assert "1/7" in seen
    assert seen.count("\x1b[2K") >= 2  # erased in the end
    assert written(60.0, True, terminal=True) == ("done\n", "")
    assert written(0.05, False, terminal=True) == ("done\n", "")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook is shown, by a kernel that is not there."""
    shown: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            shown.append(html)

    def display(html: Any, display_id: bool) -> Handle:
        assert display_id
        shown.append(html)
        return Handle()

    front = SimpleNamespace(HTML=str, display=display)
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()), display=front)
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", front)
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    monkeypatch.setattr(progress, "_INTERVAL", 0.02)
    return shown


def test_a_notebook_sees_it_and_keeps_nothing(noted: list[str]) -> None:
    with progress.told(True) as tell:
        tell("<b>bold</b>", 2, 5)
        time.sleep(0.3)
    assert len(noted) >= 3
    assert "&lt;b&gt;bold&lt;/b&gt;, 2 of 5, 0 s" in noted[0]
    assert noted[-1] == ""


def test_what_is_short_shows_nothing(noted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    began = time.monotonic()
    with progress.told(True) as tell:
        tell("step", 0, 1)
    assert time.monotonic() - began < 10  # nobody waits for the one who looks
    assert noted == []


def test_it_ends_with_an_error(noted: list[str]) -> None:
    def work() -> None:
        with progress.told(True):
            time.sleep(0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert noted[-1] == ""


def small_layer() -> tuple[CvxpyLayer, torch.Tensor]:
    x, b = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - b), x >= 0), [b], [x])
    return layer, torch.tensor([[1.0, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("wanted", [True, False])
def test_everything_that_takes_long_shows_it_unless_told_not_to(wanted: bool, noted: list[str]) -> None:
    """A hundredth of a second counts as long here."""
    progress.PATIENCE = 0.0
    layer, value = small_layer()
    settings = BenchSettings(families=("portfolio",), peers=("cvxfold",), sizes=(3,), batches=(1,), rounds=1)
    for work in (
        lambda: cvxfold.analyze(layer, value, costs=False, progress=wanted),
        lambda: cvxfold.compare(layer, [value], upstream=(), progress=wanted),
        lambda: fuzz(2, batch=2, progress=wanted),
        lambda: bench(settings, progress=wanted),
    ):
        noted.clear()
        work()
        assert bool(noted) is wanted


def test_a_function_is_told_each_step() -> None:
    layer, value = small_layer()
    steps: list[tuple[str, int, int]] = []
    cvxfold.analyze(layer, value, costs=False, progress=lambda *step: steps.append(step))
    assert [step[0] for step in steps] == ["solving", "spectrum", "rates"]
    steps.clear()
    cvxfold.compare(layer, [value], upstream=(), progress=lambda *step: steps.append(step))
    assert [step[1:] for step in steps] == [(0, 2), (1, 2), (2, 2)]


def test_nothing_is_printed_by_default(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    layer, value = small_layer()
    cvxfold.analyze(layer, value, costs=False)
    cvxfold.compare(layer, [value], upstream=())
    assert capfd.readouterr() == ("", "")
