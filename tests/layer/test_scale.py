"""Problems with closed answers in any units: nothing that is small is lost beside what is large."""

from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.marks import long

F64 = torch.float64
UNITS = [1e-20, 1e-12, 1e-6, 1.0, 1e6, 1e12, 1e20]


def relative(found: Tensor, right: Tensor) -> float:
    """The largest |found − right| over |right|, over the largest of right where that is zero."""
    scale = torch.where(right == 0, right.abs().amax(), right.abs())
    return float(((found - right).abs() / scale).amax())


def statuses(layer: CvxpyLayer) -> list[cvxfold.Status]:
    report = layer.report
    assert report is not None
    return report.forward.status


def verdicts(layer: CvxpyLayer) -> list[cvxfold.Verdict]:
    report = layer.report
    assert report is not None
    assert report.backward is not None
    return report.backward.verdict


def projection(weight: float = 1.0, **options: Any) -> CvxpyLayer:
    """weight ‖x − c‖² with x ≤ u, on three entries."""
    x, c, u = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(weight * cp.sum_squares(x - c)), [x <= u])
    return CvxpyLayer(problem, [c, u], [x], **options)


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_of_the_data_do_not_matter(engine: str, unit: float) -> None:
    c = (unit * torch.tensor([1.0, 5.0, -3.0], dtype=F64)).requires_grad_()
    u = (unit * torch.tensor([2.0, 4.0, -2.0], dtype=F64)).requires_grad_()
    layer = projection()
    (x,) = layer(c, u)
    on_c, on_u = torch.autograd.grad(x.sum(), [c, u])
    assert relative(x.detach(), torch.minimum(c, u).detach()) < 1e-9
    assert relative(on_c, torch.tensor([1.0, 0.0, 1.0], dtype=F64)) < 1e-9
    assert relative(on_u, torch.tensor([0.0, 1.0, 0.0], dtype=F64)) < 1e-9
    assert verdicts(layer) == [cvxfold.Verdict.CONVERGED]


@pytest.mark.parametrize("weight", [1e-13, 1e-10, 1e-6, 1e6])
def test_the_units_of_the_objective_do_not_matter(engine: str, weight: float) -> None:
    c = torch.tensor([1.0, 5.0, -3.0], dtype=F64, requires_grad=True)
    u = torch.tensor([2.0, 4.0, -2.0], dtype=F64, requires_grad=True)
    layer = projection(weight)
    (x,) = layer(c, u)
    (on_c,) = torch.autograd.grad(x.sum(), [c])
    assert statuses(layer) == [cvxfold.Status.SOLVED]
    assert relative(x.detach(), torch.minimum(c, u).detach()) < 1e-6
    assert relative(on_c, torch.tensor([1.0, 0.0, 1.0], dtype=F64)) < 1e-6


@pytest.mark.parametrize("penalty", [1e3, 1e7, 1e9])
def test_an_exact_penalty_of_any_size_is_solved(engine: str, penalty: float) -> None:
    u, r, c = cp.Variable(), cp.Variable(), cp.Parameter()
    objective = cp.Minimize(cp.square(u - 3) + penalty * r)
    layer = CvxpyLayer(cp.Problem(objective, [0.7 * u - r <= c, r >= 0, u <= 100]), [c], [u])
    value = torch.ones(4, dtype=F64, requires_grad=True)
    (found,) = layer(value)
    (on_c,) = torch.autograd.grad(found.sum(), [value])
    assert statuses(layer) == [cvxfold.Status.SOLVED] * 4
    assert relative(found.detach(), torch.full((4,), 1 / 0.7, dtype=F64)) < 1e-6
    assert relative(on_c, torch.full((4,), 1 / 0.7, dtype=F64)) < 1e-6
    assert verdicts(layer) == [cvxfold.Verdict.CONVERGED] * 4


