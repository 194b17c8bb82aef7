"""The comparison with cvxpylayers: who is off, on which values, and how failures count."""

import json
import pickle
from typing import Any

import cvxpy as cp
import pytest
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer
from torch import Tensor

import cvxfold
from cvxfold.fold import LFPI
from cvxfold.studies.comparison.contestants import MODES
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate
from problems.comparisons import BEST, OFF, compared, dense_qp_on_which_lsqr_stops_early, quick
from problems.families import minimize
from problems.layers import family_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")


@pytest.mark.parametrize("name", OFF)
def test_upstream_is_off_and_the_finite_differences_say_so(name: str) -> None:
    comparison = compared(name)
    assert not comparison.agrees(1e-6)
    assert comparison.agrees(10.0)
    ours, theirs = comparison["cvxfold auto"], comparison["cvxpylayers default"]
    assert ours.finite_difference_error is not None
    assert theirs.finite_difference_error is not None
    assert comparison.finite_differences is not None
    assert comparison.finite_differences.own_error.max() < 1e-8
    assert ours.finite_difference_error.max() < 1e-8
    assert theirs.finite_difference_error.max() > 1e-6
    assert theirs.adjoint_residual is not None
    assert theirs.adjoint_residual > 1e-6


@pytest.mark.parametrize("name", OFF)
def test_upstream_at_its_best_agrees(name: str) -> None:
    comparison = compared(name)
    best = comparison[BEST]
    assert best.agrees(1e-5)
    assert best.adjoint_residual is not None
    assert best.adjoint_residual < 5e-9
    assert best.finite_difference_error is not None
    assert best.finite_difference_error.max() < 1e-7


def test_lsqr_stops_early_on_a_dense_qp() -> None:
    """With the forward pass at 1e-10 what is off is the adjoint system, and its residual shows it."""
    family, values = dense_qp_on_which_lsqr_stops_early()
    tight = quick(family, values, upstream=("tight",))["cvxpylayers tight"]
    assert tight.solution_difference is not None
    assert tight.solution_difference < 1e-8
    assert tight.adjoint_residual is not None
    assert 1e-4 < tight.adjoint_residual < 1
    assert tight.gradient_difference is not None
    assert tight.gradient_difference > 1e-3


def test_unbatched_values() -> None:
    family = family_of("dense_qp5")
    comparison = quick(family, [value[0] for value in family.sample(1, 3)], finite_differences=2)
    assert comparison.batch == 1
    assert comparison.agrees()
    error = comparison["cvxfold auto"].finite_difference_error
    assert error is not None
    assert error.shape == (1,)
    assert error.max() < 1e-8
    assert "1 instance," in str(comparison)


def test_a_parameter_shared_by_the_batch() -> None:
    """Its gradient is one for all instances: a single difference, and finite differences of its own."""
    family = family_of("portfolio")
    mu, F = family.sample(5, 0)
    comparison = quick(family, [mu, F[0]], finite_differences=2)
    assert comparison.agrees()
    row = comparison[BEST]
    assert row.gradients is not None
    assert [len(each) for each in row.gradients.values()] == [5, 1]
    error = comparison["cvxfold auto"].finite_difference_error
    assert error is not None
    assert error.shape == (6,)
    assert error.max() < 1e-8


def test_float32() -> None:
    family = family_of("portfolio")
    values = [value.float() for value in family.sample(3, 0)]
    comparison = quick(family, values, finite_differences=2)
    assert comparison.agrees()
    error = comparison["cvxfold auto"].finite_difference_error
    assert error is not None
    assert 1e-12 < error.max() < 1e-5


def geometric() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """1/(x y) + a x + b y over positive x and y."""
    x, y = cp.Variable(pos=True), cp.Variable(pos=True)
    a, b = cp.Parameter(pos=True, name="a"), cp.Parameter(pos=True, name="b")
    return minimize(1 / (x * y) + a * x + b * y), [a, b], [x, y]


