"""Stacks of symmetric and semidefinite matrices, and diagonal and sparse variables and parameters."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.torch import CvxpyLayer

STACKS = [(3, 3), (2, 2, 2), (4, 2, 2), (2, 3, 3), (3, 2, 2, 2)]


def distance(a: Any, b: Any) -> Any:
    """Σ |a − b|² of any shape."""
    return cp.sum_squares((a - b).flatten(order="C"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def part(value: Tensor, sign: float) -> Tensor:
    """The semidefinite part of the symmetric parts of some matrices; all of it where ``sign`` is 0."""
    values, Q = torch.linalg.eigh((value + value.mT) / 2)
    kept = values if sign == 0 else sign * (sign * values).clamp_min(0)
    return (Q * kept.unsqueeze(-2)) @ Q.mT


@pytest.mark.parametrize("shape", STACKS, ids=str)
@pytest.mark.parametrize(("name", "sign"), [("symmetric", 0.0), ("PSD", 1.0), ("NSD", -1.0)])
def test_projections_onto_sets_of_matrices(name: str, sign: float, shape: tuple[int, ...]) -> None:
    """Their symmetric or semidefinite parts, and the gradients of those."""
    declared: dict[str, Any] = {name: True}
    X, P = cp.Variable(shape, **declared), cp.Parameter(shape)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(distance(X, P))), [P], [X], tol=1e-11)
    weights = random(*shape, seed=1)
    found, true = (random(2, *shape).requires_grad_() for _ in range(2))
    (value,) = layer(found)
    expected = part(true, sign)
    assert (value - expected).abs().max() < 1e-8
    (weights * value).sum().backward()
    (weights * expected).sum().backward()
    assert found.grad is not None
    assert true.grad is not None
    assert (found.grad - true.grad).abs().max() < 1e-6


def test_on_both_engines(engine: str) -> None:
    X, P = cp.Variable((4, 2, 2), symmetric=True), cp.Parameter((4, 2, 2))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(distance(X, P))), [P], [X])
    value = random(4, 2, 2)
    assert (layer(value)[0] - part(value, 0.0)).abs().max() < 1e-8


@pytest.mark.parametrize("name", ["symmetric", "PSD", "NSD", "diag"])
def test_stacks_as_parameters_are_refused(name: str) -> None:
    """cvxpy takes them for a single matrix."""
    X, P = cp.Variable((2, 2, 2)), cp.Parameter((2, 2, 2), **{name: True}, name="P")
    with pytest.raises(ValueError, match=f"parameter P: declared {name} with shape"):
        CvxpyLayer(cp.Problem(cp.Minimize(distance(X, P))), [P], [X])


def test_diagonal_variables_and_parameters(engine: str) -> None:
    X, D, P = cp.Variable((3, 3), diag=True), cp.Parameter((3, 3), diag=True), cp.Parameter((3, 3))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(distance(X, P) + distance(X, D))), [D, P], [X])
    D_value, P_value = torch.diag(random(3)).requires_grad_(), random(3, 3, seed=1)
    (value,) = layer(D_value, P_value)
    assert (value - torch.diag(torch.diagonal(D_value + P_value)) / 2).abs().max() < 1e-8
    value.sum().backward()
    assert D_value.grad is not None
    assert (D_value.grad - torch.eye(3) / 2).abs().max() < 1e-8
    with pytest.raises(ValueError, match="expected a diagonal matrix"):
        layer(torch.ones(3, 3), P_value)


def test_sparse_variables() -> None:
    places = (np.array([0, 2]), np.array([1, 0]))
    X, P = cp.Variable((3, 2), sparsity=places), cp.Parameter((3, 2))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(distance(X, P))), [P], [X])
    value = random(3, 2)
    expected = torch.zeros_like(value)
    expected[places] = value[places]
    assert (layer(value)[0] - expected).abs().max() < 1e-8


def test_sparse_parameters_are_refused() -> None:
    x, P = cp.Variable((3, 2)), cp.Parameter((3, 2), sparsity=(np.array([0]), np.array([1])), name="P")
    with pytest.raises(ValueError, match="parameter P: sparse parameters"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - P))), [P], [x])
