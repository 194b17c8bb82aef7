"""Cholesky factors, pseudoinverses and Gram matrices: singular and broken instances beside good ones."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.cones import ConeDims, ProductCone
from cvxfold.engines.linear.cholesky import Cholesky
from cvxfold.engines.linear.pseudoinverse import pseudoinverse
from cvxfold.engines.tensors.gram import InequalityGram


def matrices() -> Tensor:
    """A regular one, a singular one, one with a NaN, one whose entries span ten orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    L = torch.randn(4, 5, 5, dtype=torch.float64, generator=generator)
    L[1, :, 3:] = 0
    S = L @ L.mT
    S[2, 0, 1] = S[2, 1, 0] = torch.nan
    scale = torch.logspace(-5, 5, 5, dtype=torch.float64)
    S[3] = scale.unsqueeze(-1) * (S[3] + torch.eye(5)) * scale
    return S


def test_cholesky_solves_and_shifts_only_what_is_singular() -> None:
    S = matrices()
    factor = Cholesky.factor(S)
    rhs = torch.arange(20, dtype=torch.float64).reshape(4, 5) + 1
    x = factor.solve(rhs)
    assert factor.shifted
    assert factor.shift[[0, 3]].tolist() == [0, 0]
    assert factor.shift[1] > 0
    for i in (0, 3):
        backward_error = (S[i] @ x[i] - rhs[i]).abs() / (S[i].abs() @ x[i].abs())
        assert backward_error.max() < 1e-14
    assert x[2].isnan().all()
    assert x[[0, 1, 3]].isfinite().all()
    consistent = S[1] @ rhs[1]
    y = factor.take(torch.tensor([1])).solve(consistent.unsqueeze(0))[0]
    torch.testing.assert_close(S[1] @ y, consistent, rtol=1e-6, atol=1e-6)


def test_shared_factor_serves_the_whole_batch() -> None:
    S = matrices()[:1]
    rhs = torch.randn(6, 5, dtype=torch.float64)
    x = Cholesky.factor(S).solve(rhs)
    torch.testing.assert_close(x @ S[0], rhs, rtol=1e-9, atol=1e-9)


def test_pseudoinverse_is_that_of_moore_and_penrose() -> None:
    S = matrices()
    inverse = pseudoinverse(S).values
    for i in (0, 1):
        expected = torch.linalg.pinv(S[i], rtol=1e-10)
        torch.testing.assert_close(inverse[i], expected, rtol=1e-7, atol=1e-7)
    assert inverse[2].isnan().all()


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_weighted_gram_matrix(density: float) -> None:
    rng = np.random.default_rng(1)
    dims = ConeDims(zero=2, nonnegative=12, second_order=(3, 3))
    n, m = 10, dims.rows
    mask = rng.random((m, n)) < density
    mask[5] = False  # an empty row
    mask[6] = True  # a full one
    A = torch.as_tensor(mask * rng.standard_normal((2, m, n)))
    D = ProductCone(dims).derivative(torch.as_tensor(rng.standard_normal((2, m))))
    gram = InequalityGram(np.stack(np.nonzero(mask)), dims, n)(A, D, lambda d: (1 - d) / (d + 0.5))
    weighted = D.apply(lambda d: (1 - d) / (d + 0.5), A)
    expected = A[:, 2:].mT @ weighted[:, 2:]
    torch.testing.assert_close(gram, expected, rtol=1e-12, atol=1e-12)
