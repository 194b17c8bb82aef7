"""Geometric programs, against the same programs written in logarithms by hand and solved by the reference."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.cases import said
from problems.families import Family, minimize
from problems.reference import reference

pytestmark = pytest.mark.usefixtures("engine")


def box() -> CvxpyLayer:
    """Maximize the volume xyz of a box with a wall of area b/a and x ≥ y^c."""
    x, y, z = (cp.Variable(pos=True) for _ in range(3))
    a, b, c = cp.Parameter(pos=True), cp.Parameter(pos=True), cp.Parameter()
    power: Any = cp.power(y, c)
    problem = minimize(1 / (x * y * z), a * (x * y + x * z + y * z) <= b, x >= power)
    return CvxpyLayer(problem, [a, b, c], [x, y, z], gp=True)


def box_in_logarithms() -> Family:
    """The same in u = log x, v = log y, w = log z, with log a and log b as parameters."""
    u, v, w = cp.Variable(), cp.Variable(), cp.Variable()
    a, b, c = cp.Parameter(), cp.Parameter(), cp.Parameter()
    walls = cp.log_sum_exp(cp.hstack([a + u + v, a + u + w, a + v + w]))
    problem = minimize(-u - v - w, walls <= b, u >= c * v)
    return Family("box", problem, [a, b, c], [u, v, w], lambda batch, seed: ())


def draw(batch: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    spans = ((1, 3), (0.5, 2), (0.3, 0.7))
    return [torch.tensor(rng.uniform(low, high, batch)) for low, high in spans]


def test_solutions_and_gradients_against_logarithms() -> None:
    a, b, c = draw(4)
    weights = [
        torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)
    ]
    logs = [a.log(), b.log(), c]
    family = box_in_logarithms()
    values, _, _ = reference(family, logs, weights)
    # d exp(u) = x du: the weights of the logarithms that give the gradient of Σ ⟨weight, x⟩.
    _, gradients, _ = reference(family, logs, [w * v.exp() for w, v in zip(weights, values, strict=True)])
    params = [p.requires_grad_() for p in (a, b, c)]
    layer = box()
    outputs = layer(*params)
    loss = torch.stack([(w * v).sum() for w, v in zip(weights, outputs, strict=True)]).sum()
    found = torch.autograd.grad(loss, params)
    for ours, u in zip(outputs, values, strict=True):
        torch.testing.assert_close(ours, u.exp(), rtol=1e-9, atol=0)
    expected = [gradients[0] / a, gradients[1] / b, gradients[2]]
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact.detach(), rtol=1e-8, atol=1e-10)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(box(), [p.requires_grad_() for p in draw(2)], atol=1e-6, fast_mode=True)


def test_float32_and_one_instance() -> None:
    params = draw(1)
    exact = box()(*params)
    found = box()(*(p[0].float() for p in params))
    for a, b in zip(found, exact, strict=True):
        assert a.shape == ()
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_parameters_that_are_not_positive(bad: float) -> None:
    a, b, c = draw(3)
    b[1] = bad
    with pytest.raises(ValueError, match="positive") as error:
        box()(a, b, c)
    said(error, "1", "geometric")


def test_exponents_may_have_any_sign() -> None:
    a, b, c = draw(2)
    (x, y, _) = box()(a, b, -c)
    assert (x >= y ** (-c) - 1e-9).all()


def test_a_parameter_that_is_factor_and_exponent_is_refused() -> None:
    """cvxpylayers' canonical form has one slot for the two, and would be solved for another problem."""
    u, v = cp.Variable(pos=True), cp.Variable(pos=True)
    b, other = cp.Parameter(pos=True), cp.Parameter(pos=True)
    power: Any = cp.power(v, b)
    with pytest.raises(ValueError, match="both a factor and an exponent"):
        CvxpyLayer(minimize(u + v, u >= b * power, v >= 2), [b], [u, v], gp=True)
    layer = CvxpyLayer(minimize(u + v, u >= other * power, v >= 2), [b, other], [u, v], gp=True)
    value = torch.tensor(1.7, dtype=torch.float64)
    torch.testing.assert_close(layer(value, value)[0], value * 2**value, rtol=1e-9, atol=0)


def test_the_first_value_that_is_not_positive_is_told() -> None:
    a, b, c = draw(3)
    a[1] = -2.0
    with pytest.raises(ValueError, match="positive values") as error:
        box()(a, b, c)
    said(error, "got others in instances [1], the first of them -2")


def test_who_forgets_gp_reads_of_nothing_else() -> None:
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    root: Any = cp.power(x, 0.5)
    problem = minimize(1 / x, a * root * x <= 1)
    with pytest.raises(ValueError, match="must be DPP") as error:
        CvxpyLayer(problem, [a], [x])
    assert str(error.value) == "Problem must be DPP. It is a geometric program: give gp=True."
