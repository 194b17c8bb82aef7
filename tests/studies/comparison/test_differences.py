"""The finite differences: where they stay, where they judge, and how good they are."""

from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.problem.structure import ParameterSpec
from cvxfold.studies.comparison.differences import _extrapolated
from cvxfold.studies.comparison.moves import curve
from problems.comparisons import BEST, quick
from problems.families import minimize
from problems.layers import family_of
from problems.marks import long

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")


@pytest.mark.parametrize(
    "name", ["quadratic_form", "relative_entropy", "total_variation", "maximum_eigenvalue"]
)
def test_finite_differences_stay_in_declared_sets(name: str) -> None:
    """Parameters that are semidefinite, positive, nonnegative, symmetric."""
    family = family_of(name)
    comparison = quick(family, family.sample(3, 1), upstream=(), finite_differences=3)
    error = comparison["cvxfold auto"].finite_difference_error
    assert error is not None
    assert error.max() < 1e-7


def test_extrapolation_knows_its_error() -> None:
    """Of exp at 0, and of |x| at a point whose kink only the largest steps reach."""
    sizes = [1e-2 / 4.0**level for level in range(4)]
    smooth = torch.tensor([[(torch.tensor(h).double().sinh() / h).item()] for h in sizes]).double()
    best, error = _extrapolated(smooth)
    assert abs(float(best) - 1) < 1e-13
    assert float(error) < 1e-10
    near = torch.tensor([[(abs(1e-3 + h) - abs(1e-3 - h)) / (2 * h)] for h in sizes]).double()
    best, error = _extrapolated(near)
    assert abs(float(best) - 1) < 1e-12
    at_the_kink = torch.tensor([[0.0], [1.0], [0.0], [1.0]]).double()
    assert float(_extrapolated(at_the_kink)[1]) > 0.1


