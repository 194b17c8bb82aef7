"""Time, memory, threads, interruptions: where a limit is met, what is there stays right and is told."""

import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.engines.tensors.engine import TensorEngine
from problems.cases import said
from problems.marks import long, needs_lanes
from problems.processes import run_python
from problems.quadratic import answers, assert_close, quadratic, sample

HUGE, TINY = 1_000_000, 1e-300


def test_time_limit_of_the_forward_pass() -> None:
    layer = quadratic(refine=False, tol=TINY, max_iters=HUGE, time_limit=0.3)
    with pytest.warns(cvxfold.ConvergenceWarning, match="time_limit"):
        layer(*sample(2))
    assert layer.report.forward.instances(cvxfold.Status.UNCONVERGED) == [0, 1]
    assert all(25 < iterations < HUGE for iterations in layer.report.forward.iterations.tolist())


def test_time_limit_of_the_backward_pass() -> None:
    params = sample(2)
    layer = quadratic(backward="lfpi", backward_tol=TINY, backward_max_iters=HUGE, time_limit=0.5)
    (x,) = layer(*params)
    with pytest.warns(cvxfold.ConvergenceWarning, match="backward pass"):
        (found,) = torch.autograd.grad(x.sum(), params[:1])
    backward = layer.report.backward
    assert len(backward.history) < HUGE
    assert not backward.converged.any()
    (exact,) = torch.autograd.grad(quadratic()(*params)[0].sum(), params[:1])
    assert_close([found], [exact], 1e-6)  # it had come far enough by then


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("limit", [1, 24, 25, 26, 77, 130])
def test_max_iters_is_kept_exactly(limit: int, refine: bool) -> None:
    layer = quadratic(refine=refine, tol=TINY, max_iters=limit, on_unconverged="ignore", engine="tensors")
    layer(*sample(3))
    assert layer.report.forward.iterations.tolist() == [limit] * 3


@needs_lanes
@pytest.mark.parametrize("limit", [1, 24, 25, 26, 34, 35, 77, 130])
def test_lanes_and_who_comes_after_them_keep_max_iters_together(limit: int) -> None:
    layer = quadratic(tol=TINY, max_iters=limit, on_unconverged="ignore", engine="lanes")
    layer(*sample(3))
    assert layer.report.forward.status == [cvxfold.Status.UNCONVERGED] * 3
    assert (layer.report.forward.iterations <= limit).all()
    assert (layer.report.forward.iterations > 0).all()


@pytest.mark.parametrize("method", ["gmres", "bicgstab", "anderson", "lfpi", "least_squares"])
@pytest.mark.parametrize("limit", [1, 3])
def test_backward_max_iters_is_kept_exactly(method: Any, limit: int) -> None:
    layer = quadratic(backward=method, backward_tol=TINY, backward_max_iters=limit, on_unconverged="ignore")
    answers(layer, sample(3))
    assert layer.report.backward.iterations.tolist() == [limit] * 3


