"""Parameters outside of the set that they are declared in."""

import cvxpy as cp
import pytest
import torch

from cvxfold.layer.options import OnUnconverged
from cvxfold.torch import CvxpyLayer
from problems.cases import said
from problems.families import minimize

F64 = torch.float64


def quadratic(on_unconverged: OnUnconverged = "warn", **attributes: bool) -> CvxpyLayer:
    x, P, q = cp.Variable(3), cp.Parameter((3, 3), name="risk", **attributes), cp.Parameter(3)
    form = cp.quad_form(x, P)
    cost = -form if attributes.get("NSD") else form
    problem = minimize(cost + q @ x, cp.sum(x) == 1)
    return CvxpyLayer(problem, [P, q], [x], on_unconverged=on_unconverged)


def matrices(batch: int = 3) -> torch.Tensor:
    root = torch.randn(batch, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    return root @ root.mT


def test_matrices_that_are_not_symmetric() -> None:
    P, q = matrices(), torch.zeros(3, dtype=F64)
    P[1, 0, 2] += 0.1
    with pytest.raises(ValueError, match="risk") as error:
        quadratic(PSD=True)(P, q)
    said(error, "symmetric", "[1]", "PSD")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_that_are_not_semidefinite(dtype: torch.dtype) -> None:
    P, q = matrices(), torch.zeros(3, dtype=dtype)
    P[2] -= 2 * P[2].diagonal().max() * torch.eye(3, dtype=F64)
    with pytest.raises(ValueError, match="semidefinite") as error:
        quadratic(PSD=True)(P.to(dtype), q)
    said(error, "[2]")
    with pytest.raises(ValueError, match="negative semidefinite"):
        quadratic(NSD=True)(matrices().to(dtype), q)
    quadratic(NSD=True)(-matrices().to(dtype), q)


def test_semidefinite_up_to_rounding_is_semidefinite() -> None:
    """Of rank one, in float32, and moved by a finite difference."""
    v = torch.randn(2, 3, 1)
    layer, q = quadratic(on_unconverged="ignore", PSD=True), torch.zeros(3)
    layer(v @ v.mT, q)
    P = (v @ v.mT).double()
    P[:, 0, 0] -= 1e-6 * P.abs().amax()
    layer(P, q.double())


@pytest.mark.parametrize(
    ("attribute", "good", "bad"),
    [("nonneg", 1.0, -1.0), ("nonpos", -1.0, 1.0), ("pos", 1.0, -1.0), ("neg", -1.0, 1.0)],
)
def test_declared_signs(attribute: str, good: float, bad: float) -> None:
    x, weight = cp.Variable(2), cp.Parameter(name="weight", **{attribute: True})
    sign = 1 if good > 0 else -1
    layer = CvxpyLayer(minimize(sign * weight * cp.sum_squares(x) + cp.sum(x)), [weight], [x])
    layer(torch.tensor([good, good], dtype=F64))
    with pytest.raises(ValueError, match="weight") as error:
        layer(torch.tensor([good, bad], dtype=F64))
    said(error, attribute, "[1]")


def test_symmetric_matrices() -> None:
    X, C = cp.Variable((2, 2), symmetric=True), cp.Parameter((2, 2), symmetric=True)
    layer = CvxpyLayer(minimize(cp.sum_squares(X - C), X >> 0), [C], [X])
    layer(torch.eye(2, dtype=F64))
    with pytest.raises(ValueError, match="symmetric"):
        layer(torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=F64))