def test_the_number_in_the_message_is_beyond_the_tolerance(engine: str) -> None:
    layer = projection(refine=False, max_iters=4)
    c, u = torch.randn(2, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    with pytest.warns(cvxfold.ConvergenceWarning, match="did not reach the tolerance 1.0e-08"):
        layer(c, u)
    report = layer.report
    assert report is not None
    missed = report.forward.status
    for number, status in zip(report.forward.residual.tolist(), missed, strict=True):
        assert (number > 1e-8) == (status is cvxfold.Status.UNCONVERGED)
    assert cvxfold.Status.UNCONVERGED in missed


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_solution_of_zero_is_one(engine: str, unit: float) -> None:
    """min ‖x − b‖² + w Σ|xᵢ₊₁ − xᵢ|, x ≥ 0, at b = 0: x = 0, where all that is left is rounding."""
    x, b, w = cp.Variable(8), cp.Parameter(8), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b) + w * cp.tv(x)), [x >= 0])
    layer = CvxpyLayer(problem, [b, w], [x])
    (found,) = layer(torch.zeros(3, 8, dtype=F64), torch.full((3,), unit, dtype=F64))
    assert statuses(layer) == [cvxfold.Status.SOLVED] * 3
    assert not layer.report.forward.rescued.any()
    assert found.abs().max() <= 1e-10 * unit


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_terms_that_cancel_exactly_are_no_rows_of_their_own(engine: str, unit: float) -> None:
    """min ½‖x − c‖² + w Σ|xᵢ₊₁ − xᵢ|, c = (0, 1, 2, 4): x = c + w (1, 0, 0, −1), so x − c is zero within."""
    x, c, w = cp.Variable(4), cp.Parameter(4), cp.Parameter(nonneg=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - c) + w * cp.tv(x))), [c, w], [x])
    steps = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=F64)
    shifts = torch.linspace(-2, 2, 50, dtype=F64).unsqueeze(-1)
    weights = torch.linspace(0.1, 0.4, 50, dtype=F64)
    (found,) = layer(unit * (steps + shifts), unit * weights)
    ends = torch.tensor([1.0, 0.0, 0.0, -1.0], dtype=F64)
    assert statuses(layer) == [cvxfold.Status.SOLVED] * 50
    assert not layer.report.forward.rescued.any()
    expected = steps + shifts + weights.unsqueeze(-1) * ends
    torch.testing.assert_close(found / unit, expected, rtol=0, atol=1e-12)


def square_root(**options: Any) -> CvxpyLayer:
    """min ax − √x: x = 1/4a², dx/da = −1/2a³, from a cone (1 + x, 1 − x, 2√x) in which x may be rounding."""
    x, a = cp.Variable(), cp.Parameter(nonneg=True)
    return CvxpyLayer(
        cp.Problem(cp.Minimize(a * x - cp.sqrt(x))),
        [a],
        [x],
        on_unconverged="ignore",
        time_limit=20,
        **options,
    )


@pytest.mark.parametrize("together", [True, pytest.param(False, marks=long)])
def test_what_is_rounding_beside_its_cone_is_solved_for(engine: str, together: bool) -> None:
    layer, values = square_root(), torch.logspace(-6, 7, 14, dtype=F64)
    for a in [values] if together else values.split(1):
        leaf = a.clone().requires_grad_()
        (x,) = layer(leaf)
        (on_a,) = torch.autograd.grad(x.sum(), leaf)
        off = (x.detach() * 4 * a**2 - 1).abs().maximum((on_a * -2 * a**3 - 1).abs())
        solved = torch.tensor([status is cvxfold.Status.SOLVED for status in statuses(layer)])
        assert solved[a > 1e-5].all()
        assert (off[solved] <= 1e-6).all(), off


def far(problem: str) -> tuple[cp.Problem, list[cp.Parameter], cp.Variable, float, float]:
    """A problem whose solution is far from its data, its parameter's value and that solution."""
    x, a = cp.Variable(), cp.Parameter(nonneg=True)
    if problem == "x^1.5":
        return cp.Problem(cp.Minimize(cp.power(x, 1.5) - a * x)), [a], x, 1e12, (1e12 / 1.5) ** 2
    rows: list[cp.Constraint] = [1e-12 * x >= a]
    if problem == "bounded too":
        rows.append(x >= 0)
    return cp.Problem(cp.Minimize(x if problem == "linear" else cp.square(x)), rows), [a], x, 1.0, 1e12


@pytest.mark.parametrize("problem", ["alone", "bounded too", "linear", "x^1.5"])
def test_a_solution_that_is_far_is_not_proven_away(engine: str, problem: str) -> None:
    problem_, parameters, x, value, right = far(problem)
    layer = CvxpyLayer(problem_, parameters, [x], on_unconverged="ignore", on_unsolvable="nan", time_limit=20)
    (found,) = layer(torch.tensor([value], dtype=F64))
    if statuses(layer) == [cvxfold.Status.SOLVED]:
        assert relative(found, torch.tensor([right], dtype=F64)) < 1e-6
    else:
        assert problem in ("x^1.5", "bounded too")
        assert statuses(layer) == [cvxfold.Status.UNCONVERGED]


def test_what_no_point_satisfies_is_proven_in_any_units(engine: str) -> None:
    """10⁻⁹ x ≥ b, x ≤ 0; and 10⁻⁹ x ≥ b, x ≤ 10⁸."""
    x, b, high = cp.Variable(), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.square(x)), [1e-9 * x >= b, x <= high])
    layer = CvxpyLayer(problem, [b, high], [x], on_unconverged="ignore", on_unsolvable="nan")
    layer(torch.ones(3, dtype=F64), torch.tensor([0, 1e8, 2e9], dtype=F64))
    assert [str(status) for status in statuses(layer)] == ["infeasible", "infeasible", "solved"]


