"""Calls of JAX's layer: dtypes, reports, warnings, bad input."""

import copy
import pickle
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import cvxfold
from problems.cases import said
from problems.jax_layers import close, data, double, jax, regression
from problems.marks import long, sliced

__all__ = ["double"]


@pytest.mark.parametrize("compiled", sliced([False, True], lambda compiled: not compiled))
def test_single_precision_without_x64(compiled: bool) -> None:
    """Results are those of double precision to a rounding: the state between the passes loses nothing."""
    layer, twin = regression()
    rng = np.random.default_rng(0)
    A, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 6, 4), (3, 6)))
    import torch

    exact = [torch.from_numpy(value).double().requires_grad_() for value in (A, b)]
    (x,) = twin(*exact)
    expected = torch.autograd.grad((x**3).sum(), exact)
    grad = jax.grad(lambda A, b: (layer(A, b)[0] ** 3).sum(), argnums=(0, 1))
    solve = jax.jit(layer) if compiled else layer
    (found,) = solve(A, b)
    assert found.dtype == np.float32
    close(found, x.detach().numpy(), 1e-7)
    for ours, true in zip((jax.jit(grad) if compiled else grad)(A, b), expected, strict=True):
        assert ours.dtype == np.float32
        close(ours, true, 1e-6)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (("float32", "float32"), "float32"),
        (("float32", "float64"), "float64"),
        (("int32", "float32"), "float64"),
        (("int32", "int32"), "float64"),
        (("bfloat16", "bfloat16"), "bfloat16"),
    ],
)
def test_dtypes(given: tuple[str, str], returned: str) -> None:
    layer, _ = regression()
    A = jax.numpy.asarray(np.eye(6, 4), given[0])
    b = jax.numpy.asarray([1, 2, 3, 0, 1, 0], given[1])
    assert layer(A, b)[0].dtype == returned
    if not given[1].startswith("int"):
        gradient = jax.jit(jax.grad(lambda b: layer(A, b)[0].sum().astype(float)))(b)
        assert gradient.dtype == given[1]
        close(np.asarray(gradient, float), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0], 1e-2)


@pytest.mark.usefixtures("double")
def test_arrays_of_numpy_and_numbers() -> None:
    from cvxfold.jax import CvxpyLayer

    x, a = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - a)), [x >= 0]), [a], [x])
    close(layer(2.0)[0], 2.0, 1e-8)
    close(layer(np.array([1.0, -1.0]))[0], [1.0, 0.0], 1e-8)
    assert layer(jax.numpy.zeros(0))[0].shape == (0,)
    assert jax.jit(jax.grad(lambda a: layer(a)[0].sum()))(jax.numpy.zeros(0)).shape == (0,)


@pytest.mark.usefixtures("double")
def test_the_report() -> None:
    layer, _ = regression()
    assert regression()[0].report.forward.status == []
    A, b = data()
    jax.block_until_ready(jax.jit(layer)(A, b))
    assert layer.report.forward.status == [cvxfold.Status.SOLVED] * 3
    assert layer.report.backward is None
    jax.block_until_ready(jax.jit(jax.grad(lambda b: layer(A, b)[0].sum()))(b))
    assert "3 converged" in str(layer.report)
    with cvxfold.Monitor(layer) as monitor:
        jax.block_until_ready(jax.jit(jax.grad(lambda b: layer(A, b)[0].sum()))(b))
    assert (monitor.forward_calls, monitor.backward_calls) == (1, 1)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("compiled", [False, True])
def test_what_does_not_converge(compiled: bool) -> None:
    A, b = data()
    for how in ("warn", "raise", "ignore"):
        layer, _ = regression(on_unconverged=how, max_iters=1, refine=False)
        solve = jax.jit(layer) if compiled else layer
        if how == "raise":
            with pytest.raises(RuntimeError, match="did not reach the tolerance"):
                jax.block_until_ready(solve(A, b))
        elif how == "warn":
            with pytest.warns(cvxfold.ConvergenceWarning, match="did not reach the tolerance"):
                jax.block_until_ready(solve(A, b))
        else:
            jax.block_until_ready(solve(A, b))
        assert layer.report.forward.status == [cvxfold.Status.UNCONVERGED] * 3


def test_a_warning_points_at_the_callers_line() -> None:
    layer, _ = regression(max_iters=1, refine=False)
    with pytest.warns(cvxfold.ConvergenceWarning) as caught:
        layer(*data())
    assert caught[0].filename == __file__


def infeasible_beyond_zero(**options: Any) -> Any:
    """x² with a ≤ x ≤ 0."""
    from cvxfold.jax import CvxpyLayer

    x, a = cp.Variable(), cp.Parameter(name="a")
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x)), [x >= a, x <= 0]), [a], [x], **options)


