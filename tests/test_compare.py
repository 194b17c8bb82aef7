"""Who is right: the comparison with cvxpylayers, its adjoint residuals, and the finite differences."""

import json
import math
import pickle
import subprocess
import sys
from functools import cache
from typing import Any

import cvxpy as cp
import pytest
import scipy.sparse as sp
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer
from torch import Tensor

import cvxfold
from cases import case, errors, evaluate
from cone_families import CONE_FAMILIES
from cvxfold.comparison.contestants import MODES
from cvxfold.comparison.differences import _extrapolated
from cvxfold.comparison.recorder import Recorder, adjoint_residual
from cvxfold.cones import ConeDims, ProductCone
from cvxfold.fold import LFPI
from cvxfold.monitor.measure import timed
from cvxfold.torch import CvxpyLayer
from families import FAMILIES, Family, minimize

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")

OFF = ("dense_qp20", "robust_portfolio", "nearest_correlation", "portfolio")
BEST = "cvxpylayers tight, dense"


def family_of(name: str) -> Family:
    return (FAMILIES | CONE_FAMILIES)[name]()


@cache
def compared(name: str) -> cvxfold.Comparison:
    """All contestants on 4 instances of a family, with finite differences."""
    family = family_of(name)
    values = family.sample(4, 0)
    return cvxfold.compare(family.problem, family.parameters, family.variables, values, finite_differences=3)


def quick(family: Family, values: Any, **options: Any) -> cvxfold.Comparison:
    """cvxfold's default method and cvxpylayers at its best."""
    options = {"methods": ("auto",), "upstream": ("tight, dense",)} | options
    return cvxfold.compare(family.problem, family.parameters, family.variables, values, **options)


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
    tight = compared("dense_qp20")["cvxpylayers tight"]
    assert tight.solution_difference is not None
    assert tight.solution_difference < 1e-8
    assert tight.adjoint_residual is not None
    assert 1e-4 < tight.adjoint_residual < 1
    assert tight.gradient_difference is not None
    assert tight.gradient_difference > 1e-3


def test_verdict_names_the_one_who_is_right() -> None:
    comparison = compared("dense_qp20")
    assert "cvxfold auto is right" in comparison.verdict
    assert comparison.right == ("cvxfold auto", "cvxfold lfpi", BEST)
    assert "cvxpylayers default differs" in comparison.verdict
    assert not comparison.agrees()


def test_verdict_by_residuals_without_finite_differences() -> None:
    family = family_of("dense_qp20")
    comparison = quick(family, family.sample(4, 0), upstream=("tight", "tight, dense"))
    assert comparison.finite_differences is None
    assert "Adjoint residuals: " in comparison.verdict
    assert comparison.right == ("cvxfold auto", BEST)
    assert "cvxfold auto is right" in comparison.verdict
    assert comparison[BEST].finite_difference_error is None


@pytest.mark.parametrize("mode", ["default", "tight, dense"])
@pytest.mark.parametrize("name", ["dense_qp5", "robust_portfolio", "nearest_correlation", "multi_label"])
def test_recorder_computes_what_upstream_computes(name: str, mode: str) -> None:
    c = case(name, 3)
    family, arguments = c.family, MODES[mode]
    problems = [cp.Problem(family.problem.objective, family.problem.constraints) for _ in range(2)]
    plain = UpstreamLayer(problems[0], family.parameters, family.variables)
    recorder = Recorder()
    recording = UpstreamLayer(problems[1], family.parameters, family.variables, solver=recorder)
    found, expected = (evaluate(layer, c, solver_args=arguments) for layer in (recording, plain))
    assert errors(found[0], expected[0]).max() < 1e-12
    assert errors(found[1], expected[1]).max() < 1e-12
    assert recorder.residual is not None
    assert recorder.residual.shape == (3,)


