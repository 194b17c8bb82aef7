"""What the report says of unrolled gradients that are not exact: truncated, or from a cold start."""

from typing import Any

import cvxpy as cp
import pytest
import torch

from cases import case, errors, evaluate, make_layer
from cvxfold import Verdict
from cvxfold.fold import Unrolled
from cvxfold.torch import CvxpyLayer
from families import minimize

FAMILIES = [
    "dense_qp20",
    "portfolio",
    "mpc",
    "robust_portfolio",
    "semidefinite_program_duals",
    "multi_label",
    "powers",
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("start", ["solution", "cold"])
def test_the_error_estimate_covers_what_was_cut_off(name: str, start: Any) -> None:
    """Against the gradients of the reference; not by more than a thousand times where that says something."""
    c = case(name, 4)
    for depth in (5, 20, 60, 200):
        layer = make_layer(c, backward=Unrolled(depth, start=start), on_unconverged="ignore")
        _, gradients = evaluate(layer, c)
        error = errors(gradients, c.gradients)
        backward = layer.report.backward
        large = error > 1e-9  # below, the reference is no better
        assert (backward.error >= error)[large].all(), (depth, backward.error, error)
        assert (backward.error <= 1e3 * error)[large].all(), (depth, backward.error, error)
        assert all(verdict is not Verdict.DEGENERATE for verdict in backward.verdict)
        told = torch.tensor([verdict is not Verdict.CONVERGED for verdict in backward.verdict])
        assert told[error > 1e-5].all()


def test_the_residual_of_a_cold_start_is_that_of_lfpi_where_phi_is_constant() -> None:
    """On equalities alone F is affine, so it does not matter where the iterations begin."""
    generator = torch.Generator().manual_seed(3)
    G = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    x, a = cp.Variable(6), cp.Parameter(6)
    problem = minimize(cp.sum_squares(x - a) + cp.square(x[0]), G.numpy() @ x == 1)
    value = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    found = []
    for method in (Unrolled(4, start="cold"), "lfpi"):
        layer = CvxpyLayer(
            problem, [a], [x], penalty=0.1, backward=method, on_unconverged="ignore",
            **({} if isinstance(method, Unrolled) else {"backward_max_iters": 4, "backward_tol": 1e-300}),
        )  # fmt: skip
        layer(value.clone().requires_grad_())[0][:, 0].sum().backward()
        assert layer.report is not None
        assert layer.report.backward is not None
        found.append(layer.report.backward.residual)
    torch.testing.assert_close(*found, rtol=1e-9, atol=0)
    assert found[0].min() > 1e-3


def test_before_there_is_a_solution_nothing_is_called_degenerate() -> None:
    """A linear program whose solution is unique; the iterate after a few steps is nowhere near."""
    x, a = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(
        minimize(a @ x, x >= 0, cp.sum(x) == 1), [a], [x],
        backward=Unrolled(4, start="cold"), on_unconverged="ignore",
    )  # fmt: skip
    values = torch.tensor([[1.0, 2.0, 3.0], [0.3, 0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(values)[0][:, 0].sum(), values)
    assert gradient.abs().max() > 1e-2  # and the derivative of a vertex is zero
    assert layer.report is not None
    assert layer.report.backward is not None
    assert layer.report.backward.verdict == [Verdict.FORWARD_INEXACT] * 2
    assert (layer.report.backward.error > 1e-2).all()
