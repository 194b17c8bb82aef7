"""What the methods return where they cannot get there: singular systems, divergence, too few iterations."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cvxfold.fold import (
    GMRES,
    LFPI,
    METHODS,
    AdjointSettings,
    Anderson,
    Auto,
    BiCGSTAB,
    Direct,
    LeastSquares,
    solve_adjoint,
)
from problems.fixed_points import Dense, contraction


def singular(batch: int, m: int, seed: int) -> tuple[Dense, Tensor, Tensor]:
    """An averaged Φ with a fixed direction, ū with a part along it, and the least-norm least-squares w."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(batch, m, m, dtype=torch.float64, generator=generator)).Q
    spectrum = torch.linspace(0.1, 0.9, m, dtype=torch.float64)
    spectrum[0] = 1.0
    phi = Q @ torch.diag(spectrum) @ Q.mT
    rhs = torch.randn(batch, m, dtype=torch.float64, generator=generator)
    S = torch.eye(m, dtype=torch.float64) - phi.mT
    least = (torch.linalg.pinv(S, rtol=1e-10) @ rhs.unsqueeze(-1)).squeeze(-1)
    return Dense(phi), rhs, least


class Regularized(Dense):
    """Its approximate inverse is that of a system that is regular by 1e-7, as the Newton factor's is."""

    def inverse_transposed(self, r: Tensor) -> Tensor:
        eye = torch.eye(r.shape[1], dtype=r.dtype)
        return torch.linalg.solve(eye - self.phi.mT + 1e-7 * eye, r.unsqueeze(-1)).squeeze(-1)

    def take(self, index: Tensor) -> "Regularized":
        return Regularized(self.phi[index])


@pytest.mark.parametrize("seed", range(6))
def test_auto_returns_the_least_norm_where_there_is_no_solution(seed: int) -> None:
    """Direct's answer leaves the same residual, with a null vector of any size in it."""
    dense, rhs, least = singular(4, 8, seed)
    adjoint = solve_adjoint(Auto(), Regularized(dense.phi), rhs, AdjointSettings())
    torch.testing.assert_close(adjoint.w, least, rtol=1e-6, atol=1e-8)
    assert not adjoint.converged.any()


def test_least_squares_where_nothing_can_be_gained() -> None:
    """ū is the fixed direction itself: Sᵀū is nothing but rounding, and w is zero."""
    dense, _, _ = singular(3, 8, 0)
    _, vectors = torch.linalg.eigh(dense.phi)
    rhs = vectors[..., -1]
    adjoint = solve_adjoint(LeastSquares(), dense, rhs, AdjointSettings())
    assert adjoint.w.abs().max() < 1e-6
    torch.testing.assert_close(adjoint.residual, torch.ones(3, dtype=torch.float64))


def test_divergence_ends_and_the_best_is_returned() -> None:
    phi, rhs, _ = contraction(2, 10, 0.9)
    adjoint = solve_adjoint(LFPI(step=3.0), phi, rhs, AdjointSettings())
    assert (adjoint.iterations < 1_000).all()
    assert (adjoint.residual <= 1).all()
    assert not adjoint.exhausted.any()


@pytest.mark.parametrize("method", [LFPI(), GMRES(), Anderson(), BiCGSTAB()], ids=str)
def test_who_ran_out_of_iterations(method: Any) -> None:
    phi, rhs, _ = contraction(3, 30, 0.97)
    phi = Dense(torch.cat([phi.phi[:2], 0.01 * phi.phi[2:]]))
    adjoint = solve_adjoint(method, phi, rhs, AdjointSettings(tol=1e-9, max_iters=7))
    assert adjoint.exhausted.tolist() == [True, True, False]
    assert adjoint.converged.tolist() == [False, False, True]
    assert (solve_adjoint(method, phi, rhs, AdjointSettings(tol=1e-9)).exhausted == False).all()  # noqa: E712


def test_a_method_that_stands_still_did_not_run_out() -> None:
    """A rotation by 90 degrees: one step of GMRES gains nothing, and the next cycle would be the same."""
    S = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]], dtype=torch.float64)
    phi = Dense(torch.eye(2, dtype=torch.float64) - S.mT)
    rhs = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert not solve_adjoint(GMRES(restart=1), phi, rhs, AdjointSettings()).exhausted.any()
    regular, rhs, _ = contraction(2, 6, 0.5)
    assert not solve_adjoint(Direct(), regular, rhs, AdjointSettings(tol=1e-17)).exhausted.any()


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"least_squares", "jacobian_free"}))
def test_the_history_ends_with_the_residual_of_what_is_returned(name: str) -> None:
    """After each iteration, not before: so one iteration is one entry, and the rate that of one step."""
    phi, rhs, _ = contraction(3, 12, 0.8)
    adjoint = solve_adjoint(METHODS[name], phi, rhs, AdjointSettings(tol=1e-300, max_iters=1))
    assert adjoint.history.shape == (1, 3)
    torch.testing.assert_close(adjoint.history[0], adjoint.residual, rtol=1e-6, atol=1e-14)
    torch.testing.assert_close(adjoint.rate, adjoint.residual, rtol=1e-6, atol=1e-14)


def test_loss_gradients_too_small_to_square() -> None:
    phi, rhs, exact = contraction(2, 8, 0.8)
    for method in (GMRES(), BiCGSTAB(), Anderson()):
        adjoint = solve_adjoint(method, phi, 1e-170 * rhs, AdjointSettings())
        off = (adjoint.w / 1e-170 - exact).norm(dim=-1) / exact.norm(dim=-1)
        assert (adjoint.converged <= (off < 1e-6)).all()
