"""An instance's answer does not depend on its neighbours, beyond what sharing a factor needs."""

from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from cvxfold.engines.linear.least_norm import LeastNorm
from cvxfold.layer.request import CallRequest
from cvxfold.torch import CvxpyLayer
from problems.families import FAMILIES, minimize
from problems.layers import layer_of

F64 = torch.float64


def least_squares(**options: Any) -> CvxpyLayer:
    """‖Ax − b‖² over x with |x₁| ≤ 1; with a row of A and the bound alone, directions of x are free."""
    x, A, b = cp.Variable(3), cp.Parameter((4, 3)), cp.Parameter(4)
    return CvxpyLayer(minimize(cp.sum_squares(A @ x - b), cp.abs(x[0]) <= 1), [A, b], [x], **options)


def systems(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(batch, 4, 3, dtype=F64, generator=generator)
    return A, torch.randn(batch, 4, dtype=F64, generator=generator)


def penalties(layer: CvxpyLayer, *params: Tensor) -> Tensor:
    """ρ that each instance was found under, ``(B,)``."""
    arguments, values, _ = layer.program(*params)
    return layer.session.answer_to(values, CallRequest(arguments.batch or 1, layer.options)).whole.penalty


def test_a_rank_deficient_neighbour_changes_nothing() -> None:
    """Its own M is singular, and it alone is solved by the pseudoinverse, in closed form A⁺b."""
    A, b = systems(5)
    A[2, :, 2] = 0.0
    A[:, :, 0] *= 0.1
    layer = least_squares(on_unconverged="ignore")
    (together,) = layer(A, 0.01 * b)
    for i in (0, 1, 3, 4):
        (alone,) = least_squares()(A[i : i + 1], 0.01 * b[i : i + 1])
        torch.testing.assert_close(together[i], alone[0], rtol=1e-12, atol=1e-13)
        exact = torch.linalg.lstsq(A[i], 0.01 * b[i]).solution
        torch.testing.assert_close(together[i], exact, rtol=1e-10, atol=1e-12)
    exact = torch.linalg.pinv(A[2]) @ (0.01 * b[2])
    torch.testing.assert_close(together[2], exact, rtol=1e-8, atol=1e-10)


def test_least_norm_solves_each_instance_its_own_way() -> None:
    generator = torch.Generator().manual_seed(0)
    L = torch.randn(4, 5, 5, dtype=F64, generator=generator)
    L[1, :, 3:], L[3, :, 1:] = 0.0, 0.0
    S, r = L @ L.mT, torch.randn(4, 5, dtype=F64, generator=generator)
    inverses = torch.linalg.pinv(S, rtol=1e-10, hermitian=True)
    expected = (inverses @ r.unsqueeze(-1)).squeeze(-1)
    normal = LeastNorm.of(S)
    assert normal.deficient.tolist() == [False, True, False, True]
    torch.testing.assert_close(normal.solve(r), expected, rtol=1e-7, atol=1e-9)
    for rows in ([3, 0], [0, 2], [1], [2, 3, 1]):
        index = torch.tensor(rows)
        part = normal.take(index)
        assert part.deficient.tolist() == normal.deficient[index].tolist()
        torch.testing.assert_close(part.solve(r[index]), expected[index], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["dense_qp5", "dense_qp20", "ball_least_squares"])
def test_the_penalty_is_the_instances_own_where_no_factor_is_shared(name: str) -> None:
    """Alone or beside instances whose data ask for penalties of other orders of magnitude: the same."""
    family = FAMILIES[name]()
    first, *rest = (p[:1] for p in family.sample(6, 3))
    params = [p.clone() for p in family.sample(6, 3)]
    alone = penalties(layer_of(family), first, *rest)
    params[0][1:] *= 1e3  # the neighbours' objective
    together = penalties(layer_of(family), *params)
    torch.testing.assert_close(together[:1], alone, rtol=1e-6, atol=0)
    assert len(together.unique()) > 1


def test_the_penalty_is_one_where_a_factor_is_shared() -> None:
    family = FAMILIES["constant_qp"]()
    assert len(penalties(layer_of(family), *family.sample(6, 3)).unique()) == 1
