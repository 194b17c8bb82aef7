"""Cones: projections by their optimality conditions, derivatives by finite differences."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cvxfold.cones import ConeDims, Nonnegative, ProductCone, SecondOrder, Zero

PRODUCT = ConeDims(zero=2, nonnegative=3, second_order=(4, 4, 3, 1, 2))


def points(dim: int, batch: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, dim, dtype=torch.float64, generator=generator)


def distance_outside(dims: ConeDims, s: Tensor, dual: bool = False) -> Tensor:
    """How far each point is outside K (or K*), written out from the definitions."""
    start = dims.zero + dims.nonnegative
    worst = [torch.zeros(len(s), dtype=s.dtype)]
    if dims.zero and not dual:
        worst.append(s[:, : dims.zero].abs().amax(1))
    worst.extend(-s[:, row] for row in range(dims.zero, start))
    for size in dims.second_order:
        t, z = s[:, start], s[:, start + 1 : start + size]
        worst.append(z.norm(dim=1) - t)
        start += size
    return torch.stack(worst).amax(0)


@settings(max_examples=50, deadline=None)
@given(
    zero=st.integers(0, 3),
    nonnegative=st.integers(0, 3),
    second_order=st.lists(st.integers(1, 5), max_size=4),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-8, 1.0, 1e8]),
)
def test_projection_satisfies_its_optimality_conditions(
    zero: int, nonnegative: int, second_order: list[int], seed: int, scale: float
) -> None:
    """s ∈ K, s − u ∈ K*, sᵀ(s − u) = 0: these three have one solution, the projection."""
    dims = ConeDims(zero, nonnegative, tuple(second_order))
    u = points(dims.rows, 6, seed, scale)
    s = ProductCone(dims).project(u)
    assert s.shape == u.shape
    assert (distance_outside(dims, s) <= 1e-14 * scale).all()
    assert (distance_outside(dims, s - u, dual=True) <= 1e-14 * scale).all()
    assert ((s * (s - u)).sum(1).abs() <= 1e-14 * scale**2 * max(1, dims.rows)).all()


def test_projection_leaves_points_of_the_cone_alone() -> None:
    cone = ProductCone(PRODUCT)
    s = cone.project(points(cone.dim, 20, 0))
    torch.testing.assert_close(cone.project(s), s, rtol=0, atol=1e-15)


def finite_difference(project: Callable[[Tensor], Tensor], u: Tensor, step: float = 1e-6) -> Tensor:
    """Jacobians ``(B, m, m)`` by central differences."""
    directions = torch.eye(u.shape[1], dtype=u.dtype)
    columns = [(project(u + step * d) - project(u - step * d)) / (2 * step) for d in directions]
    return torch.stack(columns, dim=2)


@pytest.mark.parametrize("cone", [Zero(3), Nonnegative(4), SecondOrder(2, 5), ProductCone(PRODUCT)])
def test_derivative_is_the_finite_difference(cone: Zero | Nonnegative | SecondOrder | ProductCone) -> None:
    u = points(cone.dim, 40, 1)
    eye = torch.eye(cone.dim, dtype=u.dtype).expand(40, -1, -1)
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
    torch.testing.assert_close(cone.project(u.float()).double(), cone.project(u), rtol=1e-5, atol=1e-6)
