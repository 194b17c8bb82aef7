"""An instance's answer is its own to the last bit: alone or in a batch, at any place, on any threads."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cvxfold.engines.lanes.binding import ForwardFigure
from cvxfold.engines.protocol import SolveRequest
from cvxfold.problem.program import Program
from problems.layers import family_of, layer_of
from problems.marks import needs_lanes

pytestmark = needs_lanes
OF_EVERY_CONE = [
    "dense_qp5_duals", "dense_qp20", "portfolio", "mpc", "linear_program_duals", "many_cones_duals",
    "log_sum_exp", "powers_duals", "mixture", "no_rows",
]  # fmt: skip
SHARED = ["constant_qp", "portfolio_mu", "least_absolute"]  # P and A are the batch's


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def answers(name: str, params: list[Tensor], loss_of: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients by a new layer, the loss of an instance being that of its number."""
    layer = layer_of(family_of(name), engine="lanes", on_unsolvable="nan", on_unconverged="ignore")
    leaves = [p.clone().requires_grad_() for p in params]
    outputs = layer(*leaves)
    loss = torch.zeros((), dtype=torch.float64)
    for out in outputs:
        flat = out.reshape(len(out), -1)
        places = torch.arange(flat.shape[1], dtype=flat.dtype)
        weights = torch.stack([torch.cos((1.0 + number) * (places + 1)) for number in loss_of])
        loss = loss + (weights * flat.nan_to_num()).sum()
    assert layer.report.engine == "lanes"
    return [out.detach() for out in outputs], list(torch.autograd.grad(loss, leaves))


def second_pass(name: str, params: list[Tensor]) -> list[int]:
    """Which instances the kernels' first pass leaves to the second."""
    layer = layer_of(family_of(name), engine="lanes", on_unsolvable="nan", on_unconverged="ignore")
    arguments, values, _ = layer.program(*params, invalid_is_error=False)
    batch = arguments.batch or 1
    request = SolveRequest(layer.options.forward)
    kept: Any = layer.session.engine.solve(Program(layer.session.entries, values, batch), request).kept
    return (kept.passed.figures[:, ForwardFigure.SECOND_PASS] > 0).nonzero().squeeze(-1).tolist()


def assert_equal_bits(name: str, params: list[Tensor], whole: tuple[list[Tensor], list[Tensor]]) -> None:
    """Alone, as a pair, and last of five that begin with others: each is as in the whole."""
    batch = len(params[0])
    for rows in ([0], [batch - 1], [batch // 2, 0], [3, 1, 4, 2, 0]):
        found = answers(name, [p[rows] for p in params], rows)
        for part, all_of_it in zip((*found[0], *found[1]), (*whole[0], *whole[1]), strict=True):
            same = (part == all_of_it[rows]) | (part.isnan() & all_of_it[rows].isnan())
            assert same.all(), (rows, (part - all_of_it[rows]).abs().max())


@pytest.mark.parametrize("name", [*OF_EVERY_CONE, *SHARED])
def test_alone_or_in_a_batch(name: str) -> None:
    params = list(family_of(name).sample(11, 3))
    assert_equal_bits(name, params, answers(name, params, list(range(11))))


@pytest.mark.parametrize("name", ["dense_qp5_duals", "many_cones_duals", "powers_duals", "constant_qp"])
def test_on_more_threads(name: str) -> None:
    params, before = list(family_of(name).sample(37, 3)), torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        outputs, gradients = answers(name, params, list(range(37)))
        found.append([*outputs, *gradients])
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(mine, one) for mine, one in zip(other, found[0], strict=True))


@pytest.mark.parametrize("name", ["dense_qp5_duals", "many_cones_duals", "mixture"])
def test_repeated_calls(name: str) -> None:
    layer = layer_of(family_of(name), engine="lanes")
    params = [p.requires_grad_() for p in family_of(name).sample(9, 0)]
    runs = []
    for _ in range(3):
        outputs = layer(*params)
        loss = torch.stack([out.square().sum() for out in outputs]).sum()
        runs.append([*outputs, *torch.autograd.grad(loss, params)])
        layer(*(p.detach()[:4] for p in params))  # something else in between
    for run in runs[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(run, runs[0], strict=True))


def hardened(params: list[Tensor]) -> list[Tensor]:
    """Of a dense QP's parameters (L, q, G, h, A, b): the rows of instance 3 are of very different size."""
    L, q, G, h, A, b = (p.clone() for p in params)
    rows = torch.logspace(-3, 4, G.shape[1], dtype=G.dtype)
    G[3] *= rows[:, None]
    h[3] *= rows
    return [L, q, G, h, A, b]


def spoiled(params: list[Tensor]) -> list[Tensor]:
    """Beside that, instances 1 and 2 have no solution: a row 0ᵀx = 1, and NaN."""
    L, q, G, h, A, b = hardened(params)
    A[1], b[1] = 0.0, 1.0
    q[2, 0] = torch.nan
    return [L, q, G, h, A, b]


def test_beside_a_hard_instance(threads: int) -> None:
    name, numbers, others = "dense_qp20", list(range(11)), [0, 1, 2, *range(4, 11)]
    params = list(family_of(name).sample(11, 3))
    assert second_pass(name, hardened(params)) == [3]
    whole, mixed = answers(name, params, numbers), answers(name, hardened(params), numbers)
    for mine, other in zip((*mixed[0], *mixed[1]), (*whole[0], *whole[1]), strict=True):
        assert torch.equal(mine[others], other[others])
        assert mine.isfinite().all()
    assert_equal_bits(name, hardened(params), mixed)


def test_beside_instances_without_a_solution(threads: int) -> None:
    """Gradients then take another way from the adjoint to the parameters, which rounds otherwise."""
    name, numbers, others = "dense_qp20", list(range(11)), [0, *range(3, 11)]
    params = list(family_of(name).sample(11, 3))
    whole, mixed = answers(name, hardened(params), numbers), answers(name, spoiled(params), numbers)
    assert all(
        torch.equal(mine[others], other[others]) for mine, other in zip(mixed[0], whole[0], strict=True)
    )
    for mine, other in zip(mixed[1], whole[1], strict=True):
        for i in others:
            torch.testing.assert_close(
                mine[i], other[i], rtol=1e-12, atol=1e-14 * float(other[i].abs().max())
            )
        assert (mine[[1, 2]] == 0).all()
    assert all(out[[1, 2]].isnan().all() for out in mixed[0])
    again = answers(name, spoiled(params), numbers)
    for mine, other in zip((*again[0], *again[1]), (*mixed[0], *mixed[1]), strict=True):
        assert torch.equal(mine[others], other[others])