@pytest.mark.parametrize("bound", [1e-9, 1e-14, 1e-20])
def test_a_bound_that_is_small_beside_the_objective_is_met(engine: str, bound: float) -> None:
    x, low = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(x), [x >= low]), [low], [x])
    value = torch.tensor([bound], dtype=F64, requires_grad=True)
    (found,) = layer(value)
    (gradient,) = torch.autograd.grad(found.sum(), value)
    assert statuses(layer) == [cvxfold.Status.SOLVED]
    assert relative(found.detach(), value.detach()) < 1e-6
    assert relative(gradient, torch.ones(1, dtype=F64)) < 1e-9


def solved(layer: CvxpyLayer) -> Tensor:
    """Which instances are, ``(B,)``."""
    return torch.tensor([status is cvxfold.Status.SOLVED for status in statuses(layer)])


@pytest.mark.parametrize("weight", [1.0, 1e6])
@pytest.mark.parametrize("row", [1e-4, 1e-6, 1e-8])
def test_a_row_that_is_small_is_met_or_said(engine: str, row: float, weight: float) -> None:
    """min ½w‖x‖² + qᵀx at the vertex of two rows that are nearly parallel, one ``row`` times the other."""
    x, A, b, q = cp.Variable(2), cp.Parameter((2, 2)), cp.Parameter(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(0.5 * weight * cp.sum_squares(x) + q @ x), [A @ x <= b])
    layer = CvxpyLayer(problem, [A, b, q], [x], on_unconverged="ignore")
    tilts = torch.tensor([0.1, 0.005, 0.001], dtype=F64)
    rows = torch.stack([torch.stack([torch.ones(2, dtype=F64), torch.stack([t / t, 1 + t])]) for t in tilts])
    at, y = torch.tensor([0.3, -0.7], dtype=F64), torch.tensor([1.0, 0.5], dtype=F64)
    sizes = torch.tensor([1.0, row], dtype=F64)
    (found,) = layer(sizes.unsqueeze(1) * rows, sizes * (rows @ at), -weight * (at + rows.mT @ y))
    right = (found - at).abs().amax(1) < 1e-6
    assert (right | ~solved(layer)).all()
    assert solved(layer).all() or row * tilts.amin() / weight < 1e-11


@pytest.mark.parametrize("row", [1e-8, 1e-14, 1e-16, 1e-20])
def test_an_equation_at_the_level_of_rounding_holds_or_is_said_not_to(engine: str, row: float) -> None:
    """The projection onto two hyperplanes, one of them in other units; its derivative projects, too."""
    n, batch, generator = 5, 16, torch.Generator().manual_seed(5)
    x, A, b, c = cp.Variable(n), cp.Parameter((2, n)), cp.Parameter(2), cp.Parameter(n)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [A @ x == b]), [A, b, c], [x],
        on_unconverged="ignore", on_degenerate="ignore",
    )  # fmt: skip
    rows, at = (torch.randn(batch, *size, dtype=F64, generator=generator) for size in ((2, n), (n, 1)))
    sizes = torch.tensor([[row], [1.0]], dtype=F64)
    point = (at + rows.mT @ (1 + torch.rand(batch, 2, 1, dtype=F64, generator=generator))).squeeze(-1)
    point.requires_grad_()
    (found,) = layer(sizes * rows, (sizes * (rows @ at)).squeeze(-1), point)
    weights = torch.randn(batch, n, dtype=F64, generator=generator)
    (gradient,) = torch.autograd.grad((weights * found).sum(), point)
    near = (found - at.squeeze(-1)).norm(dim=1) <= 1e-5 * at.squeeze(-1).norm(dim=1)
    assert (near | ~solved(layer)).all()
    onto = torch.linalg.qr(rows.mT)[0]
    right = weights - (onto @ (onto.mT @ weights.unsqueeze(-1))).squeeze(-1)
    off = (gradient - right).norm(dim=1) / right.norm(dim=1)
    converged = torch.tensor([verdict == cvxfold.Verdict.CONVERGED for verdict in verdicts(layer)])
    assert ((off <= 1e-6) | ~converged).all()
    assert converged.all() or row < 1e-8


@pytest.mark.parametrize("smallest", [1e-8, 1e-10, 1e-11, 1e-12, 1e-13])
def test_what_least_squares_lose_is_said(engine: str, smallest: float) -> None:
    """½‖Lx − c‖² whose smallest eigenvalue is ``smallest`` of the largest."""
    n, generator = 6, torch.Generator().manual_seed(4)
    x, L, c = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(L @ x - c)))
    layer = CvxpyLayer(problem, [L, c], [x], on_unconverged="ignore")
    left, right = (torch.linalg.qr(torch.randn(16, n, n, dtype=F64, generator=generator))[0] for _ in "LR")
    values = torch.ones(n, dtype=F64)
    values[-1] = smallest**0.5
    at = torch.randn(16, n, 1, dtype=F64, generator=generator)
    matrix = left * values @ right
    (found,) = layer(matrix, (matrix @ at).squeeze(-1))
    near = (found - at.squeeze(-1)).norm(dim=1) < 1e-5 * at.squeeze(-1).norm(dim=1)
    assert (near | ~solved(layer)).all()
    assert solved(layer).all() or smallest < 1e-9
