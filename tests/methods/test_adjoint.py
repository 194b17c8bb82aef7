"""The fold engine on fixed-point iterations that have nothing to do with cones."""

import math

import pytest
import torch
from torch import Tensor

from cvxfold.fold import (
    GMRES,
    LFPI,
    METHODS,
    AdjointSettings,
    Auto,
    Direct,
    LeastSquares,
    solve_adjoint,
)
from problems.fixed_points import EXACT, Dense, contraction


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize(("m", "radius"), [(1, 0.5), (12, 0.9), (60, 0.95)])
def test_every_method_solves_the_adjoint_system(method: str, m: int, radius: float) -> None:
    phi, rhs, expected = contraction(5, m, radius)
    adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings(tol=1e-10))
    assert adjoint.converged.all()
    assert (adjoint.residual <= 1e-10).all()
    torch.testing.assert_close(adjoint.w, expected, rtol=1e-7, atol=1e-7)


def test_lfpi_steps_are_unrolled_backpropagation() -> None:
    """K steps of LFPI equal autograd through K iterations u ← Φu + c unrolled at the fixed point."""
    phi, rhs, _ = contraction(3, 8, 0.8)
    steps = 7
    u = torch.zeros(3, 8, dtype=torch.float64)
    c = torch.zeros_like(u, requires_grad=True)
    for _ in range(steps):
        u = phi.jvp(u) + c
    (unrolled,) = torch.autograd.grad(u, c, rhs)
    attempt = LFPI().solve(phi, rhs, AdjointSettings(tol=1e-30, max_iters=steps))
    torch.testing.assert_close(attempt.w, unrolled, rtol=1e-13, atol=1e-13)


def test_lfpi_rate_is_the_spectral_radius() -> None:
    generator = torch.Generator().manual_seed(3)
    Q = torch.linalg.qr(torch.randn(4, 10, 10, dtype=torch.float64, generator=generator))[0]
    radii = torch.tensor([0.3, 0.6, 0.9, 0.97], dtype=torch.float64)
    spectrum = radii.unsqueeze(-1) * torch.linspace(0, 1, 10, dtype=torch.float64) ** 4
    phi = Dense(Q @ torch.diag_embed(spectrum) @ Q.mT)
    rhs = torch.randn(4, 10, dtype=torch.float64, generator=generator)
    adjoint = solve_adjoint(LFPI(), phi, rhs, AdjointSettings(tol=1e-11))
    torch.testing.assert_close(adjoint.rate, radii, rtol=1e-3, atol=0)


def test_lfpi_rate_is_the_spectral_radius_where_residuals_oscillate() -> None:
    """The leading eigenvalues are complex, in a skewed basis, so ‖r‖ goes up and down by a factor of 5."""
    radii, angles = [0.8, 0.9, 0.95], [0.3, 1.0, 0.11]
    phi = 0.2 * torch.eye(8, dtype=torch.float64).repeat(3, 1, 1)
    for block, radius, angle in zip(phi, radii, angles, strict=True):
        c, s = radius * math.cos(angle), radius * math.sin(angle)
        block[:2, :2] = torch.tensor([[c, -5 * s], [s / 5, c]])
    generator = torch.Generator().manual_seed(4)
    rhs = torch.randn(3, 8, dtype=torch.float64, generator=generator)
    adjoint = solve_adjoint(LFPI(), Dense(phi), rhs, AdjointSettings(tol=1e-12))
    ratios = adjoint.history[21:31] / adjoint.history[20:30]
    assert (ratios.amax(0) > 1.05 * ratios.amin(0)).all(), "it oscillates"
    torch.testing.assert_close(adjoint.rate, torch.tensor(radii, dtype=torch.float64), rtol=1e-2, atol=0)


def test_each_instance_stops_on_its_own() -> None:
    fast, rhs, _ = contraction(2, 10, 0.2, seed=1)
    slow, _, _ = contraction(1, 10, 0.99, seed=2)
    phi = Dense(torch.cat([fast.phi, slow.phi]))
    adjoint = solve_adjoint(LFPI(), phi, torch.cat([rhs, rhs[:1]]), AdjointSettings(tol=1e-9))
    assert adjoint.converged.all()
    assert (adjoint.iterations[:2] < 0.2 * adjoint.iterations[2]).all()
    assert adjoint.history[-1, :2].isnan().all()
    assert phi.products[-2] == 1  # the last iteration multiplied the slow instance alone


def test_restarted_gmres_goes_on_from_where_it_was() -> None:
    phi, rhs, expected = contraction(4, 40, 0.9)
    adjoint = solve_adjoint(GMRES(restart=7), phi, rhs, AdjointSettings(tol=1e-11))
    assert (adjoint.iterations > 7).all()
    torch.testing.assert_close(adjoint.w, expected, rtol=1e-8, atol=1e-8)


