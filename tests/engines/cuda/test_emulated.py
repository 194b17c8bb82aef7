"""The text of the CUDA kernels meets the references, on the CPU: loading, packing, both passes, all cones."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cvxpy as cp
import pytest
import torch

from cvxfold.engines.cuda.by_device import Batches
from cvxfold.engines.lanes import library
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors
from problems.cone_families import CONE_FAMILIES
from problems.emulated import EmulatedBatch, Emulator, compiler
from problems.families import FAMILIES

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(compiler is None, reason="no C++ compiler"),
    pytest.mark.skipif(
        library.why_not() is not None, reason="no compiled part, which analyses the structure"
    ),
]


@pytest.fixture(scope="module", params=[32, 4])
def emulator(request: pytest.FixtureRequest, emulator_of: Callable[[int], Emulator]) -> Emulator:
    return emulator_of(request.param)


@pytest.fixture(autouse=True)
def emulated(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EmulatedBatch]]:
    made: list[EmulatedBatch] = []

    def on(self: Any, device: torch.device) -> EmulatedBatch:
        made.append(EmulatedBatch(emulator, *self._made_from))
        self.on = lambda device: made[-1]
        return made[-1]

    monkeypatch.setattr(Batches, "on", on)
    yield made
    assert made


@pytest.mark.parametrize(
    "name",
    [
        "dense_qp20",
        "portfolio",
        "mpc",
        "many_cones_duals",
        "least_absolute",
        "semidefinite_program",
        "mixture",
    ],
)
def test_solutions_and_gradients_meet_the_reference(name: str) -> None:
    truth, family = case(name), (FAMILIES | CONE_FAMILIES)[name]()
    layer = CvxpyLayer(family.problem, family.parameters, family.variables, engine="lanes")
    params = [p.clone().requires_grad_() for p in truth.params]
    outputs = layer(*params)
    loss = torch.stack([(w * v).sum() for w, v in zip(truth.weights, outputs, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, params)
    assert layer.report.engine == "lanes"
    assert errors(list(outputs), truth.values).max() < 1e-9
    assert errors(list(gradients), truth.gradients).max() < 1e-8


def _scalar() -> CvxpyLayer:
    """min ½(x − c)², x ≥ l, x ≤ u: the projection of c onto [l, u]; dx/dc = 1 inside."""
    x, c, low, high = cp.Variable(), cp.Parameter(), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(0.5 * cp.square(x - c)), [x >= low, x <= high])
    return CvxpyLayer(problem, [c, low, high], [x], engine="lanes", on_unsolvable="nan")


@pytest.mark.parametrize("batch", [1, 31, 33, 70])
def test_any_number_of_instances_bad_ones_among_them(batch: int) -> None:
    layer = _scalar()
    c = torch.linspace(-3, 3, batch, dtype=torch.float64).add(0.01).requires_grad_()
    low = -torch.ones(batch, dtype=torch.float64)
    high = torch.ones(batch, dtype=torch.float64)
    if batch > 30:
        low[7], c.data[12] = 2.0, math.nan  # no point; no number
    (x,) = layer(c, low, high)
    good = torch.ones(batch, dtype=torch.bool)
    if batch > 30:
        good[[7, 12]] = False
    torch.testing.assert_close(x[good], c[good].clamp(-1, 1), rtol=1e-10, atol=1e-10)
    assert x[~good].isnan().all()
    (gradient,) = torch.autograd.grad(x[good].sum(), c)
    torch.testing.assert_close(gradient[good], (c[good].abs() < 1).double(), rtol=1e-9, atol=1e-9)


def test_a_warm_start_ends_at_the_same_solutions() -> None:
    layer = _scalar()
    c = torch.linspace(-3, 3, 40, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    for shift in (0.0, 0.1, -0.2):
        (x,) = layer(c + shift, -one, one, warm_start=True)
        torch.testing.assert_close(x, (c + shift).clamp(-1, 1), rtol=1e-10, atol=1e-10)


def test_a_warm_start_by_samples_ends_at_the_same_solutions() -> None:
    layer = _scalar()
    c = torch.linspace(-3, 3, 80, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    for seed in range(3):
        for ids in torch.randperm(80, generator=torch.Generator().manual_seed(seed)).split(40):
            (x,) = layer(c[ids] + 0.1 * seed, -one, one, warm_start=True, samples=ids)
            torch.testing.assert_close(x, (c[ids] + 0.1 * seed).clamp(-1, 1), rtol=1e-10, atol=1e-10)
            assert seed == 0 or not layer.report.forward.iterations.any()


def test_a_shared_matrix_is_shared_and_differentiated(tmp_path: Path) -> None:
    """min ½‖x − c‖², Ax = b with one A for all: x = c − Aᵀ(AAᵀ)⁻¹(Ac − b), and dx/dc the projector."""
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    b, c = (torch.randn(37, n, dtype=torch.float64, generator=generator) for n in (2, 5))
    x, A_, b_, c_ = cp.Variable(5), cp.Parameter((2, 5)), cp.Parameter(2), cp.Parameter(5)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - c_)), [A_ @ x == b_])
    layer = CvxpyLayer(problem, [A_, b_, c_], [x], engine="lanes")
    for given in (A, c):
        given.requires_grad_()
    expected = c - (torch.linalg.solve(A @ A.T, A @ c.T - b.T).T @ A)
    (found,) = layer(A, b, c)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(37, 5, dtype=torch.float64, generator=generator)
    for mine, theirs in zip(
        torch.autograd.grad((found * weights).sum(), [A, c]),
        torch.autograd.grad((expected * weights).sum(), [A, c]),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_short_memory_lets_fewer_work_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In turns, down to one block; and with less than the half of what seemed free."""
    c = torch.linspace(-3, 3, 70, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    asked: list[int] = []
    there = [10**9]

    def scarce(self: EmulatedBatch, count: int) -> torch.Tensor:
        asked.append(count)
        if count > there[0]:
            raise MemoryError
        return torch.zeros(count, dtype=torch.float64)

    monkeypatch.setattr(EmulatedBatch, "_zeros", scarce)
    monkeypatch.setattr("cvxfold.engines.cuda.batch.WARPS", 64)
    (x,) = _scalar()(c, -one, one)
    whole = max(asked)
    for numbers, free in ((whole // 2, 1 << 30), (whole // 3, 1 << 30), (10**9, 1)):
        monkeypatch.setattr(EmulatedBatch, "_free_memory", lambda self, free=free: free)
        there[0] = numbers
        asked.clear()
        (again,) = _scalar()(c, -one, one)
        assert torch.equal(x, again)
        assert max(asked) == whole if free > 1 else max(asked) < whole
    torch.testing.assert_close(x, c.clamp(-1, 1), rtol=1e-10, atol=1e-10)