@pytest.mark.usefixtures("double")
def test_instances_without_a_solution() -> None:
    layer = infeasible_beyond_zero()
    values = jax.numpy.asarray([-1.0, 1.0])
    with pytest.raises(cvxfold.InfeasibleError, match=r"\[1\] are infeasible"):
        layer(values)
    with pytest.raises(RuntimeError, match=r"InfeasibleError: instances \[1\] are infeasible"):
        jax.block_until_ready(jax.jit(layer)(values))
    layer = infeasible_beyond_zero(on_unsolvable="nan")
    (found,) = jax.jit(layer)(values)
    close(found[0], 0.0, 1e-8)
    assert np.isnan(found[1])
    gradient = jax.jit(jax.grad(lambda a: layer(a)[0][0]))(values)
    assert gradient[1] == 0
    (found,) = layer(jax.numpy.asarray([np.nan, -1.0]))
    assert np.isnan(found[0])


@long
@pytest.mark.usefixtures("double")
def test_a_method_of_ones_own_and_another_solver() -> None:
    A, b = data()

    def gradient(layer: Any) -> Any:
        return jax.jit(jax.grad(lambda b: (layer(A, b)[0] ** 3).sum()))(b)

    expected = gradient(regression()[0])
    for options in ({"backward": "gmres"}, {"solver": "CLARABEL"}, {"refine": False, "tol": 1e-9}):
        layer, _ = regression(**options)
        close(gradient(layer), expected, 1e-5)
        assert layer.report.backward.method.startswith(options.get("backward", "direct"))


@pytest.mark.usefixtures("double")
def test_warm_starts_and_solver_args() -> None:
    layer, _ = regression()
    A, b = data()
    layer(A, b)
    cold = layer.report.forward.newton_steps + layer.report.forward.iterations
    expected = layer(A, b, warm_start=True)[0]
    jax.block_until_ready(jax.jit(lambda A, b: layer(A, b, warm_start=True))(A, b))
    warm = layer.report.forward.newton_steps + layer.report.forward.iterations
    assert (warm <= cold).all()
    assert warm.sum() < cold.sum()
    close(layer(A, b, solver_args={"eps": 1e-6})[0], expected, 1e-6)
    with pytest.raises(ValueError, match="unknown key 'epsilon'"):
        layer(A, b, solver_args={"epsilon": 1e-6})


def test_copies_and_files() -> None:
    layer, _ = regression()
    A, b = data()

    def gradient(layer: Any) -> Any:
        return jax.grad(lambda b: layer(A, b)[0].sum())(b)

    expected = gradient(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert len(other._recall) == 0
        close(gradient(other), expected, 1e-6)


def test_bad_input() -> None:
    layer, _ = regression()
    A, b = (np.asarray(value, np.float32) for value in data())
    for params, error, words in (
        ((A,), ValueError, ("2", "A tensor must be provided for each CVXPY parameter")),
        (([A, b],), ValueError, ("not in a list",)),
        ((A, b[:, :5]), ValueError, ("Invalid parameter shape", "b", "6", "5")),
        ((A[0, 0], b), ValueError, ("Invalid parameter dimensionality", "A")),
        ((A, b[:2]), ValueError, ("Inconsistent batch sizes", "3", "2")),
        ((A, [1.0] * 6), TypeError, ("b", "list")),
        ((A, b * 1j), TypeError, ("b", "real numbers", "complex64")),
        ((A, b * np.nan), ValueError, ("b", "finite values")),
    ):
        with pytest.raises(error) as caught:
            layer(*params)
        said(caught, *words)
        if "finite values" not in words:
            with pytest.raises(error), jax.checking_leaks():
                jax.jit(lambda params=params: layer(*params))()
    with pytest.raises(RuntimeError, match="parameter 1 \\(b\\): expected finite values, got NaN"):
        jax.block_until_ready(jax.jit(layer)(A, b * np.nan))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"unrolled.*cvxfold\.torch"):
        regression(backward="unrolled")
    with pytest.raises(TypeError, match="unknown option 'tolerance'"):
        regression(tolerance=1e-8)
    from cvxfold.jax import CvxpyLayer

    x, a, b = cp.Variable(2), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [a * b * x[0] <= 1])
    with pytest.raises(ValueError, match="must be DPP"):
        CvxpyLayer(problem, [a, b], [x])


def test_it_shows_itself_as_the_layer_for_pytorch_does() -> None:
    layer, twin = regression()
    assert repr(layer) == repr(twin)
    assert "A 6×4" in str(layer)
