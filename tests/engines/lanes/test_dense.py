"""Programs whose rows fill vectors: right, and the same in packs of one as in a batch."""

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold.engines.lanes.batch as compiled
from cvxfold.torch import CvxpyLayer
from problems.marks import needs_lanes

pytestmark = needs_lanes


def projection(n: int, m: int) -> CvxpyLayer:
    """The x nearest to −q with A x ≤ b."""
    x, A, b, q = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + q @ x), [A @ x <= b])
    return CvxpyLayer(problem, parameters=[A, b, q], variables=[x], engine="lanes")


def drawn(n: int, m: int, batch: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + m)
    A, b, q = (torch.randn(*shape, generator=generator, dtype=torch.float64)
               for shape in ((batch, m, n), (batch, m), (batch, n)))  # fmt: skip
    return [A / n**0.5, 0.05 + b.abs() / 3, q]


def on_active_rows(A: Tensor, b: Tensor, q: Tensor, active: Tensor) -> Tensor:
    """−q − A'y on the active rows, with A x = b there."""
    rows = A[active]
    y = torch.linalg.solve(rows @ rows.T, -rows @ q - b[active])
    return -q - rows.T @ y


@pytest.mark.parametrize(("n", "m"), [(9, 30), (40, 43), (43, 40), (150, 151)])
def test_against_the_closed_form(n: int, m: int) -> None:
    values = drawn(n, m, 3)
    leaves = [value.clone().requires_grad_() for value in values]
    (x,) = projection(n, m)(*leaves)
    weight = torch.cos(torch.arange(n, dtype=torch.float64))
    (x @ weight).sum().backward()
    for k in range(3):
        A, b, q = own = [value[k].clone().requires_grad_() for value in values]
        active = (A @ x[k] > b - 1e-9).detach()
        assert active.any()
        expected = on_active_rows(A, b, q, active)
        assert (x[k] - expected).abs().max() < 1e-12
        (expected @ weight).backward()
        for found, leaf in zip(leaves, own, strict=True):
            assert found.grad is not None
            assert leaf.grad is not None
            assert (found.grad[k] - leaf.grad).abs().max() < 1e-11 * leaf.grad.abs().max()


@pytest.mark.parametrize(("n", "m"), [(40, 43), (150, 151)])
def test_same_bits_in_a_batch(n: int, m: int) -> None:
    def answers(rows: list[int]) -> list[Tensor]:
        leaves = [value[rows].clone().requires_grad_() for value in drawn(n, m, 6)]
        (x,) = projection(n, m)(*leaves)
        return [x.detach(), *torch.autograd.grad((x**2).sum(), leaves)]

    whole = answers([0, 1, 2, 3, 4, 5])
    for rows in ([2], [5, 1], [4, 0, 3]):
        for part, all_of_it in zip(answers(rows), whole, strict=True):
            assert torch.equal(part, all_of_it[rows])


@pytest.mark.parametrize(("n", "alone"), [(40, False), (150, True)])
def test_large_dense_programs_in_packs_of_one(n: int, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    widths, forward = [], compiled.CompiledBatch.forward

    def watched(*args: object, **named: object) -> compiled.Passed:
        passed = forward(*args, **named)  # type: ignore[arg-type]
        widths.append(passed.width)
        return passed

    monkeypatch.setattr(compiled.CompiledBatch, "forward", watched)
    projection(n, n)(*drawn(n, n, 5))
    assert [width == 1 for width in widths] == [alone]
