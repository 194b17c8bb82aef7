"""Arnoldi's process and the forecasts made from it, on dense matrices."""

import numpy as np
import pytest
import torch

from cvxfold.fold import GMRES, LFPI, AdjointMethod, AdjointSettings, Anderson, BiCGSTAB
from cvxfold.studies.analysis.forecast import lfpi_iterations, tried_iterations
from cvxfold.studies.analysis.spectrum import Krylov, arnoldi
from problems.fixed_points import Dense, contraction


def test_arnoldi_on_dense_matrices() -> None:
    phi, start, _ = contraction(3, 12, 0.9, seed=2)
    for i, krylov in enumerate(arnoldi(phi, start)):
        assert krylov.complete
        expected = np.linalg.eigvals(phi.phi[i].numpy())
        found = krylov.eigenvalues(0.0)
        np.testing.assert_allclose(np.sort(np.abs(found)), np.sort(np.abs(expected)), rtol=1e-8)


def test_arnoldi_ends_in_an_invariant_subspace() -> None:
    phi, _, _ = contraction(3, 12, 0.9, seed=2)
    values, vectors = torch.linalg.eig(phi.phi.mT)
    real = values.imag == 0
    for i in range(3):
        first = vectors[i][:, real[i]][:, :1].real.mT  # an eigenvector of Φᵀ: a space of dimension one
        (krylov,) = arnoldi(phi.take(torch.tensor([i])), first.contiguous())
        assert krylov.H.shape == (2, 1)
        assert krylov.complete
        assert krylov.square[0, 0] == pytest.approx(float(values[i][real[i]][0].real), rel=1e-9)


def test_forecasts_on_dense_matrices() -> None:
    phi, start, _ = contraction(3, 30, 0.97, seed=2)
    lfpi = LFPI().solve(phi, start, AdjointSettings(1e-8)).history
    gmres = GMRES().solve(phi, start, AdjointSettings(1e-8)).history
    for i, krylov in enumerate(arnoldi(phi, start)):
        own = lfpi[:, i][lfpi[:, i].isfinite()]
        power = np.linalg.matrix_power(krylov.square, len(own))[:, 0]
        np.testing.assert_allclose(np.linalg.norm(power), own[-1], rtol=1e-5)
        assert abs(lfpi_iterations(krylov, 0.97, 1e-8) - len(own)) <= 0.05 * len(own)
        own = gmres[:, i][gmres[:, i].isfinite()]
        assert tried_iterations(GMRES(), 1, [krylov], np.array([0.03]), 1e-8)[0] == len(own)


def test_no_iterations_are_needed_for_no_gradient() -> None:
    nothing = Krylov(np.zeros((1, 0)))
    assert lfpi_iterations(nothing, 0.0, 1e-6) == 1
    assert tried_iterations(GMRES(), 1, [nothing], np.ones(1), 1e-6) == [1]
    phi, start, _ = contraction(3, 12, 0.9, seed=2)
    (krylov,) = arnoldi(phi.take(torch.tensor([0])), 0 * start[:1])
    assert krylov.H.shape == (1, 0)


@pytest.mark.parametrize(
    ("method", "products", "radius"),
    [(GMRES(restart=8), 1, 0.98), (BiCGSTAB(), 2, 0.95), (Anderson(), 1, 0.98)],  # at 0.98 its rounding shows
)
def test_a_space_that_is_cut_off_is_extrapolated(method: AdjointMethod, products: int, radius: float) -> None:
    """A symmetric Φ: the residuals fall evenly, and half of the steps tell when they will end."""
    m = 200
    generator = torch.Generator().manual_seed(5)
    Q = torch.linalg.qr(torch.randn(m, m, dtype=torch.float64, generator=generator)).Q
    spectrum = torch.linspace(-0.5, radius, m, dtype=torch.float64)
    phi, start = Dense((Q * spectrum @ Q.mT).unsqueeze(0)), Q.sum(1, keepdim=True).mT
    taken = int((~method.solve(phi, start, AdjointSettings(1e-6)).history.isnan()).sum())
    krylovs = arnoldi(phi, start, most=products * taken // 2)
    assert not krylovs[0].complete
    (forecast,) = tried_iterations(method, products, krylovs, np.array([1 - radius]), 1e-6)
    assert forecast == pytest.approx(taken, rel=0.35)
    (whole,) = tried_iterations(method, products, arnoldi(phi, start), np.array([1 - radius]), 1e-6)
    assert whole == pytest.approx(taken, abs=2)