def test_gmres_history_is_the_true_residual() -> None:
    """The residual it reports after k steps is that of the best w in the Krylov space of dimension k."""
    phi, rhs, _ = contraction(1, 30, 0.95)
    history = GMRES().solve(phi, rhs, AdjointSettings(tol=1e-13)).history
    eye = torch.eye(30, dtype=torch.float64)
    S = (eye - phi.phi.mT)[0]
    krylov = [rhs[0] / rhs[0].norm()]
    for k in range(1, 9):
        basis = torch.linalg.qr(torch.stack(krylov, dim=1))[0]
        z = torch.linalg.lstsq(S @ basis, rhs[0].unsqueeze(-1)).solution
        residual = (rhs[0] - (S @ basis @ z).squeeze(-1)).norm() / rhs[0].norm()
        torch.testing.assert_close(history[k - 1, 0], residual, rtol=1e-8, atol=1e-12)
        krylov.append(S @ basis[:, -1])


def test_direct_corrects_a_poor_inverse() -> None:
    phi, rhs, expected = contraction(4, 20, 0.9)
    phi.error = 0.1
    adjoint = solve_adjoint(Direct(), phi, rhs, AdjointSettings(tol=1e-8, max_iters=20))
    torch.testing.assert_close(adjoint.w, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(adjoint.rate, torch.full_like(adjoint.rate, 0.1), rtol=2e-2, atol=0)


def test_auto_goes_on_where_refinement_fails() -> None:
    phi, rhs, expected = contraction(4, 20, 0.9)
    phi.error = 3.0  # refinement would diverge
    adjoint = solve_adjoint(Auto(), phi, rhs, AdjointSettings(tol=1e-10))
    assert adjoint.converged.all()
    assert "gmres" in adjoint.method
    torch.testing.assert_close(adjoint.w, expected, rtol=1e-7, atol=1e-7)


def singular(consistent: bool) -> tuple[Dense, Tensor, Tensor]:
    """I − Φᵀ of rank m − 2, ū in its range or not, and the least-norm least-squares solution."""
    generator = torch.Generator().manual_seed(5)
    S = torch.randn(1, 8, 6, dtype=torch.float64, generator=generator)
    S = S @ torch.randn(1, 6, 8, dtype=torch.float64, generator=generator) / 4
    rhs = torch.randn(1, 8, dtype=torch.float64, generator=generator)
    if consistent:
        rhs = (S @ rhs.unsqueeze(-1)).squeeze(-1)
    expected = (torch.linalg.pinv(S, rtol=1e-10) @ rhs.unsqueeze(-1)).squeeze(-1)
    return Dense(torch.eye(8, dtype=torch.float64) - S.mT), rhs, expected


@pytest.mark.parametrize("consistent", [True, False])
def test_singular_systems_get_the_least_norm_adjoint(consistent: bool) -> None:
    phi, rhs, expected = singular(consistent)
    adjoint = solve_adjoint(LeastSquares(), phi, rhs, AdjointSettings(tol=1e-9))
    torch.testing.assert_close(adjoint.w, expected, rtol=1e-6, atol=1e-6)
    assert bool(adjoint.converged.all()) == consistent


def test_inconsistent_system_is_not_called_converged_by_auto() -> None:
    phi, rhs, _ = singular(consistent=False)
    adjoint = solve_adjoint(Auto(), phi, rhs, AdjointSettings(tol=1e-9))
    assert not adjoint.converged.any()
    assert (adjoint.residual > 1e-3).all()
    assert (adjoint.w.norm(dim=-1) < 1e3 * rhs.norm(dim=-1)).all()


@pytest.mark.parametrize("method", EXACT)
def test_zero_gradient_has_a_zero_adjoint(method: str) -> None:
    phi, rhs, _ = contraction(2, 5, 0.5)
    rhs[0] = 0.0
    adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings())
    assert (adjoint.w[0] == 0).all()
    assert adjoint.residual[0] == 0
    assert adjoint.converged.all()


@pytest.mark.parametrize("method", EXACT)
def test_nan_is_never_converged(method: str) -> None:
    phi, rhs, _ = contraction(2, 5, 0.5)
    rhs[1, 2] = torch.nan
    adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings(max_iters=30))
    assert adjoint.converged.tolist() == [True, False]


def test_too_few_iterations_are_told() -> None:
    phi, rhs, _ = contraction(2, 10, 0.95)
    adjoint = solve_adjoint(LFPI(), phi, rhs, AdjointSettings(tol=1e-9, max_iters=5))
    assert not adjoint.converged.any()
    assert (adjoint.iterations == 5).all()
