"""Quadratic forms of expressions with parameters, such as tracking errors, which cvxpylayers takes too."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.torch import CvxpyLayer
from problems.families import minimize
from problems.outside import check_against_clarabel

pytestmark = pytest.mark.usefixtures("engine")

S = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])
E = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]])  # of e = E x − 2 b[:2]

Form = Callable[[Any, Any], Any]
FORMS: dict[str, Form] = {
    "quad_form": lambda x, b: cp.quad_form(x - b, S),
    "matrix_frac": lambda x, b: cp.matrix_frac(x - b, S),
    "inside": lambda x, b: 3 * cp.quad_form(E @ x - 2 * b[:2], S[:2, :2]) + cp.sum_squares(x) + cp.max(x),
    "negative": lambda x, b: -cp.quad_form(x - b, -S),
    "of absolute values": lambda x, b: cp.quad_form(cp.abs(x - b), np.abs(S)),
}


def problem_of(form: Form) -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    x, b = cp.Variable(3), cp.Parameter(3)
    return minimize(form(x, b), x >= 0, cp.sum(x) == 1), b, x


def draw(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [name for name in FORMS if name != "of absolute values"])
def test_in_the_objective(name: str) -> None:
    problem, b, x = problem_of(FORMS[name])
    layer = CvxpyLayer(problem, [b], [x])
    check_against_clarabel(layer, problem, [b], [x], [draw()])


def test_matrix_frac_of_a_constant_expression() -> None:
    """Semidefinite by cvxpy's way, which Clarabel solves less exactly than the quadratic form."""
    problem, b, x = problem_of(lambda x, b: cp.matrix_frac(x - b, cp.Constant(S)))
    quadratic = minimize(cp.quad_form(x - b, np.linalg.inv(S)), *problem.constraints)
    check_against_clarabel(CvxpyLayer(problem, [b], [x]), quadratic, [b], [x], [draw()])


def test_of_what_is_not_affine() -> None:
    """cvxpy itself solves no such problem with a quadratic objective; for |x − b|, b ≤ 0 ≤ x, it is x − b."""
    problem, b, x = problem_of(FORMS["of absolute values"])
    plain, _, _ = problem_of(FORMS["quad_form"])
    found = CvxpyLayer(problem, [b], [x])(-draw().abs())
    expected = CvxpyLayer(plain, plain.parameters(), plain.variables())(-draw().abs())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_with_a_parameter_as_the_matrix_too() -> None:
    x, b, P = cp.Variable(3), cp.Parameter(3), cp.Parameter((3, 3), PSD=True)
    problem = minimize(cp.quad_form(x - b, P), x >= 0, cp.sum(x) == 1)
    layer = CvxpyLayer(problem, [b, P], [x])
    matrices = torch.tensor(S) + torch.tensor([0.0, 0.3]).double().view(2, 1, 1) * torch.eye(3).double()
    check_against_clarabel(layer, problem, [b, P], [x], [draw(), matrices])


def test_in_constraints_with_their_duals() -> None:
    """Duals are those of the problem's own constraints."""
    x, b, c = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    ellipsoid: Any = cp.quad_form(x - b, S) <= 1
    plane: Any = cp.sum(x) == 0.2
    problem = minimize(c @ x, ellipsoid, plane)
    variables = [x, ellipsoid.dual_variables[0], plane.dual_variables[0]]
    layer = CvxpyLayer(problem, [b, c], variables)
    values = [0.1 * draw(), draw().flip(1)]  # Clarabel's duals are good to 1e-7 here
    check_against_clarabel(layer, problem, [b, c], variables, values, of_differences=1e-3)


def test_the_problem_stays_as_it_was() -> None:
    problem, b, x = problem_of(FORMS["quad_form"])
    objective, constraints, text = problem.objective, list(problem.constraints), str(problem)
    CvxpyLayer(problem, [b], [x])
    assert problem.objective is objective
    assert problem.constraints == constraints
    assert str(problem) == text
