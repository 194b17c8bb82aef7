"""Acceleration must not lose what plain iteration finds, and an iteration without an end must be told."""

import pytest
import torch
from torch import Tensor

from cvxfold import ConvergenceWarning, FixedPointError
from problems.folded import make_folded
from problems.marks import long

SEEDS = 30


def nonconvex() -> tuple[Tensor, Tensor]:
    """Q, symmetric and indefinite, ``(B, 5, 5)``, and c ``(B, 5)``."""
    generator = torch.Generator().manual_seed(10)
    R = torch.randn(SEEDS, 5, 5, dtype=torch.float64, generator=generator)
    return (R + R.mT) / 2, torch.randn(SEEDS, 5, dtype=torch.float64, generator=generator)


def descend(x: Tensor, Q: Tensor, c: Tensor) -> Tensor:
    """Projected gradient on ½xᵀQx + cᵀx + Σ sin x over [−1, 1]⁵."""
    return (x - 0.1 * ((Q @ x.unsqueeze(-1)).squeeze(-1) + c + x.cos())).clamp(-1, 1)


def radius(x: Tensor, Q: Tensor) -> Tensor:
    """ρ(Φ): whose rows are zero where a bound is active, ``(B,)``."""
    Phi = torch.eye(5).double() - 0.1 * (Q - torch.diag_embed(x.sin()))
    return torch.linalg.eigvals(Phi * (x.abs() < 1).unsqueeze(-1)).abs().amax(-1)


@pytest.mark.parametrize("batched", [True, pytest.param(False, marks=long)])
def test_an_iteration_that_converges_still_does(batched: bool) -> None:
    """To a local minimum, at that: plain iteration stays nowhere else."""
    Q, c = nonconvex()
    plain = make_folded(
        descend, start=lambda Q, c: 0 * c, batched=True, acceleration=0, on_unconverged="raise"
    )
    assert float(radius(plain(Q, c), Q).max()) < 1
    folded = make_folded(descend, start=lambda Q, c: 0 * c, batched=batched, on_unconverged="raise")
    singly = zip(Q, c, strict=True)
    x = folded(Q, c) if batched else torch.stack([folded(*one) for one in singly])
    assert float((descend(x, Q, c) - x).abs().max()) < 1e-7
    assert float(radius(x, Q).max()) < 1


def test_an_instance_accelerates_as_it_does_alone() -> None:
    Q, c = nonconvex()
    folded = make_folded(descend, start=lambda Q, c: 0 * c, batched=True)
    together, counts = folded(Q, c), folded.report.forward.iterations
    for row in range(0, SEEDS, 5):
        torch.testing.assert_close(folded(Q[row : row + 1], c[row : row + 1])[0], together[row])
        assert int(folded.report.forward.iterations[0]) == int(counts[row])


def test_a_fixed_point_that_the_iteration_leaves_is_told() -> None:
    """x ← Mx + c has one fixed point, and leaves it at the rate 2."""
    M = torch.tensor([[2.0, 0.5], [0.0, -0.5]], dtype=torch.float64)
    c = torch.ones(2, dtype=torch.float64)
    folded = make_folded(lambda x, c: M @ x + c, start=torch.zeros_like)
    with pytest.warns(ConvergenceWarning, match=r"the iteration itself leaves: ρ\(Φ\) ≈ 2;.*acceleration=0"):
        x = folded(c)
    torch.testing.assert_close(x, torch.linalg.solve(torch.eye(2).double() - M, c))
    assert "forward pass: unstable" in folded.report.complaints
    halves = make_folded(lambda x, c: 0.25 * (M @ x) + c, start=torch.zeros_like, on_unconverged="raise")
    halves(c)
    assert halves.report.complaints == {}


@pytest.mark.parametrize("acceleration", [0, 8])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_iteration_without_an_end_ends_early(acceleration: int, sign: float) -> None:
    """x + 1 has no fixed point; that its steps are small beside x does not make it one."""
    calls = []

    def update(x: Tensor) -> Tensor:
        calls.append(1)
        return x + sign

    folded = make_folded(update, start=torch.zeros(2).double(), acceleration=acceleration)
    with pytest.raises(FixedPointError, match="no smaller than at the start") as caught:
        folded()
    assert len(calls) < 1600
    assert "max_iters" not in str(caught.value)
    assert ("acceleration=0" in str(caught.value)) == bool(acceleration)


def test_more_iterations_are_advised_where_they_ran_out_and_only_there() -> None:
    def slow(x: Tensor) -> Tensor:
        return 0.99 * x + 0.01 * x.cos()

    folded = make_folded(slow, start=torch.zeros(1).double(), acceleration=0, max_iters=20)
    with pytest.warns(ConvergenceWarning, match="raise max_iters or time_limit"):
        folded()
    rounded = make_folded(
        lambda x: 0.5 * x + 1e-4 * torch.where(x > 0, -1.0, 1.0), start=torch.zeros(1).double()
    )  # jumps to and fro across 0
    with pytest.warns(ConvergenceWarning, match="use acceleration=0") as caught:
        rounded()
    assert "max_iters" not in str(caught[0].message)


def test_a_start_of_another_precision_is_named() -> None:
    M = torch.eye(3, dtype=torch.float64)
    start = {"a": torch.zeros(3)}
    folded = make_folded(lambda x, M: {"a": M @ x["a"] / 2}, start=start)
    with pytest.raises(
        TypeError, match=r"start\['a'\]: expected the parameters' dtype, torch.float64, got torch.f"
    ):
        folded(M)
    promoted = make_folded(lambda x, c: 0.5 * x + c, start=torch.zeros(3))
    with pytest.raises(TypeError, match=r"start: expected the parameters' dtype, torch\.float64"):
        promoted(M[0])
    mixed = make_folded(lambda x, c: 0.5 * x + c.float(), start=torch.zeros(3))
    torch.testing.assert_close(mixed(M[0]), 2 * M[0].float())
