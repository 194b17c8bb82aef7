"""Distances to kinks, against branches written out from the cones' definitions."""

import pytest
import torch
from torch import Tensor

from cvxfold.cones import Cone, Exponential, Nonnegative, Power, ProductCone, SecondOrder, Semidefinite, Zero
from problems.cone_points import PRODUCT, matrices, packed, points, scaled

BLOCKS = [
    Nonnegative(1), SecondOrder(1, 1), SecondOrder(1, 2), SecondOrder(1, 5), Semidefinite(1, 1),
    Semidefinite(1, 3), Exponential(1), *(Power((a,)) for a in (0.1, 0.3, 0.5, 0.8)),
]  # fmt: skip
IN_SPACE = [cone for cone in BLOCKS if cone.dim == 3]


def branch(cone: Cone, u: Tensor) -> Tensor:
    """A number for the smooth piece each point lies in, ``(...)`` for ``(..., m)``."""
    if isinstance(cone, Nonnegative):
        return (u[..., 0] > 0).long()
    if isinstance(cone, SecondOrder):
        t, n = u[..., 0], u[..., 1:].norm(dim=-1)
        return (n < t).long() - (n < -t).long()
    if isinstance(cone, Semidefinite):
        X = matrices(u.reshape(-1, cone.dim), cone.order)
        return (torch.linalg.eigvalsh(X) > 0).sum(-1).reshape(u.shape[:-1])
    x, y, z = u.unbind(-1)
    if isinstance(cone, Power):
        (a,) = cone.alphas
        inside = (x > 0) & (y > 0) & (x.clamp_min(0) ** a * y.clamp_min(0) ** (1 - a) > z.abs())
        dual = ((-x).clamp_min(0) / a) ** a * ((-y).clamp_min(0) / (1 - a)) ** (1 - a)
        return inside.long() - ((x < 0) & (y < 0) & (dual > z.abs())).long()
    inside = (y > 0) & (z > 0) & (y.clamp_min(1e-300).log() + x / y < z.clamp_min(1e-300).log())
    dual = y / x.clamp_min(1e-300) - 1 + x.clamp_min(1e-300).log() < (-z).clamp_min(1e-300).log()
    face = (x < 0) & (y < 0)
    return inside + 2 * ((x > 0) & (z < 0) & dual).long() + 3 * face + 1 * (face & (z > 0))


