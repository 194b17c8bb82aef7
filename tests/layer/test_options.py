"""Options that decide when to stop and what to do about it."""

import warnings
from typing import Any

import pytest

import cvxfold
from problems.cases import case, errors, evaluate, make_layer
from problems.quadratic import quadratic

pytestmark = pytest.mark.usefixtures("engine")


def test_too_few_iterations_warn_raise_or_pass() -> None:
    c = case("dense_qp20", 4)
    short: dict[str, Any] = {"max_iters": 1, "refine": False}
    layer = make_layer(c, **short)
    with pytest.warns(cvxfold.ConvergenceWarning):
        layer(*c.params)
    assert cvxfold.Status.SOLVED not in layer.report.forward.status
    with pytest.raises(cvxfold.ConvergenceError):
        make_layer(c, on_unconverged="raise", **short)(*c.params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_layer(c, on_unconverged="ignore", **short)(*c.params)
    assert issubclass(cvxfold.ConvergenceWarning, UserWarning)
    assert issubclass(cvxfold.ConvergenceError, RuntimeError)


@pytest.mark.parametrize("method", ["lfpi", "gmres"])
def test_too_few_backward_iterations_warn_raise_or_pass(method: str) -> None:
    c = case("dense_qp20", 4)
    short: dict[str, Any] = {"backward": method, "backward_max_iters": 1}
    layer = make_layer(c, **short)
    with pytest.warns(cvxfold.ConvergenceWarning):
        evaluate(layer, c)
    assert not layer.report.backward.converged.any()
    assert (layer.report.backward.residual > 1e-9).all()
    with pytest.raises(cvxfold.ConvergenceError):
        evaluate(make_layer(c, on_unconverged="raise", **short), c)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(make_layer(c, on_unconverged="ignore", **short), c)


def test_quiet_when_all_is_well(capfd: pytest.CaptureFixture[str]) -> None:
    c = case("portfolio", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(make_layer(c, on_unconverged="raise"), c)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize("at_call", [True, False])
def test_solver_args_are_honoured(at_call: bool) -> None:
    c = case("dense_qp20", 4)
    arguments = {"max_iters": 1}
    layer = make_layer(c, refine=False, solver_args=None if at_call else arguments)
    with pytest.warns(cvxfold.ConvergenceWarning):
        layer(*c.params, solver_args=arguments if at_call else None)
    assert (layer.report.forward.iterations <= 25).all()


def test_solver_args_of_a_call_override_those_of_the_layer() -> None:
    c = case("dense_qp20", 4)
    layer = make_layer(c, refine=False, solver_args={"max_iters": 1})
    values = layer(*c.params, solver_args={"max_iters": 100_000})
    assert errors(values, c.values).max() < 1e-5


def test_looser_tolerance_takes_fewer_iterations() -> None:
    c = case("dense_qp20", 4)
    counts = []
    for tol in (1e-3, 1e-9):
        layer = make_layer(c, refine=False, tol=tol, acceleration=0)
        layer(*c.params)
        counts.append(layer.report.forward.iterations.max().item())
    assert counts[0] < counts[1]


@pytest.mark.parametrize(
    ("name", "bad"),
    [("on_degenerate", "nan"), ("on_degenerate", True), ("on_unsolvable", "ignore"), ("on_unsolvable", None)]
    + [("proximal", value) for value in (-1.0, float("nan"), float("inf"), "1", True)]
    + [("time_limit", value) for value in (0, -1.0, float("nan"), "1", True)]
    + [(name, value) for name in ("max_iters", "backward_max_iters") for value in (0, -3, 1.5, True)],
)
def test_options_are_checked(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        quadratic(**{name: bad})


def test_proximal_is_refused_where_the_gradient_is_unrolled() -> None:
    with pytest.raises(ValueError, match="proximal"):
        quadratic(proximal=1.0, backward="unrolled")
