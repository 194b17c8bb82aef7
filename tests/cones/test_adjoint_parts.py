"""What estimates of an adjoint's error are made of: changes, violations, spreads; D in long double."""

import numpy as np
import pytest
import torch

from cvxfold.cones import ConeDims, ProductCone, ProductDerivative
from cvxfold.studies.fuzz.cones import Wide, cones_of

DIMS = {
    "second-order": ConeDims(second_order=(3,)),
    "second-order 5": ConeDims(second_order=(5,)),
    "semidefinite": ConeDims(semidefinite=(3,)),
    "exponential": ConeDims(exponential=1),
    "power": ConeDims(power=(0.3,)),
    "all": ConeDims(nonnegative=3, second_order=(4, 3), semidefinite=(2,), exponential=1, power=(0.6,)),
}
EXTENDED = np.finfo(Wide).eps < 1e-18  # some machines' long double is double


class _Dims:
    """The reference's names for the same cones."""

    def __init__(self, dims: ConeDims) -> None:
        self.zero, self.nonneg = dims.zero, dims.nonnegative
        self.soc, self.psd = dims.second_order, dims.semidefinite
        self.exp, self.p3d = dims.exponential, dims.power


def wide_derivative(dims: ConeDims, u: np.ndarray) -> np.ndarray:
    D = np.zeros((len(u), len(u)), Wide)
    for cone in cones_of(_Dims(dims)):
        D[cone.rows, cone.rows] = cone.project(u[cone.rows].astype(Wide))[1]
    return D


def derivative(dims: ConeDims, u: np.ndarray) -> ProductDerivative:
    return ProductCone(dims).derivative(torch.from_numpy(u)[None])


def tensor(v: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(v, float))[None]


@pytest.mark.parametrize("name", DIMS)
@pytest.mark.parametrize("step", [1e-2, 1e-6])
def test_changes(name: str, step: float) -> None:
    """To a part of D's own rounding, step or no step; (D' − D) v of two long doubles is exact enough."""
    dims, rng = DIMS[name], np.random.default_rng(len(name))
    for _ in range(20):
        u, v = rng.standard_normal((2, dims.rows))
        then = u + step * rng.standard_normal(dims.rows)
        right = (wide_derivative(dims, then) - wide_derivative(dims, u)) @ v
        found = derivative(dims, u).change(derivative(dims, then), tensor(v))[0].numpy()
        np.testing.assert_allclose(found, right.astype(float), atol=1e-10 * float(np.linalg.norm(v)))


@pytest.mark.skipif(not EXTENDED, reason="long double is double here")
@pytest.mark.parametrize("lead", [1e2, 1e3])
def test_changes_where_one_row_leads(lead: float) -> None:
    """Of a second-order cone whose t and z₁ are large beside the others: c is small there and v is large.

    What of v is along a is the difference's rounding where D' v − D v is taken; here cᵀ of the change keeps
    its digits.
    """
    rng, dims = np.random.default_rng(3), ConeDims(second_order=(4,))
    for _ in range(20):
        small, other = rng.standard_normal((2, 2))
        u = np.array([0.3 * lead, lead, *small])
        then = np.array([0.3 * lead, lead, *(small + 1e-3 * other)])
        a, c = _eigenvectors(u)
        v = (lead * a).astype(float)
        right = (wide_derivative(dims, then) - wide_derivative(dims, u)) @ v.astype(Wide)
        found = derivative(dims, u).change(derivative(dims, then), tensor(v))[0].numpy()
        assert abs(float(c @ (found - right))) <= 1e-5 * abs(float(c @ right))


@pytest.mark.parametrize("name", DIMS)
def test_violations(name: str) -> None:
    dims, rng = DIMS[name], np.random.default_rng(len(name))
    for _ in range(20):
        u, z, v = rng.standard_normal((3, dims.rows))
        D = wide_derivative(dims, u).astype(float)
        found = derivative(dims, u).violation(tensor(z), tensor(v))[0].numpy()
        np.testing.assert_allclose(found, z - D @ z - D @ v, atol=1e-11)


@pytest.mark.parametrize("name", ["second-order", "exponential", "power"])
def test_spreads_are_what_the_terms_let_parts_be(name: str) -> None:
    """(1 − λ)|q|ᵀ terms along each eigenvector q; of a second-order cone along a and c."""
    dims, rng = DIMS[name], np.random.default_rng(len(name))
    for _ in range(20):
        u, terms = rng.standard_normal(3), np.abs(rng.standard_normal(3))
        values, Q = np.linalg.eigh(wide_derivative(dims, u).astype(float))
        if np.diff(values).min() < 1e-6:
            continue
        spread = derivative(dims, u).spread(
            lambda d: 1 - d, tensor(terms), torch.ones(3, dtype=torch.float64)
        )
        along, most = np.abs(Q.T @ spread[0].numpy()), (1 - values) * (np.abs(Q).T @ terms)
        told = (values < 1e-9) | (values > 1 - 1e-9) if name == "second-order" else values < 2
        np.testing.assert_allclose(along[told], most[told], atol=1e-9)


def test_spreads_of_single_rows_and_of_matrices() -> None:
    """Of matrices f(D) of the largest of the terms."""
    dims, rng = ConeDims(nonnegative=3, semidefinite=(3,)), np.random.default_rng(9)
    u, terms = rng.standard_normal(9), np.abs(rng.standard_normal(9))
    signs = rng.choice([-1.0, 1.0], 9)
    D = wide_derivative(dims, u).astype(float)
    spread = derivative(dims, u).spread(lambda d: d, tensor(terms), torch.from_numpy(signs))[0].numpy()
    np.testing.assert_allclose(spread[:3], np.diag(D)[:3] * (signs * terms)[:3])
    np.testing.assert_allclose(spread[3:], D[3:, 3:] @ (signs[3:] * terms[3:].max()), atol=1e-12)


def _eigenvectors(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and c of a second-order cone, in long double."""
    direction = u[1:].astype(Wide) / np.linalg.norm(u[1:].astype(Wide))
    half = np.sqrt(Wide(0.5))
    return half * np.append(Wide(1), direction), half * np.append(Wide(1), -direction)
