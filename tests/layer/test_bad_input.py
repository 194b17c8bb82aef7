"""Bad input gives a clear error before anything is solved."""

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

F64 = torch.float64


def _layer(**options: Any) -> CvxpyLayer:
    """½‖x − c‖² with Ax ≤ b; parameters A (3, 2), b (3,), c (2,)."""
    x = cp.Variable(2, name="x")
    A, b, c = cp.Parameter((3, 2), name="A"), cp.Parameter(3, name="b"), cp.Parameter(2, name="c")
    problem = minimize(0.5 * cp.sum_squares(x - c), A @ x <= b)
    return CvxpyLayer(problem, [A, b, c], [x], **options)


def _params() -> list[Tensor]:
    return [torch.ones(3, 2, dtype=F64), torch.ones(3, dtype=F64), torch.zeros(2, dtype=F64)]


@pytest.fixture(scope="module")
def layer() -> CvxpyLayer:
    return _layer()


# the call


@pytest.mark.parametrize("count", [0, 2, 4])
def test_wrong_number(layer: CvxpyLayer, count: int) -> None:
    params = (_params() + _params())[:count]
    with pytest.raises(ValueError, match="A tensor must be provided for each CVXPY parameter") as error:
        layer(*params)
    said(error, str(count), "3")


@pytest.mark.parametrize(
    ("index", "shape", "message"),
    [
        (0, (2, 3), "Invalid parameter shape"),
        (1, (4,), "Invalid parameter shape"),
        (0, (5, 2, 3), "Invalid parameter shape"),
        (1, (5, 4), "Invalid parameter shape"),
        (1, (), "Invalid parameter dimensionality"),
        (1, (2, 2, 3), "Invalid parameter dimensionality"),
        (0, (6,), "Invalid parameter dimensionality"),
    ],
)
def test_wrong_shape(layer: CvxpyLayer, index: int, shape: tuple[int, ...], message: str) -> None:
    params = _params()
    params[index] = torch.ones(shape, dtype=F64)
    with pytest.raises(ValueError, match=message) as error:
        layer(*params)
    said(error, "Abc"[index])


def test_shape_error_says_what_was_expected_and_given(layer: CvxpyLayer) -> None:
    A, _, c = _params()
    with pytest.raises(ValueError, match="Invalid parameter shape") as error:
        layer(A, torch.ones(4, dtype=F64), c)
    said(error, "b", "3", "4")


def test_inconsistent_batches(layer: CvxpyLayer) -> None:
    A, b, c = _params()
    with pytest.raises(ValueError, match="Inconsistent batch sizes") as error:
        layer(A.expand(4, 3, 2), b, c.expand(5, 2))
    said(error, "4", "5")


def test_batch_of_one_is_not_broadcast_to_a_larger_batch(layer: CvxpyLayer) -> None:
    """As upstream: a leading 1 is a batch size like any other."""
    A, b, c = _params()
    with pytest.raises(ValueError, match="Inconsistent batch sizes"):
        layer(A.expand(1, 3, 2), b, c.expand(5, 2))


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_wrong_dtype(layer: CvxpyLayer, dtype: torch.dtype) -> None:
    A, b, c = _params()
    with pytest.raises(TypeError) as error:
        layer(A, b.to(dtype), c)
    said(error, "b", str(dtype))
    with pytest.raises(TypeError) as error:
        layer(A, b.to(dtype).numpy(), c)
    said(error, "b", "torch.complex128")  # an array's


@pytest.mark.parametrize("value", [[1.0, 1.0, 1.0], np.array(["b"] * 3), "b"])
def test_not_a_tensor(layer: CvxpyLayer, value: Any) -> None:
    A, _, c = _params()
    with pytest.raises(TypeError) as error:
        layer(A, value, c)
    said(error, "b", type(value).__name__)


@pytest.mark.parametrize("kind", [TypeError, AttributeError])
def test_none_is_also_the_error_upstream_raises(layer: CvxpyLayer, kind: type[Exception]) -> None:
    A, _, c = _params()
    with pytest.raises(kind) as error:
        layer(A, None, c)
    said(error, "b")


def test_different_devices(layer: CvxpyLayer) -> None:
    A, b, c = _params()
    with pytest.raises(ValueError, match="device") as error:
        layer(A, b.to("meta"), c)
    said(error, "b", "meta", "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(layer: CvxpyLayer, value: float) -> None:
    A, b, c = _params()
    batch = b.expand(6, 3).clone()
    batch[1, 0] = batch[4, 2] = value
    with pytest.raises(ValueError, match="b") as error:
        layer(A, batch, c)
    said(error, "b", "1", "4")
    with pytest.raises(ValueError, match="b") as error:
        layer(A, batch[1], c)
    said(error, "b")


@pytest.mark.parametrize("at_call", [True, False])
def test_unknown_solver_args(at_call: bool) -> None:
    arguments = {"max_itres": 5}
    with pytest.raises(ValueError, match="max_itres") as error:
        _layer()(*_params(), solver_args=arguments) if at_call else _layer(solver_args=arguments)
    said(error, "max_itres", "max_iters")


def test_tensors_in_a_list(layer: CvxpyLayer) -> None:
    with pytest.raises(ValueError, match=r"expected 3 \(A, b, c\).*layer\(\*tensors\)"):
        layer(_params())  # type: ignore[arg-type]
    x, q = cp.Variable(3), cp.Parameter(3, name="q")
    with pytest.raises(TypeError, match=r"\(q\).*got list.*layer\(\*tensors\)"):
        CvxpyLayer(minimize(cp.sum_squares(x - q)), [q], [x])([torch.ones(3)])  # type: ignore[arg-type]


def test_a_third_derivative_names_the_way_to_it(layer: CvxpyLayer) -> None:
    A, b, c = _params()
    c.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(A, b, c)[0].pow(3).sum(), c, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), c, create_graph=True)
    with pytest.raises(NotImplementedError, match="finite differences"):
        second.sum().backward()


