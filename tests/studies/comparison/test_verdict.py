"""Who is right, in words and by names."""

from dataclasses import replace
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.studies.comparison import Row
from problems.comparisons import BEST, compared_on, dense_qp_on_which_lsqr_stops_early, quick
from problems.families import minimize
from problems.layers import family_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")


def test_verdict_names_the_one_who_is_right() -> None:
    family, values = dense_qp_on_which_lsqr_stops_early()
    comparison = compared_on(family, values)
    assert f"Right to 1e-04: cvxfold auto, cvxfold lfpi and {BEST}." in comparison.verdict
    assert comparison.right == ("cvxfold auto", "cvxfold lfpi", BEST)
    assert "cvxpylayers default differs" in comparison.verdict
    assert not comparison.agrees()


def test_verdict_by_residuals_without_finite_differences() -> None:
    family, values = dense_qp_on_which_lsqr_stops_early()
    comparison = quick(family, values, upstream=("tight", "tight, dense"))
    assert comparison.finite_differences is None
    assert "Adjoint residuals: " in comparison.verdict
    assert comparison.right == ("cvxfold auto", BEST)
    assert f"Right to 1e-04: cvxfold auto and {BEST}." in comparison.verdict
    assert comparison[BEST].finite_difference_error is None


def test_power_cones_are_a_failed_row() -> None:
    family = family_of("powers")
    comparison = quick(
        family, family.sample(2, 0), upstream=("default", "tight, dense"), finite_differences=2
    )
    for name in ("cvxpylayers default", BEST):
        assert comparison[name].error
        assert comparison[name].solution is None
        assert comparison[name].gradient_difference is None
    assert not comparison.agrees()
    assert comparison.right == ("cvxfold auto",)
    assert "no answer of cvxpylayers" in comparison.verdict
    assert "cvxpylayers default and cvxpylayers tight, dense failed: " in comparison.verdict
    assert "fails" in str(comparison)


def test_a_failed_row_counts_neither_way() -> None:
    family = family_of("dense_qp5")
    comparison = quick(family, family.sample(2, 0))
    failed = Row("cvxpylayers default", False, error="ValueError: no")
    more = cvxfold.Comparison((*comparison.rows, failed), comparison.rtol, comparison.batch)
    assert comparison.agrees()
    assert more.agrees()
    assert "cvxpylayers default failed: ValueError: no." in more.verdict


def test_verdict_says_so_where_nobody_is_right() -> None:
    """Of a solution to 1e-2 that is not finished, alone with its own method."""
    family, values = dense_qp_on_which_lsqr_stops_early()
    rough = {"tol": 1e-2, "refine": False}
    comparison = quick(family, values, upstream=("tight",), layer_options=rough, finite_differences=3)
    assert comparison.right == ()
    assert "None of them is right to 1e-04." in comparison.verdict


def soft_threshold(*a: list[float], **options: Any) -> cvxfold.Comparison:
    """‖x − a‖² + 2‖x‖₁: x = sign(a) max(|a| − 1, 0), whose kink is at |a| = 1."""
    x, parameter = cp.Variable(2), cp.Parameter(2, name="a")
    problem = minimize(cp.sum_squares(x - parameter) + 2 * cp.norm1(x))
    values = [torch.tensor(a).double()]
    options = {"upstream": ("default", "tight, dense"), "finite_differences": 3} | options
    return cvxfold.compare(problem, [parameter], [x], values, **options)


def test_no_winner_at_a_kink() -> None:
    """There every number between the slopes on both sides is a gradient."""
    comparison = soft_threshold([1.0, 3.0], layer_options={"engine": "tensors"})
    assert comparison.degenerate == [0]
    assert comparison.right == ()
    words = (
        "Instances [0] have no unique derivative, so that differences there tell nothing, and there are no"
    )
    assert words in comparison.verdict
    assert "Right to" not in comparison.verdict
    assert "None of them" not in comparison.verdict
    assert comparison.to_dict()["degenerate"] == [0]
    assert comparison.agrees(2.0)
    assert not comparison.agrees(1e-2)  # numbers, which cvxpylayers' default has on the other side


