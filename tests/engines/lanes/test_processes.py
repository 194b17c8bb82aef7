"""Threads, forks, copies, and modules for other instruction sets."""

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from cvxfold.engines.lanes import library
from cvxfold.engines.lanes.binding import functions
from problems.layers import family_of, layer_of
from problems.marks import long, needs_lanes
from problems.processes import run_python
from problems.quadratic import answers, quadratic, sample

FORKED = """
import os, torch
from problems.quadratic import quadratic, sample
layer, params = quadratic(engine="lanes"), sample(40)
def answers():
    torch.set_num_threads(2)
    (x,) = layer(*params)
    found = [x.detach(), *torch.autograd.grad(x.sum(), params)]  # OpenMP would hang in a fork
    torch.set_num_threads(1)
    return found
before = answers()
def same():
    return all(torch.equal(a, b) for a, b in zip(answers(), before))
child = os.fork()
if child == 0:
    os._exit(0 if same() and same() else 1)
_, status = os.waitpid(child, 0)
print("ok" if os.waitstatus_to_exitcode(status) == 0 and same() else "different")
"""


@needs_lanes
def test_threads_share_a_layer() -> None:
    """Two at once, each with two threads of its own where there are as many: each as alone, to the bit."""
    layer, jobs = quadratic(engine="lanes"), [sample(30 + seed, seed) for seed in range(2)]
    expected = [answers(layer, params) for params in jobs]
    together, wrong, before = threading.Barrier(2), [], torch.get_num_threads()

    def job(k: int) -> None:
        together.wait()
        for _ in range(20):
            found = answers(layer, jobs[k])
            wrong.extend(k for a, b in zip(found, expected[k], strict=True) if not torch.equal(a, b))

    torch.set_num_threads(2)
    threads = [threading.Thread(target=job, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_num_threads(before)
    assert wrong == []


@needs_lanes
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@long
def test_a_fork_after_a_call() -> None:
    out, err = run_python(FORKED)
    assert out == "ok\n", err[-2_000:]


@needs_lanes
def test_copies_and_pickles() -> None:
    layer, params = quadratic(engine="lanes"), sample(5)
    fresh = pickle.dumps(layer)
    expected = answers(layer, params)
    others = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), pickle.loads(fresh)]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(answers(other, params), expected, strict=True))
        assert other.report.engine == "lanes"
    del layer
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(answers(other, params), expected, strict=True))


@pytest.fixture
def instruction_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has another module, or none, serve in this process."""

    def forget() -> None:
        library._found.cache_clear()
        functions.cache_clear()

    def choose(name: str) -> None:
        monkeypatch.setenv("CVXFOLD_ISA", name)
        forget()

    yield choose
    monkeypatch.undo()
    forget()


def of_every_kind() -> tuple[set[str], list[Tensor]]:
    """Who serves, and answers of families with cones of each kind."""
    served, found = set(), []
    for name in ("dense_qp20", "many_cones_duals", "mixture", "powers_duals", "constant_qp"):
        family = family_of(name)
        params = [p.requires_grad_() for p in family.sample(9, 4)]
        layer = layer_of(family)
        outputs = layer(*params)
        loss = torch.stack([out.square().sum() for out in outputs]).sum()
        found += [*(out.detach() for out in outputs), *torch.autograd.grad(loss, params)]
        served.add(layer.report.engine)
    return served, found


@needs_lanes
def test_every_instruction_set_gives_the_same_answers(instruction_set: Callable[[str], None]) -> None:
    """And the tensor engine serves where there is none."""
    module = library.library()
    assert module is not None
    served, expected = of_every_kind()
    assert served == {"lanes"}
    names = [name for name in library._files() if library._runs(name, module.cvxfold_level())]
    for name in (*names, "none"):
        instruction_set(name)
        served, found = of_every_kind()
        assert served == {"tensors" if name == "none" else "lanes"}
        for mine, other in zip(found, expected, strict=True):
            tol = (1e-7 if name == "none" else 1e-12) * (1 + float(other.abs().max()))
            torch.testing.assert_close(mine, other, rtol=0, atol=tol)
