"""Second derivatives of the projections by finite differences and symmetry; `project` by autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cvxfold.cones import (
    Cone,
    ConeDims,
    Exponential,
    Nonnegative,
    Power,
    ProductCone,
    SecondOrder,
    Semidefinite,
    Zero,
)
from cvxfold.cones.autodiff import project
from problems.cone_points import EXPONENTIAL_EDGES, POWER_EDGES, PRODUCT, derivative, packed, points, scaled
from problems.marks import sliced

ALPHAS = (0.05, 0.3, 0.5, 0.8, 0.95)
CONES = [
    Zero(3), Nonnegative(4), SecondOrder(3, 1), SecondOrder(3, 2), SecondOrder(2, 3), SecondOrder(2, 6),
    Semidefinite(3, 1), Semidefinite(3, 2), Semidefinite(2, 4), Semidefinite(1, 7), Exponential(4),
    Power(ALPHAS), ProductCone(PRODUCT), ProductCone(ConeDims()),
]  # fmt: skip
CURVED = [SecondOrder(2, 4), Semidefinite(2, 4), Exponential(4), Power(ALPHAS), ProductCone(PRODUCT)]


def name(cone: object) -> str:
    return type(cone).__name__ + "".join(f" {size}" for size in vars(cone).values() if isinstance(size, int))


def finite_difference(cone: Cone, u: Tensor, v: Tensor, w: Tensor, step: float | Tensor) -> Tensor:
    """Of D(u) v along w, central, with an error of step⁴."""

    def change(h: float | Tensor) -> Tensor:
        return derivative(cone, u + h * w, v) - derivative(cone, u - h * w, v)

    return (8 * change(step) - change(2 * step)) / (12 * step)


@pytest.mark.parametrize("cone", CONES, ids=name)
def test_second_derivative_is_the_finite_difference(cone: Cone) -> None:
    batch = 60
    u, v, w = (scale * points(cone.dim, batch, seed) for seed, scale in ((1, 2.0), (2, 1.0), (3, 1.0)))
    step = 1e-4
    # A kink within reach of the step would be differentiated across.
    far = cone.margin(u).amin(1) > 20 * step if cone.dim else torch.ones(batch, dtype=torch.bool)
    assert far.sum() > batch / 2
    found = cone.second_derivative(u, v, w)
    assert found.shape == u.shape
    expected = finite_difference(cone, u, v, w, step)
    torch.testing.assert_close(found[far], expected[far], rtol=1e-6, atol=1e-8)
    if any(isinstance(cone, type(curved)) for curved in CURVED) and cone.dim > 6:
        assert expected[far].abs().amax() > 0.1


@pytest.mark.parametrize("decades", [0.5, 2, 4])
@pytest.mark.parametrize("cone", [Exponential(1), *(Power((a,)) for a in ALPHAS)], ids=str)
def test_curved_cones_at_bad_scales(cone: Exponential | Power, decades: float) -> None:
    """Coordinates of very different sizes, where the formulas' terms are, too.

    The power cone is C² but on the plane c = 0, which is no kink: steps are taken well within both.
    """
    batch = 300
    u = scaled(batch, decades, 4)
    v, w = (torch.nn.functional.normalize(points(3, batch, seed)) for seed in (5, 6))
    size = u.abs().amax(1, keepdim=True)
    room = cone.margin(u)[:, :1]
    if isinstance(cone, Power):
        room = torch.minimum(room, u[:, 2:].abs())
    far = (room > 1e-6 * size)[:, 0]
    found = cone.second_derivative(u, v, w)
    expected = finite_difference(cone, u, v, w, 2e-3 * room)
    error = (found - expected).norm(dim=1) * room[:, 0]
    assert far.sum() > batch / 2
    assert (error <= 3e-7 * (1 + found.norm(dim=1) * room[:, 0]))[far].all()


@pytest.mark.parametrize("cone", CONES, ids=name)
def test_the_trilinear_form_is_symmetric(cone: Cone) -> None:
    u = points(cone.dim, 40, 7)
    z, v, w = (points(cone.dim, 40, seed) for seed in (8, 9, 10))
    found = cone.second_derivative(u, v, w)
    torch.testing.assert_close(cone.second_derivative(u, w, v), found, rtol=1e-11, atol=1e-11)
    form = (z * found).sum(1)
    for first, second, third in ((v, z, w), (w, v, z)):
        again = (first * cone.second_derivative(u, second, third)).sum(1)
        torch.testing.assert_close(again, form, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        cone.second_derivative(u, v - 2 * z, w), found - 2 * cone.second_derivative(u, z, w)
    )


@pytest.mark.parametrize("cone", CURVED, ids=name)
def test_second_derivative_is_homogeneous(cone: Cone) -> None:
    """Of degree −1, from 1e−8 to 1e8; and D(u + εu) = D(u), so it is zero along u."""
    u, v, w = (points(cone.dim, 20, seed) for seed in (11, 12, 13))
    found = cone.second_derivative(u, v, w)
    for scale in (1e-8, 1e8):
        torch.testing.assert_close(
            scale * cone.second_derivative(scale * u, v, w), found, rtol=1e-9, atol=1e-9
        )
    torch.testing.assert_close(
        cone.second_derivative(u, v, u), torch.zeros_like(u), rtol=0, atol=1e-11 * float(found.abs().amax())
    )


def flat_points(cone: Cone) -> Tensor:
    """Points inside K and inside K°, and for the exponential cone before its face."""
    if isinstance(cone, SecondOrder):
        inside = torch.tensor([3.0, 1, -1, 1]).repeat(2)
    elif isinstance(cone, Semidefinite):
        inside = torch.tensor([3.0, 1, 0, -1, 4, 1, 0, 3, 0, 3]).repeat(2)
    elif isinstance(cone, Power):
        return torch.tensor([[2.0, 3, 1], [-2, -3, 1]], dtype=torch.float64).repeat(1, len(ALPHAS))
    else:
        rows = [[1, 1, 3], [-3, 1, 1], [1, -1, -2], [3, 1, -6], [-1, -2, 3], [-1, -2, -3]]
        return torch.tensor(rows, dtype=torch.float64).repeat(1, 4)
    return torch.stack([inside, -inside]).double()


@pytest.mark.parametrize("cone", CURVED[:-1], ids=name)
def test_zero_where_the_projection_is_linear(cone: Cone) -> None:
    u = flat_points(cone)
    v, w = points(cone.dim, len(u), 14), points(cone.dim, len(u), 15)
    nearby = derivative(cone, u + 1e-3 * w, v) - derivative(cone, u, v)
    assert nearby.abs().amax() < 1e-14  # these are such points
    assert cone.second_derivative(u, v, w).abs().amax() < 1e-14


def kinks(cone: Cone) -> Tensor:
    if isinstance(cone, SecondOrder):
        block = [[0, 0, 0, 0], [1, 1, 0, 0], [-1, 1, 0, 0], [5, 0, 3, 4], [-5, 0, 3, 4], [1, 0, 0, 0]]
        return torch.tensor(block, dtype=torch.float64).repeat(1, 2)
    if isinstance(cone, Semidefinite):
        diagonals = [
            [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, -1], [0, 0, -1, -1], [1, 1, 1, 1], [-2, -2, -2, -2],
            [1, 1, -1, -1], [1e-17, 1, -1e-17, 0], [1, 1e-12, 1e-12, -1e-12],
        ]  # fmt: skip
        u = torch.zeros(len(diagonals), 10, dtype=torch.float64)
        u[:, [0, 4, 7, 9]] = torch.tensor(diagonals, dtype=torch.float64)
        rank_two = torch.eye(2, 4, dtype=torch.float64) + 0.3
        X = rank_two.mT @ rank_two
        return torch.cat([u, packed(X[None]), -packed(X[None])]).repeat(1, 2)
    edges = EXPONENTIAL_EDGES if isinstance(cone, Exponential) else POWER_EDGES
    rows = [edge for edge in edges if max(map(abs, edge)) < 1e200]
    rows = [edge for edge in rows if max(map(abs, edge)) > 1e-200 or not any(edge)]
    return torch.tensor(rows, dtype=torch.float64).repeat(1, cone.dim // 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("cone", CURVED[:-1], ids=name)
def test_finite_at_kinks(cone: Cone, dtype: torch.dtype) -> None:
    u = kinks(cone).to(dtype)
    v, w = points(cone.dim, len(u), 16).to(dtype), points(cone.dim, len(u), 17).to(dtype)
    for scale in (1e-8, 1.0, 1e8):
        found = cone.second_derivative(scale * u, v, w)
        assert found.dtype == dtype
        assert found.isfinite().all()
    zero = cone.second_derivative(torch.zeros_like(u), v, w)
    assert (zero == 0).all()


@pytest.mark.parametrize("values", [
    (1, 1, -1), (2, -1, -1), (1, 1, 1), (-1, -1, -1), (1, 1 + 1e-13, -1), (3, 3, -3), (1e-3, 1, -1e-3),
])  # fmt: skip
def test_repeated_eigenvalues(values: tuple[float, ...]) -> None:
    """Divided differences have no gap to divide by: the finite differences agree as elsewhere."""
    generator = torch.Generator().manual_seed(18)
    Q, _ = torch.linalg.qr(torch.randn(8, 3, 3, dtype=torch.float64, generator=generator))
    X = (Q * torch.tensor(values, dtype=torch.float64)) @ Q.mT
    u = packed(X)
    cone, v, w = Semidefinite(1, 3), points(6, 8, 19), points(6, 8, 20)
    smallest = min(map(abs, values))
    step = 2e-4 * min(1.0, 3 * smallest)
    found, expected = cone.second_derivative(u, v, w), finite_difference(cone, u, v, w, step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8 / smallest)


def test_identity_like_blocks_in_closed_form() -> None:
    """At diag(1, 1, −1) the coefficient [1, 1, −1] is 1/4 and [1, −1, −1] too; written out by hand."""
    cone, u = Semidefinite(1, 3), torch.zeros(1, 6, dtype=torch.float64)
    u[0, [0, 3, 5]] = torch.tensor([1.0, 1, -1], dtype=torch.float64)
    v = torch.zeros_like(u)
    v[0, 2] = 2**0.5  # V = e₁e₃ᵀ + e₃e₁ᵀ, so V² = e₁e₁ᵀ + e₃e₃ᵀ and Z = ¼ · 2 V²
    expected = torch.tensor([[0.5, 0, 0, 0, 0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(cone.second_derivative(u, v, v), expected, rtol=0, atol=1e-15)


def test_the_noise_of_a_singular_matrix_is_not_curvature() -> None:
    """At rank 2 of 4 the zero eigenvalues come out as ±1e−16, whose differences would give 1e16."""
    generator = torch.Generator().manual_seed(28)
    Q, _ = torch.linalg.qr(torch.randn(50, 4, 4, dtype=torch.float64, generator=generator))
    X = Q[:, :, :2] @ Q[:, :, :2].mT
    u = packed(X)
    v, w = (torch.nn.functional.normalize(points(10, 50, seed)) for seed in (29, 30))
    for sign in (1, -1):
        assert Semidefinite(1, 4).second_derivative(sign * u, v, w).norm(dim=1).amax() < 4


@pytest.mark.parametrize("cone", CURVED, ids=name)
def test_a_broken_point_stays_alone(cone: Cone) -> None:
    u, v, w = (points(cone.dim, 4, seed) for seed in (21, 22, 23))
    expected, good = cone.second_derivative(u, v, w), torch.tensor([0, 1, 3])
    u[2] = torch.nan
    assert torch.equal(cone.second_derivative(u, v, w)[good], expected[good])
    assert cone.second_derivative(u, v, w)[2].isnan().any()


def projection(cone: Cone) -> Callable[[Tensor], Tensor]:
    return lambda u: project(cone, u)


MIXED = ProductCone(ConeDims(1, 1, (3,), semidefinite=(2,), exponential=1, power=(0.3,)))


@pytest.mark.parametrize(
    "cone", sliced([MIXED, *(cone for cone in CONES if cone.dim)], lambda cone: cone.dim > 12), ids=name
)
def test_project_passes_autograds_checks(cone: Cone) -> None:
    u = points(cone.dim, 2, 24).requires_grad_()
    assert torch.equal(project(cone, u), cone.project(u.detach()))
    assert torch.autograd.gradcheck(projection(cone), u)
    assert torch.autograd.gradgradcheck(projection(cone), u)


def test_project_under_vmap() -> None:
    """A batch of batches, and Hessians: slices as a larger batch."""
    cone = MIXED
    u = points(cone.dim * 2, 3, 25).reshape(3, 2, cone.dim)
    expected = torch.stack([cone.project(block) for block in u])
    torch.testing.assert_close(torch.vmap(projection(cone))(u), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(
        torch.vmap(projection(cone), in_dims=1, out_dims=1)(u), expected, rtol=0, atol=1e-15
    )
    weight = points(cone.dim, 1, 26)

    def loss(x: Tensor) -> Tensor:
        return (weight * project(cone, x[None])).sum()

    x = u[0, 0]
    hessian = torch.func.jacrev(torch.func.grad(loss))(x)
    eye = torch.eye(cone.dim, dtype=x.dtype)
    columns = cone.second_derivative(x.expand_as(eye), weight.expand_as(eye), eye)
    torch.testing.assert_close(hessian, columns, rtol=1e-12, atol=1e-12)
    assert columns.abs().amax() > 0.01


@pytest.mark.parametrize("cone", [Nonnegative(2), SecondOrder(1, 3)], ids=name)
def test_a_third_derivative_is_refused(cone: Cone) -> None:
    u = points(cone.dim, 1, 27).requires_grad_()
    value = project(cone, u).pow(2).sum()
    (first,) = torch.autograd.grad(value, u, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), u, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"^cvxfold: third"):
        second.sum().backward()
