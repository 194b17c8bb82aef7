"""The exponential, power and semidefinite cones where they are difficult: bad scales, faces, ties."""

from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.cones import Exponential, Power, Semidefinite
from cvxfold.studies.fuzz.cones import project_exponential, project_power, project_semidefinite
from problems.cone_points import EXPONENTIAL_EDGES, POWER_EDGES, scaled


def project_exactly(u: list[float]) -> list[float]:
    """The exponential cone's projection by bisection with 60 digits."""
    with mp.workdps(60):
        r, s, t = (mp.mpf(v) for v in u)
        if s > 0 and s * mp.exp(r / s) <= t:
            return u
        if r > 0 and r * mp.exp(s / r - 1) <= -t:
            return [0.0, 0.0, 0.0]
        if r <= 0 and s <= 0:
            return [u[0], 0.0, max(u[2], 0.0)]

        def third(rho: Any) -> Any:
            a, b = (rho - 1) * r + s, r - rho * s
            return a * mp.exp(rho) - b * mp.exp(-rho) - t * (rho * rho - rho + 1)

        low, high = (1 - s / r if r > 0 else None), (r / s if s > 0 else None)
        step = mp.mpf(1)
        while low is None or (high is not None and third(low) > 0):
            low, step = high - step, 2 * step
        while high is None or third(high) < 0:
            high, step = low + step, 2 * step
        for _ in range(260):
            middle = (low + high) / 2
            low, high = (middle, high) if third(middle) < 0 else (low, middle)
        rho = (low + high) / 2
        scale = rho * rho - rho + 1
        if rho < 0:
            y = ((rho - 1) * r + s) / scale
            return [float(rho * y), float(y), float(y * mp.exp(rho))]
        z = t + (r - rho * s) / scale * mp.exp(-rho)
        return [float(rho * z * mp.exp(-rho)), float(z * mp.exp(-rho)), float(z)]


@pytest.mark.parametrize("decades", [0.5, 2, 8])
def test_exponential_projection_to_rounding(decades: float) -> None:
    """Magnitudes from 1e−8 to 1e8 in one point: 1e−14 of its norm."""
    u = scaled(80, decades, 1)
    s = Exponential(1).project(u)
    exact = torch.tensor([project_exactly(point) for point in u.tolist()], dtype=torch.float64)
    assert ((s - exact).norm(dim=1) / u.norm(dim=1)).max() < 1e-14


def test_exponential_near_its_boundary() -> None:
    """Points 1e−16 … 1e−4 outside and inside of the surface, and deep in the polar cone's edge."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 160, dtype=torch.float64, generator=generator)
    y = y.abs() + 1e-3
    z = y * (x / y).clamp(-300, 10).exp()
    nudge = 1 + 10 ** (-4 - 12 * torch.rand(160, dtype=torch.float64, generator=generator)) * x.sign()
    u = torch.stack([x, y, z * nudge], dim=1)
    s = Exponential(1).project(u)
    exact = torch.tensor([project_exactly(point) for point in u.tolist()], dtype=torch.float64)
    assert ((s - exact).norm(dim=1) / u.norm(dim=1)).max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("cone", "edges"),
    [(Exponential(1), EXPONENTIAL_EDGES)] + [(Power((a,)), POWER_EDGES) for a in (0.01, 0.5, 0.7)],
    ids=["exponential", "power 0.01", "power 0.5", "power 0.7"],
)
def test_edges_are_finite_and_proper(cone: Exponential | Power, edges: list, dtype: torch.dtype) -> None:
    """Moreau's decomposition, an orthonormal frame and eigenvalues in [0, 1] wherever u may be."""
    u = torch.tensor(edges, dtype=torch.float64).to(dtype)
    u = u[u.isfinite().all(1)]
    size = u.double().abs().amax(1).clamp_min(1e-300)
    s, D = cone.project(u), cone.derivative(u)
    eps = torch.finfo(dtype).eps
    assert s.isfinite().all()
    inner = ((s.double() / size[:, None]) * ((s.double() - u.double()) / size[:, None])).sum(1)
    assert (inner.abs() <= 8 * eps).all()
    again = cone.project(s).double()
    assert ((again - s.double()).abs().amax(1) <= 8 * eps * size).all()
    assert (D.eigenvalues >= 0).all()
    assert (D.eigenvalues <= 1).all()
    eye = torch.eye(3, dtype=dtype)
    torch.testing.assert_close(D.frame.mT @ D.frame, eye.expand_as(D.frame), rtol=0, atol=8 * eps)


