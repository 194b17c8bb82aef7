"""Linear programs that are degenerate: told as the options ask, regularized, the same each time."""

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.cases import said
from problems.families import minimize

pytestmark = pytest.mark.usefixtures("engine")

F64 = torch.float64


def simplex(**options: Any) -> Any:
    """cᵀx over x ≥ 0, x ≤ 2, Σx = b."""
    x, c, b = cp.Variable(4), cp.Parameter(4), cp.Parameter()
    return CvxpyLayer(minimize(c @ x, x >= 0, x <= 2, cp.sum(x) == b), [c, b], [x], **options)


def tied() -> list[Tensor]:
    """Costs of which the first ties three ways and the second not, and right-hand sides."""
    costs = torch.tensor([[1.0, 1.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]], dtype=F64)
    return [costs.requires_grad_(), torch.tensor([3.0, 1.0], dtype=F64).requires_grad_()]


def test_on_degenerate_raise() -> None:
    (x,) = simplex(on_degenerate="raise", on_unconverged="ignore")(*tied())
    with pytest.raises(cvxfold.DegenerateError) as error:
        x[:, 0].sum().backward()
    said(error, "0", "degenerate", "proximal")
    assert isinstance(error.value, cvxfold.ConvergenceError)


def test_on_degenerate_ignore_is_silent_though_others_raise() -> None:
    layer = simplex(on_degenerate="ignore", on_unconverged="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(*tied())[0][:, 0].sum().backward()
    assert layer.report.backward.degenerate.tolist() == [True, False]
    short = simplex(on_degenerate="ignore", on_unconverged="raise", refine=False, max_iters=3)
    with pytest.raises(cvxfold.ConvergenceError):
        short(*tied())


def test_degenerate_follows_on_unconverged_unless_told() -> None:
    with pytest.raises(cvxfold.DegenerateError):
        simplex(on_unconverged="raise")(*tied())[0][:, 0].sum().backward()
    with pytest.warns(cvxfold.ConvergenceWarning, match="degenerate"):
        simplex(on_unconverged="raise", on_degenerate="warn")(*tied())[0][:, 0].sum().backward()


def regularized(costs: np.ndarray, b: float, epsilon: float, centre: np.ndarray) -> np.ndarray:
    """What cvxpy and Clarabel say with the proximal term about ``centre``."""
    x = cp.Variable(4)
    proximal = epsilon / 2 * cp.sum_squares(x - centre)
    problem = minimize(costs @ x + proximal, x >= 0, x <= 2, cp.sum(x) == b)
    accuracy = dict.fromkeys(["tol_gap_abs", "tol_gap_rel", "tol_feas"], 1e-13)
    problem.solve(solver="CLARABEL", **accuracy)
    assert x.value is not None
    return x.value


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 30.0])
def test_proximal_gradient_is_that_of_the_regularized_problem(epsilon: float) -> None:
    layer, params = simplex(proximal=epsilon, on_unconverged="raise"), tied()
    (x,) = layer(*params)
    torch.testing.assert_close(x, simplex()(*params)[0], rtol=1e-12, atol=1e-12)  # the solution stays
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)
    found = torch.autograd.grad((x[0] * weight).sum(), params)
    assert layer.report.backward.verdict[0] is cvxfold.Verdict.CONVERGED
    assert float(found[0][0].norm()) > 0.5 / epsilon
    costs, b, centre = params[0][0].detach().numpy(), 3.0, x[0].detach().numpy()
    step = 1e-2 * min(1.0, epsilon)  # the map is linear while no bound is met
    for i in range(5):
        change = step * np.eye(5)[i]
        ahead, behind = (
            regularized(costs + s * change[:4], b + s * change[4], epsilon, centre) for s in (1.0, -1.0)
        )
        slope = float(weight.numpy() @ (ahead - behind)) / (2 * step)
        ours = float(found[0][0, i] if i < 4 else found[1][0])
        assert abs(ours - slope) <= 1e-5 * (1 + abs(slope))


def scaled_program(**options: Any) -> Any:
    """cᵀx + t‖x‖² over Gx ≤ h, x ≥ 0, Σx ≤ 1000, rows of G between 1e-3 and 1e3."""
    n, rng = 20, np.random.default_rng(1)
    x, c, h, t = cp.Variable(n), cp.Parameter(n), cp.Parameter(n), cp.Parameter(nonneg=True)
    G = rng.integers(-2, 3, (n, n)) * 10.0 ** rng.integers(-3, 4, (n, 1))
    problem = minimize(c @ x + t * cp.sum_squares(x), G @ x <= h, x >= 0, cp.sum(x) <= 1e3)
    return CvxpyLayer(problem, [c, h, t], [x], **options)


def test_the_same_bits_each_time(engine: str) -> None:
    rng = np.random.default_rng(3)
    costs, h = rng.integers(-3, 4, (8, 20)) * 1.0, rng.integers(0, 3, (8, 20)) * 1.0
    costs[:4] *= 10 ** rng.uniform(0, 6, (4, 20))
    costs[5], h[5] = rng.uniform(1, 2, 20), 0.0  # at x = 0 more rows than 20 are active
    costs[6:], h[6:], t = rng.uniform(-2, 2, (2, 20)), 1.0, np.repeat([0.0, 1.0], [6, 2])  # two are easy
    runs = []
    for layer in (scaled_program(on_unconverged="ignore"), scaled_program(on_unconverged="ignore")):
        run = []
        for _ in range(5):
            params = [torch.from_numpy(value).requires_grad_() for value in (costs, h, t)]
            (x,) = layer(*params)
            run += [x.detach(), *torch.autograd.grad((x + x.square()).sum(), params)]
        assert engine == "lanes" or layer.report.forward.rescued.any()
        assert layer.report.backward.degenerate.any()
        runs.append(run)
    assert all(torch.equal(mine, other) for mine, other in zip(*runs, strict=True))
