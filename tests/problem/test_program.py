"""Products with the stored matrices and gradients on their entries, against dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from cvxfold.cones.dims import ConeDims
from cvxfold.problem.gradients import DataGradients
from cvxfold.problem.program import Entries, Program
from cvxfold.problem.structure import Moving, Structure, with_columns
from cvxfold.problem.values import ProgramValues

n, m = 4, 5
F64 = torch.float64


def program(instances: int, batch: int, moving: int) -> tuple[Program, Tensor, Tensor]:
    """A program of random stored entries, and its matrices P and A, dense.

    Args:
        instances: that have data of their own; one is shared. moving: entries of A that a parameter reaches.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(rng.random((m, n)) < 0.6)
    A_entries, P_entries = np.stack([rows, columns]), np.array([[0, 0, 2], [0, 1, 3]])
    dims = ConeDims(1, m - 1, (), (), 0, ())
    constants = np.full(len(rows), np.nan)
    structure = Structure(n, m, dims, P_entries, A_entries, constants, np.arange(m))
    sizes = P_entries.shape[1], n, len(rows), m
    on_A = sp.csr_array(np.eye(len(rows), moving + 1) * (np.arange(moving + 1) < moving))
    nothing = [sp.csr_array((size, moving + 1)) for size in sizes]
    entries = Entries(structure, Moving.of(nothing[0], nothing[1], on_A, nothing[3]))
    P, q, A, b = (torch.as_tensor(rng.standard_normal((instances, size))) for size in sizes)
    dense_A, upper = torch.zeros(instances, m, n, dtype=F64), torch.zeros(instances, n, n, dtype=F64)
    dense_A[:, rows, columns], upper[:, *P_entries] = A, P
    return Program(entries, ProgramValues(P, q, A, b), batch), (upper + upper.mT) / 2, dense_A


@pytest.mark.parametrize(("instances", "batch"), [(1, 1), (1, 3), (3, 3)])
def test_products(instances: int, batch: int) -> None:
    made, P, A = program(instances, batch, 0)
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.randn(batch, size, dtype=F64, generator=generator) for size in (n, m))
    Px, Av = made.stationary(x, v)
    assert torch.allclose(Px, (P @ x.unsqueeze(-1)).squeeze(-1), atol=1e-14)
    assert torch.allclose(Av, (A.mT @ v.unsqueeze(-1)).squeeze(-1), atol=1e-14)
    assert torch.allclose(made.rows(x), (A @ x.unsqueeze(-1)).squeeze(-1), atol=1e-14)
    assert torch.allclose(made.sums_of_rows(x), (A.abs() @ x.abs().unsqueeze(-1)).squeeze(-1), atol=1e-14)


@pytest.mark.parametrize("some", [False, True], ids=["all move", "some move"])
def test_gradients_on_what_moves(some: bool) -> None:
    everything = program(2, 2, 0)[0].values.A.shape[1]
    moving = 3 if some else everything
    made, _, _ = program(2, 2, moving)
    generator = torch.Generator().manual_seed(2)
    p, v, x, y = (torch.randn(2, size, dtype=F64, generator=generator) for size in (n, m, n, m))
    rows, columns = made.structure.A_entries
    expected = -(v.unsqueeze(-1) * x.unsqueeze(-2) + y.unsqueeze(-1) * p.unsqueeze(-2))[:, rows, columns]
    found = DataGradients(p, v, x, y, made.entries).on_moving()
    assert torch.allclose(found, expected[:, :moving], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("kept", [6, 3])
def test_columns_in_another_order(kept: int) -> None:
    rng = np.random.default_rng(3)
    dense = rng.standard_normal((7, 6)) * (rng.random((7, 6)) < 0.5)
    order = rng.permutation(6)[:kept]
    place = np.full(6, -1)
    place[order] = np.arange(kept)
    found = with_columns(sp.csr_array(dense), order, place)
    assert np.array_equal(found.toarray(), dense[:, order])
    assert found.has_canonical_format