def test_residual_of_exact_and_perturbed_adjoints() -> None:
    """Loss gradients made for p and v = (I − D) z: then (D − I)(ȳ − A p) = D v with ȳ = A p − D z."""
    generator = torch.Generator().manual_seed(0)
    cone = ProductCone(ConeDims(2, 3, (3,), (2,), 1))
    m, n = cone.dim, 6
    A, u, p, z = (
        torch.randn(*size, dtype=torch.float64, generator=generator)
        for size in ((m, n), (1, m), (1, n), (1, m))
    )
    D = cone.derivative(u)
    v = D.apply(lambda d: 1 - d, z)
    x_bar, y_bar = v @ A, p @ A.mT - D.apply(lambda d: d, z)
    matrices = [sp.csc_matrix(A.numpy())]
    assert adjoint_residual(matrices, cone, u, x_bar, y_bar, p, v) < 1e-12
    for dp, dv in ((0.01, 0.0), (0.0, 0.01)):
        off = adjoint_residual(matrices, cone, u, x_bar, y_bar, p * (1 + dp), v * (1 + dv))
        assert 1e-4 < float(off) < 1


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
    failed = cvxfold.comparison.Row("cvxpylayers default", False, error="ValueError: no")
    more = cvxfold.Comparison((*comparison.rows, failed), comparison.rtol, comparison.batch)
    assert comparison.agrees()
    assert more.agrees()
    assert "cvxpylayers default failed: ValueError: no." in more.verdict


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
    with pytest.raises(ValueError, match=r"compare\(layer, values\)"):
        cvxfold.compare(layer, family.parameters, family.variables, values)
    with pytest.raises(ValueError, match=r"compare\(problem, parameters, variables, values\)"):
        cvxfold.compare(family.problem, family.parameters, family.variables)


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


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda x: x, "expected a tensor of one number, got shape"),
        (lambda x: 1.0, "expected a tensor of one number, got float"),
        (lambda x: torch.zeros(()), "does not depend on the outputs"),
        (lambda x: x.nothing, "loss: AttributeError"),
    ],
)
def test_a_bad_loss_is_an_error(loss: Any, words: str) -> None:
    family = family_of("dense_qp5")
    with pytest.raises(ValueError, match=words):
        quick(family, family.sample(2, 0), loss=loss)


def test_bad_arguments_are_errors() -> None:
    family = family_of("dense_qp5")
    values = family.sample(2, 0)
    for options, words in (
        ({"upstream": ("exact",)}, "upstream: expected some of"),
        ({"methods": ()}, "methods: expected at least one"),
        ({"methods": ("nonsense",)}, "backward: expected one of"),
        ({"finite_differences": -1}, "finite_differences: expected how many"),
    ):
        with pytest.raises(ValueError, match=words):
            quick(family, values, **options)
    with pytest.raises(ValueError, match="values: expected a list"):
        quick(family, values[0])
    with pytest.raises(ValueError, match="A tensor must be provided"):
        quick(family, values[:2])


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


def test_table_and_record() -> None:
    comparison = compared("dense_qp20")
    shown = str(comparison)
    assert max(map(len, shown.splitlines())) <= 110
    for row in comparison.rows:
        assert row.name in shown
    record = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [row["name"] for row in record["rows"]] == [row.name for row in comparison.rows]
    assert record["agrees"] is False
    assert record["right"] == list(comparison.right)
    assert record["finite_differences"]["directions"] == 3
    for row in record["rows"]:
        assert row["forward_seconds"] > 0
        assert row["backward_seconds"] > 0
        assert len(row["solution_differences"]) == 4
        assert len(row["adjoint_residuals"]) == 4


def test_progress_goes_through_all_steps() -> None:
    family = family_of("dense_qp5")
    seen: list[tuple[str, int, int]] = []
    quick(family, family.sample(1, 0), finite_differences=1, progress=lambda *step: seen.append(step))
    assert seen == [("cvxfold auto", 0, 3), (BEST, 1, 3), ("finite differences", 2, 3), ("", 3, 3)]


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


MEASURE = """
import torch
from cvxfold.monitor.measure import measure
cpu = torch.device("cpu")
measured = measure(lambda: torch.ones(30_000_000).sum().item(), cpu)
print(measured.value, measured.seconds, measured.peak_bytes or "nan")
print(measure(lambda: None, cpu).peak_bytes or 0)
"""


def test_measure() -> None:
    """In a process of its own: a used one holds freed memory, in which the tensor would fit unseen."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    value, seconds, peak, nothing = map(float, done.stdout.split())
    assert value == 30_000_000
    assert seconds > 0
    if math.isfinite(peak):  # the system tells
        assert 100e6 < peak < 400e6
        assert nothing < 20e6
    found, elapsed = timed(lambda: 3, torch.device("cpu"))
    assert (found, elapsed >= 0) == (3, True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    family = family_of("dense_qp5")
    comparison = quick(family, [value.cuda() for value in family.sample(3, 0)], finite_differences=2)
    assert comparison.agrees()
    assert comparison["cvxfold auto"].peak_bytes
