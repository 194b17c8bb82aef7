"""Anderson acceleration of the splitting iteration: fewer applications, the same answers, never worse."""

from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.engines.tensors import acceleration
from cvxfold.engines.tensors.acceleration import accelerated
from cvxfold.engines.tensors.splitting import Splitting
from cvxfold.layer.request import CallRequest
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, make_layer
from problems.families import minimize
from problems.marks import long, sliced
from problems.pretend_device import PretendDevice

F64 = torch.float64


@pytest.mark.parametrize(
    "name",
    sliced(
        ["linear_program", "least_absolute", "semidefinite_program", "log_sum_exp"],
        lambda name: name in ("linear_program", "log_sum_exp"),
    ),
)
def test_slow_problems_take_a_fraction_of_the_applications(name: str) -> None:
    known = case(name)
    taken = []
    for memory in (0, 8):
        layer = make_layer(known, refine=False, acceleration=memory, on_unconverged="ignore")
        found = layer(*known.params)
        forward = layer.report.forward
        taken.append(int(forward.iterations.sum()))
        if memory:
            assert all(status is cvxfold.Status.SOLVED for status in forward.status)
            assert (errors(found, known.values) < 1e-4).all()  # the tolerance is 1e-8 on residuals
    assert taken[1] < 0.5 * taken[0]


def _operator(name: str) -> Splitting:
    known = case(name)
    layer = make_layer(known, refine=False, max_iters=30, on_unconverged="ignore")
    _, values, _ = layer.program(*known.params)
    request = CallRequest(len(known.params[0]), layer.options)
    solution = layer.session.answer_to(values, request).whole
    return layer.session.engine.linearize(solution).splitting


@long
def test_far_from_the_cpu_it_is_as_good_and_does_not_wait(monkeypatch: Any) -> None:
    known, taken = case("least_absolute"), []
    with PretendDevice() as device:
        waits, inner = [], acceleration._at_their_own_pace

        def watched(*args: Any) -> torch.Tensor:
            before = device.waited
            found = inner(*args)
            waits.append(device.waited - before)
            return found

        monkeypatch.setattr(acceleration, "_at_their_own_pace", watched)
        for params in (known.params, [device.put(value) for value in known.params]):
            layer = make_layer(known, refine=False, engine="tensors", on_unconverged="ignore")
            found = layer(*params)
            taken.append(int(layer.report.forward.iterations.sum()))
            assert all(status is cvxfold.Status.SOLVED for status in layer.report.forward.status)
    assert (errors([device.get(value) for value in found], known.values) < 1e-4).all()
    assert taken[1] < 1.5 * taken[0]
    assert waits
    assert not any(waits)


@pytest.mark.parametrize("applications", [1, 2, 3, 17, 50])
def test_applications_are_counted(applications: int, monkeypatch: Any) -> None:
    splitting = _operator("linear_program")
    calls, evaluate = [0], Splitting.evaluate

    def counted(self: Splitting, *args: Any) -> Any:
        calls[0] += 1
        return evaluate(self, *args)

    monkeypatch.setattr(Splitting, "evaluate", counted)
    accelerated(splitting, torch.zeros_like(splitting.program.b), applications, 8)
    assert calls[0] == applications


@pytest.mark.parametrize("name", ["linear_program", "many_cones", "portfolio"])
def test_the_residual_never_grows(name: str) -> None:
    splitting = _operator(name)
    u = torch.randn(splitting.program.b.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    before = splitting.evaluate(u).g.norm(dim=-1)
    for _ in range(10):
        u = accelerated(splitting, u, 6, 4)
        after = splitting.evaluate(u).g.norm(dim=-1)
        # The last step is a plain one, which may grow a little in this norm where R is not a multiple of I.
        assert (after <= before * 10**0.5 + 1e-12).all()
        before = after


def test_infeasible_and_unbounded_instances_are_certified() -> None:
    x, c, high = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    problem = minimize(c @ x + 0.5 * cp.square(x[0]), x >= -1, cp.sum(x[:2]) <= high)
    layer = CvxpyLayer(problem, [c, high], [x], refine=False, on_unsolvable="nan")
    costs, highs = torch.ones(4, 3, dtype=F64), torch.ones(4, dtype=F64)
    highs[1], costs[3, 2] = -5, -1
    layer(costs, highs)
    assert layer.report is not None
    statuses = [str(status) for status in layer.report.forward.status]
    assert statuses == ["solved", "infeasible", "solved", "unbounded"]


def test_bad_values_are_named() -> None:
    x = cp.Variable()
    problem = cp.Problem(cp.Minimize(cp.square(x)))
    for bad in (-1, 2.5, True):
        with pytest.raises(ValueError, match="acceleration: expected an integer of at least 0"):
            CvxpyLayer(problem, [], [x], acceleration=bad)  # pyright: ignore[reportArgumentType]
