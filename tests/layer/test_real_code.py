"""Layers of the kinds that published code builds: cvxpy's answers and differences, and no false warning."""

import warnings

import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.outside import check_against_clarabel
from problems.real_code import PUBLISHED, lyapunov_controller, value_function_policy

pytestmark = pytest.mark.usefixtures("engine")


@pytest.mark.parametrize("name", PUBLISHED)
def test_against_cvxpy_and_differences(name: str) -> None:
    given = PUBLISHED[name]()
    layer = CvxpyLayer(given.problem, given.parameters, given.variables)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_against_clarabel(
            layer, given.problem, given.parameters, given.variables, given.values,
            of_differences=1e-3, step=given.step,
        )  # fmt: skip


def test_a_noisy_value_function() -> None:
    """Noise below the diagonal changes neither the controls nor the gradient, and is said once."""
    given = value_function_policy()
    layer = CvxpyLayer(given.problem, given.parameters, given.variables)
    drift, P = given.values
    noise = 1e-3 * torch.randn(P.shape, dtype=P.dtype, generator=torch.Generator().manual_seed(0)).tril(-1)
    answers = []
    for matrix in (P, P + noise):
        leaf = matrix.clone().requires_grad_()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (u,) = layer(drift, leaf)
            u.sum().backward()
        assert [("upper triangle" in str(one.message)) for one in caught] == [True] * (matrix is not P)
        answers.append((u.detach(), leaf.grad))
    for clean, noisy in zip(*answers, strict=True):
        torch.testing.assert_close(clean, noisy, rtol=0, atol=1e-10)


def test_a_controller_that_pays_for_what_it_cannot_reach() -> None:
    """With slope g and level l out of reach, the inputs are at their limits, and r is what is left."""
    given = lyapunov_controller()
    layer = CvxpyLayer(given.problem, given.parameters, given.variables)
    u, r = layer(*given.values)
    _, slope, level = given.values
    reach = -2 * slope[2].abs().sum()
    torch.testing.assert_close(u[2], -2 * slope[2].sign(), rtol=0, atol=1e-8)
    torch.testing.assert_close(r[2], reach - level[2], rtol=0, atol=1e-8)
