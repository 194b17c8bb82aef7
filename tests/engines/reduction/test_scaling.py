"""The equilibration evens out what differs by orders of magnitude."""

import torch

from cvxfold.cones import ConeDims, ProductCone
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.reduction.scaling import equilibrate


def test_equilibration_evens_out_ten_orders_of_magnitude() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2, 9, 5, dtype=torch.float64, generator=generator)
    A = A * torch.logspace(-3, 3, 9, dtype=torch.float64).unsqueeze(-1)
    P = torch.diag_embed(torch.logspace(-2, 2, 5, dtype=torch.float64)).unsqueeze(0)
    dims = ConeDims(zero=2, nonnegative=3, second_order=(4,))
    D, E = equilibrate(Matrix(P), Matrix(A), ProductCone(dims).blocks())
    assert torch.equal(E[:, 5:], E[:, 5:6].expand(-1, 4))  # one factor for a second-order cone
    scaled_A, scaled_P = Matrix(A).scale(E, D).values, Matrix(P).scale(D, D).values
    columns = (scaled_A.square().sum(1) + scaled_P.square().sum(1)).sqrt()
    assert columns.max() / columns.min() < 3
    rows = scaled_A[:, :5].norm(dim=-1)
    assert rows.max() / rows.min() < 3