# the constructor


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backward": "magic"}, ("backward", "magic", "auto", "direct", "gmres", "lfpi")),
        ({"on_unconverged": "explode"}, ("on_unconverged", "explode", "warn", "raise", "ignore")),
        ({"tol": -1e-8}, ("tol",)),
        ({"tol": float("nan")}, ("tol",)),
        ({"max_iters": -1}, ("max_iters",)),
        ({"backward_tol": -1.0}, ("backward_tol",)),
        ({"backward_max_iters": -3}, ("backward_max_iters",)),
    ],
)
def test_bad_option(options: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))) as error:
        _layer(**options)
    said(error, *words)


def test_not_dpp() -> None:
    x, a, b = cp.Variable(2), cp.Parameter(), cp.Parameter()
    with pytest.raises(ValueError, match="must be DPP"):
        CvxpyLayer(minimize(cp.sum_squares(x - 1), a * b * x[0] <= 1), [a, b], [x])


def test_not_convex() -> None:
    x, a = cp.Variable(2), cp.Parameter(2)
    with pytest.raises(ValueError, match="must be DPP"):
        CvxpyLayer(minimize(-cp.sum_squares(x - a)), [a], [x])


@pytest.mark.parametrize("which", ["missing", "foreign", "none"])
def test_parameters_that_do_not_match(which: str) -> None:
    x, a, b, other = cp.Variable(2), cp.Parameter(2), cp.Parameter(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x - a), x <= b)
    given = {"missing": [a], "foreign": [a, b, other], "none": []}[which]
    with pytest.raises(ValueError, match=r"must exactly match problem\.parameters"):
        CvxpyLayer(problem, given, [x])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a", ("missing: b",)),
        ("abo", ("not the problem's: o",)),
        ("o", ("missing: a, b", "not the problem's: o")),
        ("aba", ("a is given twice",)),
    ],
)
def test_parameters_that_do_not_match_are_named(given: str, words: tuple[str, ...]) -> None:
    x, a, b, o = cp.Variable(2), *(cp.Parameter(2, name=name) for name in "abo")
    parameters = {"a": a, "b": b, "o": o}
    with pytest.raises(ValueError, match=r"must exactly match problem\.parameters") as error:
        CvxpyLayer(minimize(cp.sum_squares(x - a), x <= b), [parameters[name] for name in given], [x])
    said(error, *words)


def test_parameters_and_variables_of_another_kind() -> None:
    x, a = cp.Variable(2), cp.Parameter(2, name="a")
    positive: Any = x >= 0
    problem = minimize(cp.sum_squares(x - a), positive)
    for parameters, variables, error, words in (
        ([a], [x, positive], ValueError, "dual_variables[0]"),
        ([a], [x, positive.dual_variables], ValueError, "dual_variables[0]"),
        ([a], [positive.dual_value], ValueError, "dual_variables[0]"),
        ([a], [2 * x], ValueError, "add a variable and a constraint"),
        ([a], x, ValueError, "list or tuple"),
        (a, [x], ValueError, "list or tuple"),
        ([np.ones(2)], [x], TypeError, "parameters[0]"),
    ):
        with pytest.raises(error) as caught:
            CvxpyLayer(problem, parameters, variables)  # type: ignore[arg-type]
        said(caught, words)


def test_parameters_that_cvxpy_computes_or_packs() -> None:
    x = cp.Variable(2)
    square = cp.CallbackParam(lambda: np.zeros(2), (2,))
    with pytest.raises(ValueError, match=r"CallbackParam.*PyTorch"):
        CvxpyLayer(minimize(cp.sum_squares(x - square)), [square], [x])
    D = cp.Parameter((2, 2), name="D", sparsity=[(0, 1), (1, 0)])
    with pytest.raises(ValueError, match=r"parameter D: sparse parameters are not supported"):
        CvxpyLayer(minimize(cp.sum_squares(D @ x - 1)), [D], [x])


