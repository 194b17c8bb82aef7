"""The splitting's operator under another penalty is that which would be made anew."""

import pytest
import torch

from cvxfold.cones import ProductCone
from cvxfold.cones.dims import ConeDims
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.tensors.gram import InequalityGram
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.splitting import Splitting


@pytest.mark.parametrize("of_A", [1, 3])
def test_another_penalty(of_A: int) -> None:
    n, m, batch = 4, 6, 3
    generator = torch.Generator().manual_seed(0)
    dims = ConeDims(2, m - 2, (), (), 0, ())
    A = torch.randn(of_A, m, n, generator=generator, dtype=torch.float64)
    q, b, u = (torch.randn(batch, size, generator=generator, dtype=torch.float64) for size in (n, m, m))
    places = torch.ones(m, n).nonzero().mT.numpy()
    program = ConeProgram(
        Matrix(torch.eye(n, dtype=torch.float64).unsqueeze(0)), q, Matrix(A), b, ProductCone(dims),
        InequalityGram(places, dims, n),
    )  # fmt: skip
    penalty = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    anew = Splitting(program, penalty)
    other = Splitting(program, torch.ones(1, dtype=torch.float64)).with_penalty(penalty)
    for index in (torch.arange(batch), torch.tensor([2, 0])):
        one, two = anew.take(index), other.take(index)
        assert torch.equal(one.evaluate(u[index]).x, two.evaluate(u[index]).x)
        assert torch.equal(one.size, two.size)
        # M x = q + …, by a matrix of its own.
        M = torch.eye(n, dtype=torch.float64) + A[index % of_A].mT @ (two.R.unsqueeze(-1) * A[index % of_A])
        found = two.solve_normal(q[index])
        assert torch.allclose((M @ found.unsqueeze(-1)).squeeze(-1), q[index], atol=1e-13)
        assert torch.allclose(two.size, M.diagonal(dim1=1, dim2=2).amax(-1), rtol=1e-14)
