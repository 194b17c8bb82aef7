"""Eigenvectors of the kernels, seen by projections: matrices that are easy to get wrong."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.marks import needs_lanes

pytestmark = needs_lanes


def matrices(order: int) -> dict[str, np.ndarray]:
    """Symmetric ones, ``(order, order)``, by what is special about them."""
    rng = np.random.default_rng(order)
    Q = np.linalg.qr(rng.normal(size=(order, order)))[0]
    beside = np.diag(np.ones(order - 1), 1)
    parity = np.arange(order) % 2
    sides = rng.normal(size=(order, order)) * (parity[:, None] == parity)
    spectra = {
        "drawn": rng.normal(size=order),
        "two values": np.where(np.arange(order) % 2, 1.0, -1.0),
        "one direction": -3.0 * (np.arange(order) == 1),
        "graded": (-1.0) ** np.arange(order) * 10.0 ** -np.arange(order),
        "nearly equal": 1 + 1e-9 * np.arange(order),
    }
    named = {name: Q * spectrum @ Q.T for name, spectrum in spectra.items()}
    named["diagonal"] = np.diag(rng.normal(size=order))
    named["zero"] = np.zeros((order, order))
    named["tridiagonal"] = beside + beside.T
    named["two blocks"] = sides + sides.T
    return named


@pytest.mark.parametrize("order", [2, 4, 5, 6, 9, 13, 24])
def test_projection_is_that_of_the_spectrum(order: int) -> None:
    """The nearest such matrix has the positive eigenvalues alone; the same bits alone and in a batch."""
    X, C = cp.Variable((order, order), PSD=True), cp.Parameter((order, order))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C))), parameters=[C], variables=[X])
    drawn = matrices(order)
    batch = torch.as_tensor(np.stack(list(drawn.values())))
    (together,) = layer(batch)
    assert layer.report.engine == "lanes"
    for (name, matrix), found in zip(drawn.items(), together, strict=True):
        w, V = np.linalg.eigh(matrix)
        expected = V * np.maximum(w, 0) @ V.T
        error = np.abs(found.numpy() - expected).max()
        assert error <= 1e-14 * order * max(np.abs(w).max(), 1), name
        assert torch.equal(layer(torch.as_tensor(matrix))[0], found), name