def test_the_part_that_is_not_dpp_is_quoted() -> None:
    x, a, b = cp.Variable(2, name="x"), cp.Parameter(name="a"), cp.Parameter(name="b")
    Q = cp.Parameter((2, 2), PSD=True, name="Q")
    form = cp.quad_form(x, Q)
    for problem, quoted in (
        (minimize(form + cp.sum_squares(x - 1), a * b * x[0] <= 1), "in a * b, within a * b * x[0] <= 1.0"),
        (minimize(form + cp.exp(a * b) * x[0]), "in a * b, within minimize"),
        (minimize(cp.sum(x), form <= 1), "in QuadForm(x, Q), within"),
    ):
        with pytest.raises(ValueError, match="must be DPP") as error:
            CvxpyLayer(problem, problem.parameters(), [x])
        said(error, quoted)
    with pytest.raises(ValueError, match="not convex") as error:
        CvxpyLayer(minimize(cp.sum(x), cp.sqrt(x) <= a), [a], [x])
    said(error, "<= a")


def test_what_cvxpy_fails_on_is_quoted() -> None:
    """cvxpy has no canonical form for a quadratic objective in |x| beside a parameter for a matrix."""
    x, Q = cp.Variable(2, name="x"), cp.Parameter((2, 2), PSD=True, name="Q")
    problem = minimize(cp.quad_form(cp.abs(x), np.eye(2)) + cp.quad_form(x, Q), x >= 1)
    with pytest.raises(ValueError, match=r"could not canonicalize the objective minimize QuadForm\(abs\(x\)"):
        CvxpyLayer(problem, [Q], [x])


def test_variable_of_another_problem() -> None:
    x, y, a = cp.Variable(2), cp.Variable(2), cp.Parameter(2)
    with pytest.raises(ValueError, match=r"must be a subset of problem\.variables"):
        CvxpyLayer(minimize(cp.sum_squares(x - a)), [a], [x, y])


def test_not_a_problem() -> None:
    with pytest.raises(TypeError):
        CvxpyLayer(None, [], [])  # type: ignore[arg-type]


def test_integer_variables() -> None:
    x, a = cp.Variable(2, integer=True), cp.Parameter(2)
    with pytest.raises(ValueError, match="integer"):
        CvxpyLayer(minimize(cp.sum_squares(x - a)), [a], [x])


def test_warning_points_at_the_callers_line() -> None:
    x, q = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - q)), [x >= 0]), [q], [x], max_iters=1, refine=False
    )
    with pytest.warns(cvxfold.ConvergenceWarning) as caught:
        layer(torch.ones(3))
    assert caught[0].filename == __file__


def test_sparse_and_meta_tensors_are_refused() -> None:
    x, q = cp.Variable(3), cp.Parameter(3, name="q")
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - q)), [x >= 0]), [q], [x])
    with pytest.raises(TypeError, match="parameter 0 \\(q\\): expected a dense tensor"):
        layer(torch.ones(3).to_sparse())
    with pytest.raises(ValueError, match="parameter 0 \\(q\\): expected a tensor with values"):
        layer(torch.ones(3, device="meta"))


def test_what_is_wrong_with_a_problem_that_is_not_dpp() -> None:
    x, a, b = cp.Variable(pos=True), cp.Parameter(pos=True), cp.Parameter(pos=True)
    free = cp.Variable()
    geometric: Any = cp.power(x, -1)
    for problem, word in (
        (minimize(cp.sqrt(free) - a), "not convex"),
        (minimize(x, a * geometric * cp.power(x, 0.5) <= 1), "gp=True"),
        (minimize(cp.square(x - a * b)), "DPP"),
    ):
        with pytest.raises(ValueError, match=f"must be DPP.*{word}"):
            CvxpyLayer(problem, problem.parameters(), problem.variables())
    with pytest.raises(ValueError, match=f"no geometric program.*: -{a.name()}, within minimize"):
        CvxpyLayer(minimize(cp.square(x - a)), [a], [x], gp=True)
    with pytest.raises(ValueError, match=rf"no geometric program.*: {free.name()}, within"):
        CvxpyLayer(minimize(x * a, x >= free), [a], [x], gp=True)


@pytest.mark.parametrize("name", ["refine", "rescue"])
def test_flags_are_true_or_false(name: str) -> None:
    x, a = cp.Variable(), cp.Parameter()
    options: dict[str, Any] = {name: "no"}
    with pytest.raises(ValueError, match=f"{name}: expected True or False, got 'no'"):
        CvxpyLayer(minimize(cp.square(x - a)), [a], [x], **options)


def test_a_callback_that_cannot_be_called() -> None:
    x, a = cp.Variable(), cp.Parameter()
    with pytest.raises(TypeError, match="callback: expected a function of a report, got int"):
        CvxpyLayer(minimize(cp.square(x - a)), [a], [x]).on_report(3)  # type: ignore[arg-type]


def test_errors_about_instances_without_a_solution_name_the_way_around_them() -> None:
    x, a = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(minimize(cp.square(x), x >= a, x <= 0), [a], [x])
    with pytest.raises(cvxfold.InfeasibleError, match=r"\[1\] are infeasible.*on_unsolvable='nan'"):
        layer(torch.tensor([-1.0, 1.0]))