def test_the_faces_of_the_exponential_cone() -> None:
    """Where the projection is onto the quarter plane {x ≤ 0, y = 0, z ≥ 0} D is diagonal."""
    u = torch.tensor([[-1.0, -2, 3], [-1, -2, -3], [1, -1e3, 2]], dtype=torch.float64)
    cone = Exponential(1)
    D = cone.derivative(u).apply(lambda d: d, torch.eye(3, dtype=u.dtype).expand(3, 3, 3))
    expected = torch.diag_embed(torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, 1]], dtype=u.dtype))
    torch.testing.assert_close(D, expected, rtol=0, atol=1e-2)
    torch.testing.assert_close(cone.project(u)[0], torch.tensor([-1.0, 0, 3], dtype=u.dtype))


@pytest.mark.parametrize("alpha", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("decades", [0.5, 1.5])
def test_power_cone_against_the_reference(alpha: float, decades: float) -> None:
    u = scaled(200, decades, 4)
    cone = Power((alpha,))
    s, D = (
        cone.project(u),
        cone.derivative(u).apply(lambda d: d, torch.eye(3, dtype=u.dtype).expand(200, 3, 3)),
    )
    for i, point in enumerate(u.numpy()):
        exact, jacobian, margin = project_power(point, alpha)
        np.testing.assert_allclose(s[i].numpy(), exact, rtol=0, atol=1e-14 * np.abs(point).max())
        if margin > 1e-6 and decades < 1:
            np.testing.assert_allclose(D[i].numpy(), jacobian, rtol=0, atol=1e-8)


def test_exponential_derivative_against_the_reference() -> None:
    u = scaled(300, 1, 5)
    D = Exponential(1).derivative(u).apply(lambda d: d, torch.eye(3, dtype=u.dtype).expand(300, 3, 3))
    checked = 0
    for i, point in enumerate(u.numpy()):
        _, jacobian, margin = project_exponential(point)
        if margin > 1e-6 and np.isfinite(jacobian).all():
            np.testing.assert_allclose(D[i].numpy(), jacobian, rtol=0, atol=1e-7)
            checked += 1
    assert checked > 200


def test_cones_of_a_product_do_not_mix() -> None:
    u = scaled(20, 1, 6).reshape(4, 15)
    alphas = (0.1, 0.3, 0.5, 0.7, 0.9)
    one_by_one = [Power((a,)).project(u[:, 3 * i : 3 * i + 3]) for i, a in enumerate(alphas)]
    torch.testing.assert_close(Power(alphas).project(u), torch.cat(one_by_one, 1), rtol=1e-14, atol=1e-15)


def triangles(matrices: list[np.ndarray]) -> Tensor:
    columns, rows = np.triu_indices(len(matrices[0]))
    scale = np.where(rows == columns, 1.0, 2**0.5)
    return torch.tensor(np.stack([M[rows, columns] * scale for M in matrices]))


def test_equal_eigenvalues() -> None:
    """Repeated eigenvalues of either sign, and the zero matrix's neighbours ±1e−9 I."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    spectra = [
        [2, 2, -1, -1],
        [1, 1, 1, 1],
        [-1, -1, -1, -1],
        [1, 1 + 1e-12, -1, -1 - 1e-12],
        [3, 0.5, -2, -2],
    ]
    u = triangles([Q @ np.diag(values) @ Q.T for values in spectra] + [1e-9 * np.eye(4), -1e-9 * np.eye(4)])
    cone = Semidefinite(1, 4)
    D = cone.derivative(u).apply(lambda d: d, torch.eye(10, dtype=u.dtype).expand(len(u), 10, 10))
    for point, found, s in zip(u.numpy(), D, cone.project(u), strict=True):
        exact, jacobian, _ = project_semidefinite(point)
        np.testing.assert_allclose(s.numpy(), exact, rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.numpy(), jacobian, rtol=0, atol=1e-12)


def test_semidefinite_points_of_the_cone_stay_to_the_last_bit() -> None:
    root = torch.randn(6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = triangles([M.numpy() for M in root @ root.mT + torch.eye(3, dtype=torch.float64)])
    assert torch.equal(Semidefinite(1, 3).project(u), u)
    assert (Semidefinite(1, 3).project(-u) == 0).all()