def test_geometric_programs() -> None:
    values = [torch.tensor([0.5, 2.0]).double(), torch.tensor([1.0, 3.0]).double()]
    options: dict[str, Any] = {"upstream": ("tight, dense",), "finite_differences": 2}
    comparison = cvxfold.compare(*geometric(), values, layer_options={"gp": True}, **options)
    assert comparison.agrees()
    error = comparison["cvxfold auto"].finite_difference_error
    assert error is not None
    assert error.max() < 1e-7
    assert set(comparison[BEST].gradient_differences or {}) == {"a", "b"}
    layer = CvxpyLayer(*geometric(), gp=True)
    assert cvxfold.compare(layer, values, **options).agrees()


def test_a_layer_knows_its_problem() -> None:
    family = family_of("dense_qp5")
    values = list(family.sample(2, 0))
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    comparison = cvxfold.compare(layer, values, methods=("auto", LFPI()), upstream=("tight, dense",))
    assert comparison.agrees()
    assert [row.folded for row in comparison.rows] == [True, True, False]
    assert comparison.rows[1].name.startswith("cvxfold LFPI")
    restored = pickle.loads(pickle.dumps(layer))
    with pytest.raises(ValueError, match="does not remember its problem"):
        cvxfold.compare(restored, values)
    compare: Any = cvxfold.compare  # type checkers object to both
    with pytest.raises(ValueError, match=r"compare\(layer, values\)"):
        compare(layer, family.parameters, family.variables, values)
    with pytest.raises(ValueError, match=r"compare\(problem, parameters, variables, values\)"):
        compare(family.problem, family.parameters, family.variables)


def test_loss_of_the_user() -> None:
    """A loss that couples the instances: their derivatives are still told apart."""
    family = family_of("portfolio")

    def loss(w: Tensor) -> Tensor:
        return w.square().sum(-1).logsumexp(0)

    comparison = quick(family, family.sample(3, 0), loss=loss, finite_differences=2)
    assert comparison.agrees()
    error = comparison["cvxfold auto"].finite_difference_error
    assert error is not None
    assert error.max() < 1e-8


def test_the_problem_is_left_as_it_was() -> None:
    c = case("portfolio", 4)
    family = c.family
    before = UpstreamLayer(family.problem, family.parameters, family.variables)
    quick(family, c.params, upstream=tuple(MODES))
    after = UpstreamLayer(family.problem, family.parameters, family.variables)
    arguments = MODES["tight, dense"]
    for layer in (before, after):
        values, gradients = evaluate(layer, c, solver_args=arguments)
        assert errors(values, c.values).max() < 1e-7
        assert errors(gradients, c.gradients).max() < 1e-7


def test_infeasible_instances_are_rows_too() -> None:
    x, a = cp.Variable(2), cp.Parameter(name="a")
    problem = minimize(cp.sum_squares(x), cp.sum(x) == a, x >= 0)
    comparison = cvxfold.compare(problem, [a], [x], [torch.tensor(-1.0).double()], finite_differences=1)
    assert all(row.error for row in comparison.rows)
    assert "nothing to compare with" in comparison.verdict
    assert "No finite differences: InfeasibleError" in comparison.verdict
    assert not comparison.agrees()
    json.dumps(comparison.to_dict(), allow_nan=False)


def test_a_gradient_without_influence_is_no_disagreement() -> None:
    """The bound is never active: its gradient is zero for one and rounding for the other."""
    x, a, h = cp.Variable(3), cp.Parameter(3, name="a"), cp.Parameter(3, name="h")
    problem = minimize(cp.sum_squares(x - a), x <= h)
    values = [torch.tensor([[1.0, 2.0, 3.0]]).double(), torch.tensor([[10.0, 10.0, 10.0]]).double()]
    comparison = cvxfold.compare(problem, [a, h], [x], values, upstream=("tight, dense",))
    assert comparison.agrees()


def test_progress_goes_through_all_steps() -> None:
    family = family_of("dense_qp5")
    seen: list[tuple[str, int, int]] = []
    quick(family, family.sample(1, 0), finite_differences=1, progress=lambda *step: seen.append(step))
    assert seen == [("cvxfold auto", 0, 3), (BEST, 1, 3), ("finite differences", 2, 3), ("", 3, 3)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    family = family_of("dense_qp5")
    comparison = quick(family, [value.cuda() for value in family.sample(3, 0)], finite_differences=2)
    assert comparison.agrees()
    assert comparison["cvxfold auto"].peak_bytes
