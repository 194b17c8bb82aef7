"""TᵀP_ee T + P_ke T + (P_ke T)ᵀ by entries and by dense products, against numpy."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.reduction.congruence import Congruence


def drawn(rng: np.random.Generator, places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return sp.coo_array((rng.standard_normal(places.shape[1]), tuple(places)), shape).toarray()


@pytest.mark.parametrize(("density", "by_entries"), [(0.0, True), (0.05, True), (0.9, False)])
@pytest.mark.parametrize("batches", [(1, 1, 1), (1, 3, 1), (3, 1, 3)])
def test_sums_are_those_of_dense_matrices(
    density: float, by_entries: bool, batches: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(7)
    e, k = 9, 12
    shapes = [(k, e), (e, e), (e, k)]
    places = [np.stack(np.nonzero(rng.random(shape) < density)) for shape in shapes]
    twice = [np.concatenate([each, each], axis=1) for each in places]  # as both halves of P's diagonal are
    matrices = [
        np.stack(
            [sp.coo_array((rng.standard_normal(at.shape[1]), at), shape).toarray() for _ in range(batch)]
        )
        for at, shape, batch in zip(places, shapes, batches, strict=True)
    ]
    congruence = Congruence(twice[0], twice[1], twice[2], shapes[2])
    assert congruence.by_entries == by_entries
    found = congruence(*(Matrix(torch.tensor(values)) for values in matrices))
    P_ke, P_ee, T = matrices
    cross = P_ke @ T
    expected = T.transpose(0, 2, 1) @ P_ee @ T + cross + cross.transpose(0, 2, 1)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-13)
