"""Where memory does not suffice lanes go on in halves, or say so."""

import sys
from typing import Any

import pytest
import torch

import cvxfold
from cvxfold.engines.lanes.batch import CompiledBatch
from problems.cases import said
from problems.marks import long, needs_lanes
from problems.processes import run_python
from problems.quadratic import answers, assert_close, quadratic, sample

pytestmark = needs_lanes


def crowded(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> list[int]:
    """Let a pass run out of memory above ``most`` instances; the batches it is asked for."""
    original, asked = getattr(CompiledBatch, name), []

    def limited(compiled: CompiledBatch, first: Any, *args: Any, **more: Any) -> Any:
        asked.append(args[0] if name == "forward" else len(first.figures))
        if asked[-1] > most:
            raise MemoryError("out of memory: the pass does not fit")
        return original(compiled, first, *args, **more)

    monkeypatch.setattr(CompiledBatch, name, limited)
    return asked


def partly_infeasible(batch: int) -> list[torch.Tensor]:
    """Instance 1 contradicts itself: a row 0ᵀx = 1. The answer is then not the shortcut's."""
    *others, A, b = (p.detach() for p in sample(batch))
    A[1], b[1] = 0.0, 1.0
    return [p.requires_grad_() for p in (*others, A, b)]


def test_the_forward_pass_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answers(quadratic(engine="lanes"), sample(11))
    asked, layer = crowded(monkeypatch, "forward", 3), quadratic(engine="lanes")
    assert_close(answers(layer, sample(11)), expected, 1e-12)
    assert asked[0] == 11
    assert sum(size for size in asked if size <= 3) == 11
    assert layer.report.forward.status == [cvxfold.Status.SOLVED] * 11
    assert layer.report.engine == "lanes"


def test_the_backward_pass_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"engine": "lanes", "on_unsolvable": "nan"}
    expected = answers(quadratic(**how), partly_infeasible(11))
    asked, layer = crowded(monkeypatch, "backward", 3), quadratic(**how)
    assert_close(answers(layer, partly_infeasible(11)), expected, 1e-12)
    assert asked[0] == 10
    assert sum(size for size in asked if size <= 3) == 10


@pytest.mark.parametrize("name", ["forward", "backward"])
@pytest.mark.parametrize("draw", [sample, partly_infeasible])
def test_an_instance_that_does_not_fit_is_an_error(
    name: str, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, params = quadratic(engine="lanes", on_unsolvable="nan"), draw(3)
    with monkeypatch.context() as patched:
        crowded(patched, name, 0)
        with pytest.raises(cvxfold.OutOfMemoryError) as error:
            answers(layer, params)
    said(error, "out of memory")
    assert isinstance(error.value, torch.OutOfMemoryError)
    found, expected = answers(layer, params), answers(quadratic(on_unsolvable="nan"), params)
    assert_close(found, expected, 1e-9)  # and the layer goes on


def test_second_looks_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor engine folds the doubtful instances again, where all together do not fit."""
    options: dict[str, Any] = {"engine": "lanes", "backward_tol": 1e-300, "on_unconverged": "ignore"}
    expected = answers(quadratic(**options), sample(11))
    layer = quadratic(**options)
    engine: Any = layer.session.engine
    original, asked = engine.linearize, []

    def limited(solution: Any) -> Any:
        asked.append(len(solution.x))
        if asked[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(solution)

    monkeypatch.setattr(engine, "linearize", limited)
    assert_close(answers(layer, sample(11)), expected, 1e-9)
    assert len(layer.report.backward.verdict) == 11


SHORT = """
import resource, torch
from problems.layers import family_of, layer_of
family = family_of("dense_qp100")
params = family.sample(64, 0)
layer, other = (layer_of(family, engine="lanes") for _ in range(2))
torch.set_num_threads(2)
other(*(p[:17] for p in params))  # threads are there
layer.session.shortcut(layer._canonical)
del other
status = open("/proc/self/status").read().splitlines()
size = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA * 2**20, before[1]))
try:
    layer(*params)
except (RuntimeError, MemoryError):
    pass
resource.setrlimit(resource.RLIMIT_AS, before)
print("goes on")
"""


@long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space are Linux'")
@pytest.mark.parametrize("extra", [16, 20, 24])
def test_threads_that_lack_memory_do_not_end_the_process(extra: int) -> None:
    code, exact = (
        SHORT.replace("EXTRA", str(extra)),
        {"MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_ARENA_MAX": "1"},
    )
    out, err = run_python(code, None, **exact)
    assert out == "goes on\n", err[-2_000:]