def flat(kind: str) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Problems whose solutions do not move: a soft threshold that is not reached, and a vertex of a box."""
    x, a = cp.Variable(3), cp.Parameter(3, name="a")
    threshold = minimize(cp.sum_squares(x - a) + cp.norm1(x))
    vertex = cp.Problem(cp.Maximize(a @ x), [x >= 0, x <= 1])
    return (threshold if kind == "threshold" else vertex), [a], [x]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=long) for seed in (1, 2, 3))])
@pytest.mark.parametrize("kind", ["threshold", "vertex"])
def test_a_gradient_of_zero_is_right(kind: str, seed: int) -> None:
    """The slopes are rounding there, and to divide by them would tell nothing."""
    values = [torch.tensor([[0.1, 0.2, -0.3], [-0.4, -0.2, -0.1]]).double()]
    comparison = cvxfold.compare(
        *flat(kind), values, upstream=("tight, dense",), finite_differences=3, seed=seed
    )
    differences = comparison.finite_differences
    assert differences is not None
    assert differences.slopes.abs().max() < 1e-8  # zero is the true one
    assert comparison.judged is not None
    assert comparison.judged.all()
    assert comparison.right == ("cvxfold auto", "cvxfold lfpi", BEST)
    assert comparison.agrees()
    assert comparison.degenerate == []


def test_a_wrong_gradient_is_not_excused_where_zero_is_right() -> None:
    """jacobian_free takes one step of the iteration, at whose solution the vertex still seems to move."""
    values = [torch.tensor([[0.1, 0.2, -0.3]]).double()]
    comparison = cvxfold.compare(
        *flat("vertex"), values, methods=("auto", "jacobian_free"), upstream=(), finite_differences=3
    )
    assert comparison.right == ("cvxfold auto",)


def symmetric_root(seed: int, rank: int) -> Tensor:
    """A semidefinite 3 by 3 matrix of a rank."""
    root = torch.randn(3, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return root @ root.mT


@pytest.mark.parametrize("domain", ["PSD", "NSD"])
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_semidefinite_parameters_move_inside_their_cone(rank: int, domain: str) -> None:
    """Exactly, at any step, and with the slope that the gradient is held against."""
    sign = 1.0 if domain == "PSD" else -1.0
    V = sign * symmetric_root(rank, rank).unsqueeze(0)
    noise = torch.randn(1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found = curve(ParameterSpec("V", (3, 3), slice(0, 6), None, False, domain), V, noise)
    for t in (-2.0, -0.1, 0.1, 2.0):
        eigenvalues = torch.linalg.eigvalsh(sign * found.at(t))
        assert eigenvalues.min() > -1e-12
        assert int((eigenvalues > 1e-10).sum()) == rank
    central = (found.at(1e-4) - found.at(-1e-4)) / 2e-4
    assert (central - found.slope).abs().max() < 1e-10


def test_diagonal_parameters_stay_diagonal() -> None:
    noise = torch.randn(1, 3, 3, dtype=torch.float64)
    found = curve(ParameterSpec("D", (3, 3), slice(0, 3), None, False, "diag"), torch.eye(3)[None], noise)
    assert found.at(0.1)[0].count_nonzero() == 3


def test_complex_parameters_are_not_compared() -> None:
    x, c = cp.Variable(2), cp.Parameter(2, complex=True, name="c")
    problem = minimize(cp.sum_squares(x - cp.real(c)))
    with pytest.raises(ValueError, match="c: complex parameters"):
        cvxfold.compare(problem, [c], [x], [torch.ones(2, dtype=torch.complex128)], upstream=())


@pytest.mark.parametrize("seed", range(3))
def test_a_singular_semidefinite_parameter(seed: int) -> None:
    """‖x‖² + ½ xᵀS x − bᵀx: x = (2 I + S)⁻¹ b, for a large S of rank 1."""
    x, S, b = cp.Variable(3), cp.Parameter((3, 3), PSD=True, name="S"), cp.Parameter(3, name="b")
    problem = minimize(cp.sum_squares(x) + 0.5 * cp.quad_form(x, S) - b @ x)
    values = [3 * symmetric_root(seed, 1), torch.tensor([1.0, -1.0, 0.5]).double()]
    comparison = cvxfold.compare(problem, [S, b], [x], values, upstream=(), finite_differences=3, seed=seed)
    assert comparison.right == ("cvxfold auto", "cvxfold lfpi")
    assert "S is singular, at the edge of what it is declared to be" in comparison.verdict


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_entries_that_do_not_move_are_named(sign: float) -> None:
    x, free = cp.Variable(3), cp.Parameter(3, name="free")
    r = cp.Parameter(3, name="r", nonneg=sign > 0, nonpos=sign < 0)
    problem = minimize(cp.sum_squares(x - r - free))
    zero = torch.zeros(1, 3).double()
    options: dict[str, Any] = {"upstream": (), "finite_differences": 1}
    edge = cvxfold.compare(
        problem, [r, free], [x], [sign * torch.tensor([[0.0, 1.0, 2.0]]).double(), zero], **options
    )
    note = "entries of r at 0, the edge of what it is declared to be, were not moved."
    assert note in edge.verdict
    assert "free" not in edge.verdict
    inside = cvxfold.compare(
        problem, [r, free], [x], [sign * torch.tensor([[0.5, 1.0, 2.0]]).double(), zero], **options
    )
    assert note not in inside.verdict


def test_problems_nearby_without_solution_are_named_by_instance() -> None:
    """Of x ≥ 0 with Σ x = a, where the second a of three is so near 0 that steps cross it."""
    x, a = cp.Variable(2), cp.Parameter(name="a")
    problem = minimize(cp.sum_squares(x), cp.sum(x) == a, x >= 0)
    values = [torch.tensor([1.0, 0.0, 2.0]).double()]
    comparison = cvxfold.compare(problem, [a], [x], values, upstream=(), finite_differences=3)
    assert comparison.finite_differences is None
    words = "No finite differences: InfeasibleError: the problem has no solution at or near the values of"
    assert f"{words} instances [1]." in comparison.verdict


def test_clarabel_in_cvxpylayers_is_off_on_semidefinite_programs() -> None:
    """cvxpylayers 1.2: its solutions are right, and its gradients are not."""
    pytest.importorskip("clarabel")
    family = family_of("nearest_correlation")
    comparison = quick(
        family, family.sample(2, 0), upstream=("clarabel", "tight, dense"), finite_differences=3
    )
    row = comparison["cvxpylayers clarabel"]
    assert row.solution_difference is not None
    assert row.solution_difference < 1e-4
    assert row.finite_difference_error is not None
    assert row.finite_difference_error.max() > 0.1
    assert comparison.right == ("cvxfold auto", BEST)
    assert "cvxpylayers clarabel differs from cvxfold auto" in comparison.verdict


def test_entries_at_a_bound_and_whole_numbers_stay() -> None:
    """x = r + k; finite differences would leave the sets, and the call would be refused."""
    x, r, k = (
        cp.Variable(3),
        cp.Parameter(3, name="r", bounds=[0, 1]),
        cp.Parameter(3, name="k", integer=True),
    )
    problem = minimize(cp.sum_squares(x - r - k))
    values = [torch.tensor([0.0, 0.5, 1.0]).double(), torch.tensor([1.0, 2.0, 3.0]).double()]
    found = cvxfold.compare(problem, [r, k], [x], values, upstream=(), finite_differences=2)
    assert found.right == ("cvxfold auto", "cvxfold lfpi")
    for name in ("r", "k"):
        assert f"entries of {name} that are declared to be whole numbers, or lie at a bound" in found.verdict
