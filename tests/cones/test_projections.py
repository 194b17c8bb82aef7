"""Cones: projections by their optimality conditions, derivatives by finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import scs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from problems.cone_points import PRODUCT, matrices, points


def distance_outside(dims: ConeDims, s: Tensor, dual: bool = False) -> Tensor:
    """How far each point is outside K (or K*), or more, written out from the definitions; ``(B,)``."""
    worst = [torch.zeros(len(s), dtype=s.dtype)]
    if dims.zero and not dual:
        worst.append(s[:, : dims.zero].abs().amax(1))
    worst.extend(-s[:, row] for row in range(dims.zero, dims.separable))
    start = dims.separable
    for size in dims.second_order:
        t, z = s[:, start], s[:, start + 1 : start + size]
        worst.append(z.norm(dim=1) - t)
        start += size
    for order in dims.semidefinite:
        size = order * (order + 1) // 2
        worst.append(-torch.linalg.eigvalsh(matrices(s[:, start : start + size], order))[:, 0])
        start += size
    for _ in range(dims.exponential):
        worst.append(outside_exponential(*s[:, start : start + 3].T, dual=dual))
        start += 3
    for alpha in dims.power:
        worst.append(outside_power(*s[:, start : start + 3].T, alpha=alpha, dual=dual))
        start += 3
    return torch.stack(worst).amax(0)


def outside_exponential(x: Tensor, y: Tensor, z: Tensor, dual: bool) -> Tensor:
    """Of {y exp(x/y) ≤ z}; of its dual {−x exp(y/x − 1) ≤ z, x < 0}."""
    if dual:
        x, y = y - x, -x  # the dual is the image of the cone under this map
    height = torch.where(y > 0, y * (x / y.abs().clamp_min(1e-300)).clamp(-700, 700).exp(), 0.0)
    flat = torch.stack([x, -y, -z]).amax(0)  # distance to {x ≤ 0, y = 0, z ≥ 0} where y is rounded
    return torch.where(y > 1e-15 * z.abs(), height - z, flat.maximum(y - 1e-12))


def outside_power(x: Tensor, y: Tensor, z: Tensor, alpha: float, dual: bool) -> Tensor:
    if dual:
        x, y = x / alpha, y / (1 - alpha)
    mean = x.clamp_min(0) ** alpha * y.clamp_min(0) ** (1 - alpha)
    return torch.stack([-x, -y, z.abs() - mean]).amax(0)


@settings(max_examples=50, deadline=None)
@given(
    zero=st.integers(0, 3),
    nonnegative=st.integers(0, 3),
    second_order=st.lists(st.integers(1, 5), max_size=4),
    semidefinite=st.lists(st.integers(1, 4), max_size=3),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-8, 1.0, 1e8]),
)
def test_projection_satisfies_its_optimality_conditions(
    zero: int, nonnegative: int, second_order: list[int], semidefinite: list[int], seed: int, scale: float
) -> None:
    """s ∈ K, s − u ∈ K*, sᵀ(s − u) = 0: these three have one solution, the projection."""
    dims = ConeDims(zero, nonnegative, tuple(second_order), tuple(semidefinite))
    u = points(dims.rows, 6, seed, scale)
    s = ProductCone(dims).project(u)
    assert s.shape == u.shape
    assert (distance_outside(dims, s) <= 3e-14 * scale).all()
    assert (distance_outside(dims, s - u, dual=True) <= 3e-14 * scale).all()
    assert ((s * (s - u)).sum(1).abs() <= 3e-14 * scale**2 * max(1, dims.rows)).all()


def test_projection_leaves_points_of_the_cone_alone() -> None:
    cone = ProductCone(PRODUCT)
    s = cone.project(points(cone.dim, 20, 0))
    torch.testing.assert_close(cone.project(s), s, rtol=0, atol=3e-14)


def finite_difference(project: Callable[[Tensor], Tensor], u: Tensor, step: float = 1e-6) -> Tensor:
    """Jacobians ``(B, m, m)`` by central differences."""
    directions = torch.eye(u.shape[1], dtype=u.dtype)
    columns = [(project(u + step * d) - project(u - step * d)) / (2 * step) for d in directions]
    return torch.stack(columns, dim=2)


CONES = [
    Zero(3), Nonnegative(4), SecondOrder(2, 5), Semidefinite(2, 4), Exponential(3), Power((0.1, 0.5, 0.8)),
    ProductCone(PRODUCT),
]  # fmt: skip


@pytest.mark.parametrize("cone", CONES, ids=lambda cone: type(cone).__name__)
def test_derivative_is_the_finite_difference(cone: Cone) -> None:
    u = 2 * points(cone.dim, 60, 1)
    eye = torch.eye(cone.dim, dtype=u.dtype).expand(60, -1, -1)
    D = cone.derivative(u).apply(lambda d: d, eye)
    torch.testing.assert_close(D, finite_difference(cone.project, u), rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_functions_of_the_derivative(scale: float) -> None:
    """f(D) v for vectors and for matrices, against an eigendecomposition of D from finite differences."""
    cone = ProductCone(PRODUCT)
    u = points(cone.dim, 10, 2, scale)
    values, vectors = torch.linalg.eigh(finite_difference(cone.project, u, 1e-6 * scale))
    derivative = cone.derivative(u)

    def f(d: Tensor) -> Tensor:
        return (1 - d) / (d + 0.1)

    dense = vectors @ torch.diag_embed(f(values)) @ vectors.mT
    v, V = points(cone.dim, 10, 3), points(cone.dim * 4, 10, 4).reshape(10, cone.dim, 4)
    torch.testing.assert_close(
        derivative.apply(f, v), (dense @ v.unsqueeze(-1)).squeeze(-1), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(derivative.apply(f, V), dense @ V, rtol=1e-6, atol=1e-6)
    rows = torch.tensor([7, 2])
    torch.testing.assert_close(
        derivative.take(rows).apply(f, V[rows]), (dense @ V)[rows], rtol=1e-6, atol=1e-6
    )


def test_second_order_cone_branches() -> None:
    """Inside, polar, on both boundaries and at the apex: D has the eigenvalues of its branch."""
    cone = SecondOrder(1, 3)
    u = torch.tensor(
        [[2.0, 1, 0], [-2, 1, 0], [1, 0.6, 0.8], [-1, 0.6, 0.8], [0, 0, 0], [0.0, 3, 4]], dtype=torch.float64
    )
    D = cone.derivative(u).apply(lambda d: d, torch.eye(3, dtype=u.dtype).expand(6, 3, 3))
    eigenvalues = torch.linalg.eigvalsh(D)
    expected = torch.tensor(
        [[1.0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0.5, 1]], dtype=torch.float64
    )
    torch.testing.assert_close(eigenvalues, expected, rtol=0, atol=1e-15)


def test_float32_projection_is_accurate_to_float32() -> None:
    cone = ProductCone(PRODUCT)
    u = points(cone.dim, 50, 5)
    torch.testing.assert_close(cone.project(u.float()).double(), cone.project(u), rtol=1e-5, atol=5e-6)
    D, wide = cone.derivative(u.float()), cone.derivative(u)
    v = points(cone.dim, 50, 6)
    found = D.apply(lambda d: d, v.float()).double()
    torch.testing.assert_close(found, wide.apply(lambda d: d, v), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cone", CONES, ids=lambda cone: type(cone).__name__)
def test_a_broken_point_stays_alone(cone: Cone) -> None:
    u = points(cone.dim, 4, 7)
    expected, v = cone.project(u), points(cone.dim, 4, 8)
    product = cone.derivative(u).apply(lambda d: d, v)
    u[2] = torch.nan
    good = torch.tensor([0, 1, 3])
    assert torch.equal(cone.project(u)[good], expected[good])
    assert torch.equal(cone.derivative(u).apply(lambda d: d, v)[good], product[good])
    if not isinstance(cone, Zero):
        assert cone.project(u)[2].isnan().any()


@pytest.mark.parametrize("dims", [
    ConeDims(second_order=(4,)), ConeDims(semidefinite=(3,)), ConeDims(exponential=2),
    ConeDims(power=(0.3, 0.7)),
])  # fmt: skip
def test_projection_against_scs(dims: ConeDims) -> None:
    """Minimize ½‖s − u‖² over s ∈ K."""
    m = dims.rows
    cones = {"q": list(dims.second_order), "s": list(dims.semidefinite), "ep": dims.exponential}
    data = {"P": sp.eye(m, format="csc"), "A": -sp.eye(m, format="csc"), "b": np.zeros(m)}
    u = points(m, 8, 9)
    found = ProductCone(dims).project(u)
    for point, s in zip(u, found, strict=True):
        problem = data | {"c": -point.numpy()}
        solver = scs.SCS(
            problem, cones | {"p": list(dims.power)}, eps_abs=1e-10, eps_rel=1e-10, verbose=False
        )
        torch.testing.assert_close(s, torch.from_numpy(solver.solve()["x"]), rtol=0, atol=1e-7)
