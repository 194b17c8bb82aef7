"""Gradients by finite differences on small problems of each kind, duals included where they are returned.

Entry by entry, all in one batch; and with every kind of cone by ``torch.autograd.gradcheck``, which looks at
more than numbers: dtypes, gradients that are not there, a second backward pass, what one instance has to do
with another. That one calls the layer for each entry, so it has a random direction.
"""

from typing import Any

import pytest
import torch

from problems import cone_families as cones
from problems.differences import assert_jacobians_agree
from problems.families import (
    Family,
    ball_least_squares,
    constant_qp,
    dense_qp,
    equality_qp,
    least_absolute,
    least_squares,
    linear_program,
    many_cones,
    mpc,
    no_rows,
    portfolio,
    portfolio_mu,
    robust_portfolio,
    scalars,
    total_variation,
)
from problems.layers import layer_of
from problems.marks import one_engine, sliced

pytestmark = pytest.mark.usefixtures("engine")

SMALL = {
    "dense_qp": lambda: dense_qp(4, duals=True),
    "portfolio": lambda: portfolio(4, 2),
    "portfolio_mu": lambda: portfolio_mu(6, 2),
    "mpc": lambda: mpc(3, 2, 1),
    "mpc_absolute": lambda: mpc(3, 2, 1, absolute=True),
    "robust_portfolio": lambda: robust_portfolio(3),
    "ball_least_squares": lambda: ball_least_squares(3),
    "many_cones": lambda: many_cones((2, 2, 3), duals=True),
    "least_absolute": least_absolute,
    "linear_program": lambda: linear_program(3, duals=True),
    "equality_qp": lambda: equality_qp(4, 2, duals=True),
    "least_squares": lambda: least_squares(5, 3),
    "no_rows": lambda: no_rows(4),
    "total_variation": lambda: total_variation(9),
    "constant_qp": lambda: constant_qp(4),
    "scalars": scalars,
    "multi_label": lambda: cones.multi_label(4, 2, duals=True),
    "log_sum_exp": lambda: cones.log_sum_exp(4, 2),
    "logistic": lambda: cones.logistic(4, 2),
    "relative_entropy": lambda: cones.relative_entropy(3),
    "nearest_correlation": lambda: cones.nearest_correlation(3, duals=True),
    "semidefinite_program": lambda: cones.semidefinite_program(5, 9),
    "nuclear_norm": lambda: cones.nuclear_norm(2),
    "log_determinant": lambda: cones.log_determinant(2),
    "powers": lambda: cones.powers(3, duals=True),
    "power_loss": lambda: cones.power_loss(3),
    "geometric_mean": lambda: cones.geometric_mean(3),
    "mixture": lambda: cones.mixture(2, duals=True),
}


SLOW = ("dense_qp", "log_determinant", "log_sum_exp", "many_cones", "mixture", "multi_label", "powers")


@pytest.mark.parametrize("name", sliced(SMALL, lambda name: name in SLOW))
def test_jacobians(name: str) -> None:
    """Entry by entry, of two instances."""
    family: Family = SMALL[name]()
    layer = layer_of(family)
    for one in zip(*(p.split(1) for p in family.sample(2, 1)), strict=True):
        assert_jacobians_agree(layer, one)


@pytest.mark.parametrize("entry", [0, 3])
def test_one_wrong_entry_of_a_jacobian_is_found(entry: int) -> None:
    given = [torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)]

    def wrong(a: torch.Tensor, by: float = 1e-4) -> list[torch.Tensor]:
        idle = by * (a - a.detach())[:, entry : entry + 1]
        return [a.square().cumsum(1) + torch.nn.functional.pad(idle, (2, 1))]

    assert_jacobians_agree(lambda a: wrong(a, 0.0), given)
    with pytest.raises(AssertionError):
        assert_jacobians_agree(wrong, given)


@pytest.mark.parametrize(
    "name",
    [
        "portfolio", "mpc", "scalars", "linear_program", "equality_qp", "no_rows", "constant_qp",
        "robust_portfolio", "nearest_correlation", "logistic", "power_loss",
    ],
)  # fmt: skip
def test_gradcheck_in_a_random_direction(name: str) -> None:
    family: Family = SMALL[name]()
    params = [p.requires_grad_() for p in family.sample(2, 1)]
    layer = layer_of(family)
    assert torch.autograd.gradcheck(layer, params, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_gradcheck_of_a_symmetric_parameter() -> None:
    """In the upper triangle, which is where a symmetric parameter is read."""
    family = cones.quadratic_form(3)
    layer = layer_of(family)
    P, q = family.sample(2, 1)
    rows, columns = torch.triu_indices(3, 3)

    def solution(upper: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        full = torch.zeros(2, 3, 3, dtype=upper.dtype).index_put(
            (torch.arange(2)[:, None], rows, columns), upper
        )
        strictly = full - torch.diag_embed(full.diagonal(dim1=1, dim2=2))
        return layer(full + strictly.mT, q)[0]

    upper = P[:, rows, columns].clone().requires_grad_()
    assert torch.autograd.gradcheck(solution, (upper, q.requires_grad_()), eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["gmres", "lfpi"])
@pytest.mark.parametrize("name", sliced(["dense_qp", "many_cones"], lambda name: name == "many_cones"))
@one_engine
def test_gradcheck_of_the_other_methods(name: str, method: Any) -> None:
    family: Family = SMALL[name]()
    layer = layer_of(family, backward=method)
    params = [p.requires_grad_() for p in family.sample(2, 1)]
    assert torch.autograd.gradcheck(layer, params, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("batched", sliced([0, 1, 2], lambda batched: batched == 0))
def test_gradcheck_of_broadcast_parameters(batched: int) -> None:
    """One parameter batched, the others shared."""
    family = equality_qp(4, 2, duals=True)
    layer = layer_of(family)
    params = [p if i == batched else p[0] for i, p in enumerate(family.sample(3, 0))]
    assert torch.autograd.gradcheck(layer, [p.clone().requires_grad_() for p in params], atol=1e-6)


def test_gradcheck_through_a_model_around_the_layer() -> None:
    """Parameters that depend on one another through a network: the chain rule on both sides of the layer."""
    family = portfolio(4, 2)
    layer = layer_of(family)

    def model(mu: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
        (w,) = layer(torch.tanh(mu @ mix), mu[..., None] * mix[:, :2])
        return (w * mu).sum(-1).exp()

    mu, _ = family.sample(2, 3)
    mix = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(model, [mu.requires_grad_(), mix.requires_grad_()], atol=1e-6)