def crowded(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> list[int]:
    """Let a method of the engine run out of memory above ``most`` instances; the batches it is asked for."""
    original, asked = getattr(TensorEngine, name), []

    def limited(engine: TensorEngine, given: Any, *args: Any, **named: Any) -> Any:
        asked.append(given.batch if name == "solve" else len(given.x))
        if asked[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GB")
        return original(engine, given, *args, **named)

    monkeypatch.setattr(TensorEngine, name, limited)
    return asked


INFEASIBLE = [1, 5]


def partly_infeasible(batch: int) -> list[Tensor]:
    """Parameters of which instances 1 and 5 contradict themselves: a row 0ᵀx = 1."""
    *others, A, b = (p.detach() for p in sample(batch))
    A[INFEASIBLE], b[INFEASIBLE] = 0.0, 1.0
    return [p.requires_grad_() for p in (*others, A, b)]


ALONE: dict[str, Any] = {"refine": False, "penalty": 1.0, "tol": 1e-9}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("solve", ALONE),
        ("linearize", {}),
        pytest.param("solve", {}, marks=long),
        pytest.param("linearize", ALONE, marks=long),
    ],
    ids=str,
)
def test_halves_of_a_batch_are_the_batch(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    params, how = partly_infeasible(11), {"on_unsolvable": "nan", "on_unconverged": "ignore"}
    whole, parts = (quadratic(**options, **how, engine="tensors") for _ in range(2))
    exact = answers(whole, params)
    asked = crowded(monkeypatch, name, 3)
    assert_close(answers(parts, params), exact, 1e-12)
    assert asked[0] > 3
    assert sum(size for size in asked if size <= 3) == (11 if name == "solve" else 9)
    assert parts.report.forward.status == whole.report.forward.status
    assert parts.report.forward.instances(cvxfold.Status.INFEASIBLE) == INFEASIBLE
    assert parts.report.backward.verdict == whole.report.backward.verdict
    if "penalty" in options:  # then each instance goes its own way, to a residual of its own
        assert parts.report.forward.iterations.tolist() == whole.report.forward.iterations.tolist()
        for kind in ("residual", "primal_residual", "dual_residual"):
            solved = whole.report.forward.codes == 0  # the others wander, and their rounding with them
            found, known = (getattr(r.forward, kind)[solved] for r in (parts.report, whole.report))
            torch.testing.assert_close(found, known, rtol=1e-3, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("name", ["solve", "linearize"])
def test_an_instance_that_does_not_fit_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, params = quadratic(engine="tensors"), sample(3)
    with monkeypatch.context() as patched:
        crowded(patched, name, 0)
        with pytest.raises(cvxfold.OutOfMemoryError) as error:
            answers(layer, params)
    said(error, "n = 5", "m = 6", "GiB")
    assert_close(answers(layer, params), answers(quadratic(), params), 1e-9)  # and the layer goes on


def test_finished_halves_keep_no_more_than_the_backward_pass_begins_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not the dense matrices and factors, for which there would be no room beside the other halves."""
    layer, answered = quadratic(engine="tensors"), []
    original = layer.session.solve
    monkeypatch.setattr(
        layer.session, "solve", lambda *given: (answered.append(original(*given)), answered[-1])[1]
    )
    layer(*sample(5))
    assert answered[-1].pieces[0].value.kept is not None
    crowded(monkeypatch, "solve", 2)
    layer(*sample(5))
    assert len(answered[-1].pieces) > 2
    assert all(piece.value.kept is None for piece in answered[-1].pieces)


def test_what_is_kept_of_others_is_named_where_it_leaves_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two instances are done; then not even one fits any more."""
    original, made = TensorEngine.solve, []

    def limited(engine: TensorEngine, program: Any, request: Any) -> Any:
        if program.batch > 1 or len(made) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GB")
        made.append(original(engine, program, request))
        return made[-1]

    monkeypatch.setattr(TensorEngine, "solve", limited)
    with pytest.raises(cvxfold.OutOfMemoryError) as error:
        quadratic(engine="tensors")(*sample(4))
    said(error, "beside 2 instances that are done", "GiB", "use a smaller batch")


def test_messages_name_instances_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def messages(layer: Any, params: list[Tensor]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answers(layer, params)
        return [str(warning.message) for warning in caught]

    params = sample(9)
    options = {"refine": False, "penalty": 1.0, "max_iters": 60, "backward": "lfpi", "backward_max_iters": 40}
    options |= {"engine": "tensors"}  # the other one is done by then
    expected = messages(quadratic(**options), params)
    assert len(expected) == 2
    crowded(monkeypatch, "solve", 2)
    crowded(monkeypatch, "linearize", 1)
    assert messages(quadratic(**options), params) == expected
    with pytest.raises(cvxfold.InfeasibleError) as error:
        quadratic()(*partly_infeasible(9))
    assert error.value.indices == INFEASIBLE


LARGE = """
import resource, torch
from cvxfold.engines.tensors import engine
from problems.layers import family_of, layer_of
torch.set_num_threads(1)
family = family_of("constant_qp")
layer, other = (layer_of(family, engine="tensors") for _ in range(2))
(few,) = family.sample(8, 0)
exact, many = other(few)[0].repeat(2500, 1), few.repeat(2500, 1)
original, asked = engine.solve, []
engine.solve = lambda program, *args: (asked.append(program.batch), original(program, *args))[1]
status = open("/proc/self/status").read().splitlines()
size = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + 200 * 2**20, before[1]))  # the whole takes about 400
(found,) = layer(many)
resource.setrlimit(resource.RLIMIT_AS, before)
torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)
print("ok" if asked[0] == 20_000 and len(asked) > 2 else asked)
"""


@long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space are Linux'")
def test_a_batch_that_does_not_fit_is_solved_in_halves() -> None:
    out, err = run_python(LARGE)
    assert out == "ok\n", out + err[-2_000:]


@pytest.mark.usefixtures("engine")
def test_threads_have_their_own_answers_and_reports() -> None:
    layer, together = quadratic(), threading.Barrier(8)
    jobs = [sample(1 + seed, seed) for seed in range(8)]

    def job(params: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        together.wait()
        found = answers(layer, params)
        together.wait()
        return found, [len(layer.report.forward.status), len(layer.report.backward.verdict)]

    with ThreadPoolExecutor(8) as pool:
        for params, (found, sizes) in zip(jobs, pool.map(job, jobs), strict=True):
            assert sizes == [len(params[1])] * 2
            assert_close(found, answers(quadratic(), params), 1e-9)


PLACES = [f"engines.tensors.{one}" for one in ("splitting.Splitting.run", "newton.FactoredJacobian.at")]
PLACES += ["engines.tensors.finish.multipliers", "engines.tensors.engine.FixedPoint"]
PLACES += ["gradient.adjoint.solve_adjoint", "engines.tensors.engine.screen", "layer.session.differentiate"]
COMPILED = [f"engines.lanes.batch.CompiledBatch.{one}" for one in ("forward", "backward", "points")]
COMPILED += ["layer.session.judge_forward", "layer.session.differentiate"]


@pytest.mark.parametrize("place", PLACES)
def test_an_interrupted_pass_leaves_no_trace(place: str) -> None:
    hard: dict[str, Any] = {"rescue": False, "penalty": 1e3} if "multipliers" in place else {}
    layer, params = quadratic(**hard, engine="tensors"), sample(11, 2)
    answers(layer, sample(4, 1))
    interruption = mock.patch(f"cvxfold.{place}", side_effect=KeyboardInterrupt)
    with interruption, pytest.raises(KeyboardInterrupt):
        answers(layer, sample(11))
    assert_close(answers(layer, params), answers(quadratic(), params), 1e-9)


@needs_lanes
@pytest.mark.parametrize("place", COMPILED)
def test_an_interrupted_pass_of_lanes_leaves_no_trace(place: str) -> None:
    layer, params = quadratic(engine="lanes", on_unsolvable="nan"), sample(11, 2)
    answers(layer, sample(4, 1))
    interruption = mock.patch(f"cvxfold.{place}", side_effect=KeyboardInterrupt)
    with interruption, pytest.raises(KeyboardInterrupt):
        answers(layer, partly_infeasible(11))
    assert_close(answers(layer, params), answers(quadratic(), params), 1e-9)


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
import torch
from problems.quadratic import answers, assert_close, quadratic, sample
torch.set_num_threads(1)
layer, params = quadratic(refine=False, penalty=1.0), sample(3)
print("ready", flush=True)
try:
    layer(*params, solver_args={"eps": 1e-300, "max_iters": 1_000_000})
except KeyboardInterrupt:
    assert_close(answers(layer, params), answers(quadratic(), params), 1e-5)
    print("ok")
"""


@long
def test_control_c() -> None:
    out, err = run_python(INTERRUPTED, signal.SIGINT)
    assert out == "ready\nok\n", err[-2_000:]