def directions(dim: int, count: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(points(dim, count, seed))


def spread(cone: Cone, batch: int, seed: int) -> Tensor:
    """Points of every branch at several scales and with coordinates of different sizes."""
    u = torch.cat([points(cone.dim, batch, seed), points(cone.dim, batch, seed + 1, 1e-3)])
    return torch.cat([u, scaled(batch, 1.5, seed)]) if cone.dim == 3 else u


@pytest.mark.parametrize("cone", BLOCKS, ids=str)
def test_no_kink_within_the_margin(cone: Cone) -> None:
    u = spread(cone, 150, 1)
    margin = cone.margin(u)
    assert margin.shape == u.shape
    assert (margin == margin[:, :1]).all()
    assert (margin > 0).all()
    way = directions(cone.dim, 1500, 2)
    moved = u[:, None] + 0.99 * margin[:, None] * way
    assert (branch(cone, moved) == branch(cone, u)[:, None]).all()
    assert branch(cone, u).unique().numel() > 1  # there is something to tell apart


@pytest.mark.parametrize("cone", IN_SPACE, ids=str)
def test_a_kink_at_the_margin(cone: Cone) -> None:
    """Some direction of many leads out of the branch soon after the margin: it is not too small."""
    u = spread(cone, 100, 3)
    moved = u[:, None] + 1.02 * cone.margin(u)[:, None] * directions(3, 6000, 4)
    assert (branch(cone, moved) != branch(cone, u)[:, None]).any(1).all()


def test_a_kink_at_the_margin_in_higher_dimensions() -> None:
    """Along the eigenvector of the smallest eigenvalue, and along the normal of the cone."""
    cone, u = Semidefinite(1, 4), points(10, 50, 5)
    omega, Q = torch.linalg.eigh(matrices(u, 4))
    least = omega.abs().argmin(1)
    q = Q.gather(2, least[:, None, None].expand(-1, 4, 1)).squeeze(-1)
    way = packed(q[:, :, None] * q[:, None, :])
    sign = omega.gather(1, least[:, None]).sign()
    assert (branch(cone, u - (1 + 1e-9) * cone.margin(u) * sign * way) != branch(cone, u)).all()
    cone, u = SecondOrder(1, 6), points(6, 50, 6)
    z = torch.nn.functional.normalize(u[:, 1:])
    ways = [torch.cat([a * torch.ones_like(z[:, :1]), b * z], 1) / 2**0.5 for a in (1, -1) for b in (1, -1)]
    out = [branch(cone, u + (1 + 1e-9) * cone.margin(u) * way) != branch(cone, u) for way in ways]
    assert torch.stack(out).any(0).all()


def boundary(cone: Cone) -> tuple[Tensor, Tensor]:
    """Points of K's boundary and its outward unit normals there, in closed form; K° has them swapped."""
    generator = torch.Generator().manual_seed(7)
    if isinstance(cone, SecondOrder):
        z = directions(cone.size - 1, 40, 8)
        one = torch.ones_like(z[:, :1])
        return torch.cat([one, z], 1), torch.cat([-one, z], 1) / 2**0.5
    x, y = 3 * torch.rand(2, 40, dtype=torch.float64, generator=generator) + 0.2
    if isinstance(cone, Power):
        (a,) = cone.alphas
        r = x**a * y ** (1 - a)
        n = torch.stack([-a * r / x, -(1 - a) * r / y, torch.ones_like(r)], 1)
        return torch.stack([x, y, r], 1), torch.nn.functional.normalize(n)
    x = x - 1.5
    e = (x / y).exp()
    n = torch.stack([e, (1 - x / y) * e, -torch.ones_like(e)], 1)
    return torch.stack([x, y, y * e], 1), torch.nn.functional.normalize(n)


@pytest.mark.parametrize("cone", [SecondOrder(1, 2), SecondOrder(1, 5), *IN_SPACE[1:]], ids=str)
@pytest.mark.parametrize("distance", [1e-6, 1e-3, -1e-3, -1e-6])
def test_the_distance_to_a_known_kink(cone: Cone, distance: float) -> None:
    point, normal = boundary(cone)
    expected = torch.full_like(point, abs(distance))
    found = cone.margin(point + distance * normal)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-14)
    found = cone.margin(normal + distance * point / point.norm(dim=1, keepdim=True))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-14)


@pytest.mark.parametrize(("cone", "u"), [
    (SecondOrder(1, 3), [[0, 0, 0], [5, 3, 4], [-5, 3, 4]]),
    (SecondOrder(1, 1), [[0]]),
    (Semidefinite(1, 2), [[0, 0, 0], [1, 0, 0], [0, 0, -1]]),
    (Exponential(1), [[0, 0, 0], [0, 1, 1], [-1, 0, 1], [-1, 0, -1], [0, -1, 1], [0, -1, -1], [-1, -1, 0],
                      [1, 1, -1], [0, 0, 1]]),
    (Power((0.3,)), [[0, 0, 0], [1, 1, 1], [1, 1, -1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, -1, 0]]),
    (Nonnegative(1), [[0]]),
], ids=str)  # fmt: skip
def test_zero_at_kinks(cone: Cone, u: list[list[float]]) -> None:
    assert (cone.margin(torch.tensor(u, dtype=torch.float64)) == 0).all()


def test_products_zero_cones_and_broken_points() -> None:
    cone = ProductCone(PRODUCT)
    u = points(cone.dim, 20, 9)
    margin = cone.margin(u)
    assert (margin[:, :2] == torch.inf).all()
    assert torch.equal(margin[:, 2:5], u[:, 2:5].abs())
    for block in cone.blocks().unique():
        rows = margin[:, cone.blocks() == block]
        assert (rows == rows[:, :1]).all()
    assert torch.equal(margin[:, -3:], Power(PRODUCT.power[-1:]).margin(u[:, -3:]))
    for scale in (1e-8, 1e8):
        torch.testing.assert_close(cone.margin(scale * u) / scale, margin, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(cone.margin(u.float()).double(), margin, rtol=1e-3, atol=1e-5)
    assert cone.margin(u.float()).dtype == torch.float32
    u[3] = torch.nan
    assert cone.margin(u)[3].isnan().all()
    good = torch.arange(20) != 3
    assert torch.equal(cone.margin(u)[good], margin[good])
    assert (Zero(2).margin(torch.tensor([[0.0, torch.nan]])).isnan() == torch.tensor([[False, True]])).all()