def test_the_other_instances_tell_who_is_right() -> None:
    comparison = soft_threshold([1.0, 3.0], [2.0, 3.0])
    assert comparison.degenerate == [0]
    assert comparison.judged is not None
    assert comparison.judged.tolist() == [False, True]
    assert comparison.right == tuple(row.name for row in comparison.rows)
    assert "in 1 of 2 instances" in comparison.verdict
    assert "Right to 1e-04 in the others: cvxfold auto," in comparison.verdict


def test_residuals_of_a_kink_do_not_count_either() -> None:
    """Without finite differences: of answers that differ at the kink alone all are right elsewhere."""
    comparison = soft_threshold([1.0, 3.0], [2.0, 3.0], finite_differences=0, rtol=1e-3)
    assert comparison.differing
    assert "Right to 1e-03 in the others: " in comparison.verdict
    assert "finite differences would tell" not in comparison.verdict
    assert soft_threshold([1.0, 3.0], finite_differences=0).right == ()


def test_no_winner_among_the_points_of_a_set() -> None:
    """Any x ≥ a is a solution of this."""
    x, a = cp.Variable(3), cp.Parameter(3, name="a")
    values = [torch.tensor([[0.5, -1.0, 2.0], [1.0, 2.0, 0.3]]).double()]
    comparison = cvxfold.compare(
        minimize(0, x >= a),
        [a],
        [x],
        values,
        methods=("auto",),
        upstream=("tight, dense",),
        finite_differences=2,
    )
    assert comparison.degenerate == [0, 1]
    assert comparison.right == ()
    assert "Instances [0, 1] have no unique derivative" in comparison.verdict


def test_a_degenerate_instance_leaves_nothing_to_say_of_shared_parameters() -> None:
    """Their gradient is the sum over all instances; w weights ‖x‖₁ in both; the first one is at a kink."""
    x, a, w = cp.Variable(2), cp.Parameter(2, name="a"), cp.Parameter(nonneg=True, name="w")
    problem = minimize(cp.sum_squares(x - a) + w * cp.norm1(x))
    values = [torch.tensor([[1.0, 3.0], [2.0, 3.0]]).double(), torch.tensor(2.0).double()]
    comparison = cvxfold.compare(
        problem, [a, w], [x], values, upstream=("tight, dense",), finite_differences=3
    )
    assert comparison.judged is not None
    assert comparison.judged.tolist() == [False, True, False]
    assert "in 1 of 2 instances, without what these share" in comparison.verdict


def test_every_answer_counts_in_agreement() -> None:
    family = family_of("dense_qp5")
    values = family.sample(2, 0)
    comparison = quick(family, values, methods=("auto", "lfpi"), upstream=())
    assert comparison.agrees()
    assert "cvxfold auto and cvxfold lfpi agree to 1e-04" in comparison.verdict
    rough = quick(family, values, methods=("auto", "jacobian_free"))
    assert rough[BEST].agrees(1e-6)
    assert not rough.agrees()
    assert not replace(comparison, rows=comparison.rows[:1]).agrees()
    unknown = replace(comparison.rows[1], solution=None, gradients=None)
    failed = Row("cvxfold auto", True, error="InfeasibleError: none")
    assert not replace(comparison, rows=(failed, unknown)).agrees()


def test_instances_without_solution_are_passed_over() -> None:
    """As the layer does that is asked for NaN there; Σ x = a, x ≥ 0 has the solution a/2, a/2."""
    x, a = cp.Variable(2), cp.Parameter(name="a")
    problem = minimize(cp.sum_squares(x), cp.sum(x) == a, x >= 0)
    layer = cvxfold.torch.CvxpyLayer(problem, [a], [x], on_unsolvable="nan")
    comparison = cvxfold.compare(layer, [torch.tensor([1.0, -1.0, 2.0]).double()], upstream=())
    assert comparison.unsolvable == [1]
    assert comparison.agrees()
    assert comparison.right == ("cvxfold auto", "cvxfold lfpi")
    assert "Instances [1] have no solution." in comparison.verdict
