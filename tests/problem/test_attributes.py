"""Parameters outside of the set that they are declared in."""

from typing import Any

import cvxpy as cp
import numpy as np
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
    P[:, 0, 0] -= 1e-6 * P.abs().amax((1, 2))
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


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("attributes", "good", "bad", "words"),
    [
        ({"bounds": [0, 1]}, (0.0, 1.0), (0.5, 3.0), ("[0, 1]",)),
        ({"bounds": [None, np.array([1.0, -2.0])]}, (1.0, -2.0), (-5.0, -1.0), ("[-inf, 1]",)),
        ({"bounds": [np.array([-1.0, 0.0]), None]}, (-1.0, 9.0), (1.0, -1.0), ("[-1, inf]",)),
        ({"nonneg": True, "bounds": [-1, 1]}, (0.0, 1.0), (0.0, -0.5), ("nonneg", "[-1, 1]")),
        ({"boolean": True}, (0.0, 1.0), (1.0, 0.7), ("boolean",)),
        ({"boolean": [(1,)]}, (0.7, 1.0), (1.0, 0.7), ("boolean",)),
        ({"integer": True}, (-3.0, 1e6), (0.5, 1e6), ("integer",)),
        ({"integer": [(0,)]}, (2.0, 0.5), (0.5, 2.0), ("integer",)),
    ],
    ids=str,
)
def test_every_other_attribute(
    attributes: dict[str, Any], good: tuple[float, ...], bad: tuple[float, ...], words: tuple[str, ...]
) -> None:
    """In float32 and float64, by itself and in a batch, with an error and with NaN."""
    x, p = cp.Variable(2), cp.Parameter(2, name="p", **attributes)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - p)), [p], [x])
    lenient = CvxpyLayer(minimize(cp.sum_squares(x - p)), [p], [x], on_unsolvable="nan")
    for dtype in (torch.float32, torch.float64):
        batch = torch.tensor([good, bad, good], dtype=dtype)
        torch.testing.assert_close(layer(batch[0])[0], batch[0])
        with pytest.raises(ValueError, match=r"\(p\)") as error:
            layer(batch)
        said(error, "[1]", *words)
        (found,) = lenient(batch)
        assert found.isnan().all(1).tolist() == [False, True, False]


@pytest.mark.parametrize("attributes", [{"bounds": [0, 1]}, {"boolean": True}, {"integer": True}], ids=str)
def test_declared_sets_up_to_a_finite_difference(attributes: dict[str, Any]) -> None:
    x, p = cp.Variable(2), cp.Parameter(2, **attributes)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - p)), [p], [x])
    layer(torch.tensor([1 + 1e-6, -1e-6], dtype=F64))


def test_large_neighbours_do_not_make_fractions_whole() -> None:
    x, p = cp.Variable(2), cp.Parameter(2, integer=True)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - p)), [p], [x])
    with pytest.raises(ValueError, match="integers"):
        layer(torch.tensor([1e9, 0.5], dtype=F64))


@pytest.mark.parametrize(
    ("declared", "value", "told"),
    [
        ({"nonneg": True}, [[1.0, 2.0], [1.0, -3.5]], "in instances [1], the first of them -3.5 at [1]"),
        ({"nonpos": True}, [[-1.0, 0.25], [4.0, -3.5]], "in instances [0, 1], the first of them 0.25 at [1]"),
        ({"bounds": [0.0, 2.0]}, [[7.0, 1.0]], "in instances [0], the first of them 7 at [0]"),
        ({"integer": True}, [[7.0, 1.5]], "in instances [0], the first of them 1.5 at [1]"),
    ],
)
def test_the_first_value_outside_is_told(declared: dict[str, Any], value: list[Any], told: str) -> None:
    x, c = cp.Variable(2), cp.Parameter(2, name="c", **declared)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c)), [c], [x])
    with pytest.raises(ValueError, match="expected") as error:
        layer(torch.tensor(value, dtype=F64))
    said(error, told)


def test_no_single_value_is_told_of_a_matrix() -> None:
    P = matrices()
    P[1] -= 2 * P[1].diagonal().max() * torch.eye(3, dtype=F64)
    with pytest.raises(ValueError, match=r"got others in instances \[1\]$"):
        quadratic(PSD=True)(P, torch.zeros(3, dtype=F64))
