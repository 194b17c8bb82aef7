"""Updates, solvers, parameters and options that are not as they should be: an error that says what is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.fold import Unrolled
from problems.folded import make_folded

ONES = torch.ones(3, dtype=torch.float64)


def half(x: Tensor, c: Tensor) -> Tensor:
    return 0.5 * (x + c)


def call(update: Any, solver: Any = None, c: Any = ONES, **options: Any) -> Any:
    if solver is None:
        options.setdefault("start", torch.zeros_like)
    return make_folded(update, solver, **options)(c)


@pytest.mark.parametrize(
    ("update", "error", "message"),
    [
        (lambda x, c: half(x, c)[:2], ValueError, r"update: expected the shape of x, \(3,\), got \(2,\)"),
        (lambda x, c: half(x, c).unsqueeze(0), ValueError, r"shape of x, \(3,\), got \(1, 3\)"),
        (lambda x, c: half(x, c).float(), TypeError, "dtype of x, torch.float64, got torch.float32"),
        (lambda x, c: (half(x, c),), TypeError, "structure of x, ·, got \\('·',\\)"),
        (lambda x, c: half(x, c).numpy(), TypeError, "update: expected a tensor, got ndarray"),
        (lambda x, c: None, TypeError, "update: expected a"),
        (lambda x, c: half(x, c) / 0, ValueError, r"update: returned NaN or infinity .* instances \[0\]"),
        (lambda x, c: 3 * x + c**2, cvxfold.FixedPointError, "did not converge for instances"),
    ],
)
def test_updates(update: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(update, acceleration=0, max_iters=50)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda x, c: half(x, c.detach()), r"depends on params\[0\]"),
        (lambda x, c: half(x, torch.tensor(c.detach().numpy())), r"depends on params\[0\]"),
        (lambda x, c: half(x.detach(), c), "changes with x, but autograd sees no way"),
    ],
)
def test_updates_without_a_gradient(update: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(update, c=ONES.clone().requires_grad_())


def test_an_update_under_no_grad() -> None:
    with pytest.raises(ValueError, match="is something detached, in numpy or under no_grad"):
        call(torch.no_grad()(half), c=ONES.clone().requires_grad_())


def test_the_parameter_that_has_none_is_named() -> None:
    used, unused = ONES.clone().requires_grad_(), ONES.clone().requires_grad_()
    folded = make_folded(lambda x, p: half(x, p["a"][0]), start=lambda p: 0 * p["a"][0])
    with pytest.raises(ValueError, match=r"depends on params\[0\]\['b'\]"):
        folded({"a": (used,), "b": unused})
    folded({"a": (used,), "b": unused.detach()}).sum().backward()
    torch.testing.assert_close(used.grad, ONES, rtol=1e-7, atol=1e-7)


def test_a_constant_update_is_none_of_these() -> None:
    """F(x, c) = c does not depend on x, and need not."""
    c = ONES.clone().requires_grad_()
    call(lambda x, c: c * c, c=c).sum().backward()
    torch.testing.assert_close(c.grad, 2 * ONES)


@pytest.mark.parametrize(
    ("solver", "error", "message"),
    [
        (lambda c: c * torch.nan, ValueError, r"solver: returned NaN or infinity for instances \[0\]"),
        (lambda c: None, TypeError, "solver: expected a floating-point tensor, got NoneType"),
        (lambda c: c.long(), TypeError, "solver: expected a floating-point tensor, got torch.int64"),
        (lambda c: (), ValueError, "solver: expected at least one tensor"),
    ],
)
def test_solvers(solver: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(half, solver)


def test_arrays_of_a_solver_become_what_the_parameters_are() -> None:
    out = call(half, lambda c: np.ones(3, dtype=np.float32))
    assert out.dtype == torch.float64
    out = (
        call(half, lambda c: [1, 1.0, 1], c=ONES.float())
        if False
        else call(half, lambda c: np.ones(3), c=ONES.float())
    )
    assert out.dtype == torch.float32


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_parameters(bad: float) -> None:
    folded = make_folded(lambda x, p: half(x, p["c"]), start=ONES)
    with pytest.raises(ValueError, match=r"params\[0\]\['c'\]: expected finite values"):
        folded({"c": ONES * bad})


def test_a_batch_needs_a_first_dimension() -> None:
    with pytest.raises(ValueError, match=r"solver\[1\]: expected a first dimension .* shape \(2,\)"):
        make_folded(lambda x, c: x, lambda c: (c, c[:2]), batched=True)(ONES)


def test_a_loss_gradient_must_be_finite() -> None:
    x = call(half, c=ONES.clone().requires_grad_())
    with pytest.raises(ValueError, match="loss: expected a finite gradient"):
        (x.sum() * torch.nan).backward()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": None}, ValueError, "start: expected x₀"),
        ({"start": ONES, "tolerance": 1e-3}, TypeError, "did you mean 'tol'"),
        ({"start": ONES, "tol": -1.0}, ValueError, "tol: expected a positive number"),
        ({"start": ONES, "batched": 1}, ValueError, "batched: expected True or False"),
        ({"start": ONES, "backward": "newton"}, ValueError, "backward: expected one of"),
        ({"start": ONES, "on_unconverged": "no"}, ValueError, "on_unconverged: expected one of"),
        ({"start": ONES, "max_iters": 0}, ValueError, "max_iters: expected an integer"),
        ({"start": ONES, "backward": "unrolled", "backward_max_iters": 3}, ValueError, "backward_max_iters"),
        ({"start": ONES, "limit": 0}, ValueError, "limit: expected a positive number"),
    ],
)
def test_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_folded(half, **options)


def test_functions_and_starts() -> None:
    with pytest.raises(TypeError, match="update: expected a function, got str"):
        make_folded("x", start=ONES)
    with pytest.raises(TypeError, match="solver: expected a function, got Tensor"):
        make_folded(half, ONES)
    with pytest.raises(ValueError, match="start: expected None where a solver"):
        make_folded(half, lambda c: c, start=ONES)
    with pytest.raises(ValueError, match="start: expected None where a solver"):
        make_folded(half, lambda c: c)(ONES, start=ONES)
    with pytest.raises(ValueError, match="cold start"):
        make_folded(half, lambda c: c, backward=Unrolled(3, start="cold"))
