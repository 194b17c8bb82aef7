"""Arrays, numbers, noise and nothing at all where parameters are complex, and signs of stacks."""

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer

F64 = torch.float64


def squared(expression: Any) -> Any:
    """Σ |z|²."""
    flat = expression.flatten(order="C")
    return cp.sum_squares(cp.real(flat)) + cp.sum_squares(cp.imag(flat))


def identity(shape: tuple[int, ...], **attributes: Any) -> CvxpyLayer:
    """The nearest complex array to a parameter p: p itself."""
    z, p = cp.Variable(shape, complex=True), cp.Parameter(shape, name="p", **attributes)
    return CvxpyLayer(cp.Problem(cp.Minimize(squared(z - p))), [p], [z])


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.array([1 + 2j, -3j]), torch.complex128),
        (np.array([1 + 2j, -3j], dtype=np.complex64), torch.complex64),
        (np.array([0.1, 2.0]), torch.complex128),
        (torch.tensor([1, -2]), torch.complex64),
        (torch.tensor([True, False]), torch.complex64),
    ],
    ids=str,
)
def test_arrays_and_integers_as_complex_parameters(value: Any, dtype: torch.dtype) -> None:
    (z,) = identity((2,), complex=True)(value)
    expected = torch.as_tensor(value).to(torch.complex128)
    assert z.dtype == dtype
    assert (z - expected).abs().max() < (1e-9 if dtype == torch.complex128 else 1e-6)


@pytest.mark.parametrize("value", [0.1 + 0.2j, 0.1, 3, np.complex128(0.1 + 0.2j)], ids=str)
def test_numbers_as_complex_parameters(value: Any) -> None:
    """In full precision: beside a tensor of float64 a third digit of 0.1 would show float32."""
    z, p, q = cp.Variable(complex=True), cp.Parameter(complex=True), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(squared(z - p - q))), [p, q], [z])
    (found,) = layer(value, torch.zeros((), dtype=F64))
    assert abs(complex(found) - value) < 1e-11


def test_real_numbers_are_no_imaginary_parameters() -> None:
    layer = identity((2,), imag=True)
    for value in (np.ones(2), torch.tensor([1, 2]), 1.0):
        with pytest.raises(TypeError, match=r"\(p\): expected a complex dtype"):
            layer(value)
    found = layer(np.array([1j, -2j]))[0]
    assert (found - torch.tensor([1j, -2j])).abs().max() < 1e-9


def matrix(noise: complex) -> Tensor:
    """Hermitian but for noise below the diagonal."""
    H = torch.tensor([[2.0, 0.5 + 1j, -1j], [0.5 - 1j, -1.0, 0.3], [1j, 0.3, 0.5]], dtype=torch.complex128)
    H[2, 0] += noise
    return H


@pytest.mark.parametrize("noise", [1e-3, 1e-3j])
def test_noise_in_a_hermitian_matrix(noise: complex) -> None:
    """The upper triangle is read, with a word, and has the gradient."""
    layer, H = identity((3, 3), hermitian=True), matrix(noise).requires_grad_()
    with pytest.warns(UserWarning, match=r"\(p\): declared symmetric or Hermitian.*upper triangle"):
        (z,) = layer(H)
    assert (z - matrix(0.0)).abs().max() < 1e-9
    (gradient,) = torch.autograd.grad((z.real + 2 * z.imag.triu()).sum(), H)
    assert gradient.tril(-1).abs().max() == 0.0
    expected = torch.full((3, 3), 2 + 2j).triu(1) + torch.eye(3)
    assert (gradient - expected).abs().max() < 1e-7
    with pytest.raises(ValueError, match="Hermitian"):
        layer(matrix(100 * noise))


def test_an_invalid_instance_is_no_noise() -> None:
    z, p = cp.Variable((3, 3), complex=True), cp.Parameter((3, 3), hermitian=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(squared(z - p))), [p], [z], on_unsolvable="nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = layer(torch.stack([matrix(0.0), matrix(torch.nan), matrix(1.0)]))
    assert found.isnan().flatten(1).all(1).tolist() == [False, True, True]
    assert (found[0] - matrix(0.0)).abs().max() < 1e-9


@pytest.mark.usefixtures("engine")
def test_complex_and_symmetric_leaves_without_entries() -> None:
    """They come back empty, in the dtype of their kind, and a problem around them is what it was."""
    x, z, S = cp.Variable(2), cp.Variable(0, complex=True), cp.Variable((0, 0), symmetric=True)
    a, p = cp.Parameter(2), cp.Parameter(0, complex=True)
    H = cp.Parameter((0, 0), hermitian=True)
    none: Any = z == p
    objective = cp.sum_squares(x - a) + cp.sum(cp.real(z)) + cp.sum(cp.real(H)) + cp.sum(S)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(objective), [none]), [a, p, H], [z, x, S, none.dual_variables[0]]
    )
    empty = torch.zeros(0, dtype=torch.complex128)
    found = layer(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64), empty, empty.reshape(0, 0))
    assert [tuple(each.shape) for each in found] == [(2, 0), (2, 2), (2, 0, 0), (2, 0)]
    assert found[0].dtype == torch.complex128
    assert found[2].dtype == F64
    assert (found[1] - torch.tensor([[1.0, 2.0], [3.0, 4.0]])).abs().max() < 1e-9


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_signs_of_stacks(sign: float) -> None:
    """(± p)₊ entry by entry, whose zeros have no rounding below them, and the multipliers."""
    X, P = cp.Variable((2, 3, 4), nonneg=sign > 0, nonpos=sign < 0), cp.Parameter((2, 3, 4))
    bound: Any = X <= 1
    flat = (X - P).flatten(order="C")
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(flat)), [bound]), [P], [X, bound.dual_variables[0]]
    )
    value = torch.randn(16, 2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    found, dual = layer(value)
    assert bool((sign * found >= 0).all())
    assert bool((dual >= 0).all())
    expected = value.clamp(0, 1) if sign > 0 else value.clamp_max(0)
    assert (found - expected).abs().max() < 1e-8


def test_diagonal_parameters_move_along_their_diagonals() -> None:
    """x = D a; finite differences off the diagonal would be refused."""
    x, D, a = cp.Variable(3), cp.Parameter((3, 3), diag=True, name="D"), np.array([1.0, -2.0, 3.0])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - D @ a)))
    value = torch.diag_embed(torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 1.0]], dtype=F64))
    found = cvxfold.compare(problem, [D], [x], [value], upstream=(), finite_differences=2)
    assert found.right == ("cvxfold auto", "cvxfold lfpi")
