"""The layer under JAX's transformations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.layer import recall
from problems.families import mpc
from problems.jax_layers import close, data, double, jax, jax_layer_of, regression, tensors
from problems.marks import long, sliced

__all__ = ["double"]
pytestmark = pytest.mark.usefixtures("double")


def cube(layer: Any) -> Any:
    """Σ x³ as a function of the parameters."""
    return lambda *params: (layer(*params)[0] ** 3).sum()


@contextmanager
def counted(layer: Any) -> Iterator[list[str]]:
    """The passes that listeners are told of."""
    passes: list[str] = []
    end = layer.on_report(lambda report: passes.append("forward" if report.backward is None else "backward"))
    yield passes
    end()


@pytest.mark.parametrize("engine", sliced(["auto", "tensors"], lambda name: name == "tensors"))
def test_jit_of_vmap_of_grad(engine: str) -> None:
    (layer, twin), (A, b) = regression(engine=engine), data()
    At, bt = tensors(A, b)
    expected = torch.autograd.grad((twin(At, bt)[0] ** 3).sum(), [At, bt])
    grad = jax.grad(cube(layer), argnums=(0, 1))
    for function in (grad, jax.jit(grad), jax.vmap(grad), jax.jit(jax.vmap(grad)), jax.vmap(jax.jit(grad))):
        for found, true in zip(function(A, b), expected, strict=True):
            close(found, true)


def test_a_mapped_call_is_one_batch_and_what_is_shared_stays_shared() -> None:
    layer, _ = regression(engine="tensors")
    A, b = data()
    seen, program = [], layer.program

    def watched(*params: torch.Tensor, **how: Any) -> Any:
        seen.append([tuple(param.shape) for param in params])
        return program(*params, **how)

    layer.program = watched
    twice_mapped = jax.vmap(jax.vmap(lambda A, b: layer(A, b)[0], (None, 0)), (None, 0))
    with counted(layer) as passes:
        jax.jit(twice_mapped)(A[0], jax.numpy.stack([b, b + 1])).block_until_ready()
    assert passes == ["forward"]
    assert seen == [[(6, 4), (6, 6)]]


def test_nested_maps() -> None:
    layer, _ = regression()
    A, b = data()
    solve = lambda A, b: layer(A, b)[0]  # noqa: E731
    nested = jax.vmap(jax.vmap(solve, (None, 0)), (0, None))
    found = nested(A, b)
    assert found.shape == (3, 3, 4)
    one_by_one = [[solve(A[i], b[j]) for j in range(3)] for i in range(3)]
    close(found, np.array(one_by_one))
    gradients = jax.jit(jax.grad(lambda A, b: (nested(A, b) ** 3).sum(), argnums=(0, 1)))(A, b)
    grad = jax.grad(cube(layer), argnums=(0, 1))
    pairs = [[grad(A[i], b[j]) for j in range(3)] for i in range(3)]
    close(gradients[0], np.array([sum(pairs[i][j][0] for j in range(3)) for i in range(3)]))
    close(gradients[1], np.array([sum(pairs[i][j][1] for i in range(3)) for j in range(3)]))


@long
def test_a_map_over_a_batched_call() -> None:
    layer, _ = regression()
    A, b = data()
    shifted = jax.numpy.stack([b, b + 1])
    found = jax.vmap(lambda b: layer(A, b)[0])(shifted)
    close(found[1], layer(A, b + 1)[0])
    grad = jax.grad(lambda A, b: cube(layer)(A, b), argnums=(0, 1))
    for one, all_ in zip(grad(A, b + 1), jax.vmap(grad, (None, 0))(A, shifted), strict=True):
        close(all_[1], one)


def test_broadcast_parameters_in_a_batched_call() -> None:
    (layer, twin), (A, b) = regression(), data()
    At, bt = tensors(A[0], b)
    expected = torch.autograd.grad((twin(At, bt)[0] ** 3).sum(), [At, bt])
    for found, true in zip(jax.jit(jax.grad(cube(layer), argnums=(0, 1)))(A[0], b), expected, strict=True):
        close(found, true)
    mapped = jax.vmap(jax.grad(cube(layer)), (None, 0))(A[0], b)
    close(mapped.sum(0), expected[0])


def differences(function: Any, value: Any, step: float = 1e-6) -> np.ndarray:
    """The Jacobian by central differences."""
    columns = []
    for place in np.ndindex(value.shape):
        move = np.zeros(value.shape)
        move[place] = step
        columns.append((np.asarray(function(value + move)) - np.asarray(function(value - move))) / (2 * step))
    return np.stack(columns, -1).reshape(*columns[0].shape, *value.shape)


def test_jacobians_against_differences() -> None:
    layer, _ = regression()
    A, b = data()
    solve = lambda A, b: layer(A, b)[0]  # noqa: E731
    expected = differences(lambda A: solve(A, b[1]), A[1])
    assert np.abs(expected).max() > 0.1
    for jacobian in (
        jax.jacrev(solve),
        jax.jacfwd(solve),
        jax.jit(jax.jacrev(solve)),
        jax.jit(jax.jacfwd(solve)),
    ):
        close(jacobian(A[1], b[1]), expected, 1e-7)
    for jacobian in (jax.jacrev, jax.jacfwd):
        close(jax.jit(jax.vmap(jacobian(solve)))(A, b)[1], expected, 1e-7)


def test_rows_of_a_jacobian_share_one_solve() -> None:
    layer, _ = regression()
    A, b = data()
    with counted(layer) as passes:
        jax.block_until_ready(jax.jit(jax.jacrev(lambda b: layer(A[0], b)[0]))(b[0]))
    assert passes == ["forward", *["backward"] * 4]


def simulated(layer: Any, start: Any, targets: Any) -> Any:
    """Model predictive control in closed loop, under ``lax.scan``: each plan's first input is applied."""
    step = jax.numpy.asarray(np.eye(4) * 0.9 + 0.05)

    def act(state: Any, target: Any) -> tuple[Any, Any]:
        plan, inputs = layer(state, target)
        state = step @ state + jax.numpy.concatenate([inputs[0], inputs[0]])
        return state, (plan[1], inputs[0])

    _, (plans, inputs) = jax.lax.scan(act, start, targets)
    return (plans**2).sum() + (inputs**3).sum()


@pytest.mark.parametrize("kept", sliced([256, 0], lambda kept: kept > 0))
def test_control_in_a_scan(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against differences; with the calls kept for the backward pass, and solved again."""
    monkeypatch.setattr(recall, "MOST_CALLS", kept)
    family = mpc(horizon=4)
    layer = jax_layer_of(family)
    _, targets = (np.asarray(value) for value in family.sample(3, 0))
    start = np.array([1.0, -0.5, 0.3, 0.2])
    loss = jax.jit(lambda start, targets: simulated(layer, start, targets))
    found = jax.jit(jax.grad(loss))(start, targets)
    close(found, differences(lambda start: loss(start, targets), start), 1e-7)
    _, along = jax.jvp(lambda start: loss(start, targets), (start,), (np.ones(4),))
    close(along, np.asarray(found).sum())
    remembered = jax.jit(jax.grad(jax.checkpoint(loss)))(start, targets)
    close(remembered, found)


def test_what_is_kept_stays_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = regression()
    A, b = data(8)
    grad = jax.jit(jax.grad(cube(layer)))
    grad(A, b).block_until_ready()
    one = layer._recall.bytes
    assert one > 0
    monkeypatch.setattr(recall, "MOST_BYTES", 3 * one + 1)
    for _ in range(10):
        grad(A, b).block_until_ready()
    assert len(layer._recall) == 3
    assert layer._recall.bytes == 3 * one


def test_what_takes_more_than_the_limit_is_solved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its solution: quietly, and to the same gradients, whatever order they come in."""
    layer, _ = regression()
    A, b = data()
    expected = jax.grad(cube(layer), argnums=(0, 1))(A, b)
    monkeypatch.setattr(recall, "MOST_BYTES", 0)
    with counted(layer) as passes:
        found = jax.jit(jax.grad(cube(layer), argnums=(0, 1)))(A, b)
        jax.block_until_ready(found)
    assert passes == ["forward", "backward"]
    for a, e in zip(found, expected, strict=True):
        close(a, e)
    _, pull = jax.vjp(lambda b: layer(A, b)[0], b)
    layer(A, b + 1)
    weights = jax.numpy.ones((3, 4))
    close(pull(weights)[0], jax.grad(lambda b: layer(A, b)[0].sum())(b))


def test_second_derivatives_are_refused() -> None:
    layer, _ = regression()
    A, b = data()

    def slope(b: Any) -> Any:
        return jax.grad(lambda b: cube(layer)(A[0], b))(b).sum()

    with pytest.raises(NotImplementedError, match="double backward"):
        jax.grad(slope)(b[0])
    with pytest.raises(NotImplementedError, match="double backward"):
        jax.jvp(slope, (b[0],), (b[0],))


def test_products_with_the_jacobian_and_its_transpose() -> None:
    """JᵀJ v, which differentiates neither J nor Jᵀ."""
    layer, _ = regression()
    A, b = data()
    solve = lambda b: layer(A[0], b)[0]  # noqa: E731
    _, pull = jax.vjp(solve, b[0])
    jacobian = np.asarray(jax.jacrev(solve)(b[0]))
    _, moved = jax.jvp(pull, (jax.numpy.zeros(4),), (jax.numpy.asarray(jacobian @ np.arange(6.0)),))
    close(moved[0], jacobian.T @ jacobian @ np.arange(6.0))
    push = jax.linear_transpose(lambda bar: pull(bar)[0], jax.numpy.zeros(4))
    close(push(jax.numpy.arange(6.0))[0], jacobian @ np.arange(6.0))


@long
def test_complex_numbers() -> None:
    """Projection onto the disc, p / max(1, |p|), with JAX's own gradient of it."""
    z, p = cp.Variable(3, complex=True), cp.Parameter(3, complex=True)
    cost = cp.sum_squares(cp.real(z - p)) + cp.sum_squares(cp.imag(z - p))
    from cvxfold.jax import CvxpyLayer

    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [cp.abs(z) <= 1]), [p], [z])
    rng = np.random.default_rng(0)
    value, weight = (2 * (rng.standard_normal((5, 3)) + 1j * rng.standard_normal((5, 3))) for _ in range(2))

    def loss(project: Any) -> Any:
        return lambda p: ((weight * project(p)).real + (project(p) * project(p)).imag).sum()

    def project(p: Any) -> Any:
        return p / jax.numpy.maximum(1.0, jax.numpy.abs(p))

    ours, theirs = loss(lambda p: layer(p)[0]), loss(project)
    close(layer(value)[0], project(value), 1e-8)
    close(jax.jit(jax.grad(ours))(jax.numpy.asarray(value)), jax.grad(theirs)(jax.numpy.asarray(value)), 1e-6)
    _, found = jax.jvp(ours, (value,), (weight,))
    close(found, jax.jvp(theirs, (value,), (weight,))[1], 1e-6)


def test_geometric_programs() -> None:
    """x + a/x is least at x = √a."""
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    from cvxfold.jax import CvxpyLayer

    layer = CvxpyLayer(cp.Problem(cp.Minimize(x + cp.power(x, -1) * a)), [a], [x], gp=True)
    values = jax.numpy.asarray([0.5, 1.0, 4.0])
    close(layer(values)[0], np.sqrt(values), 1e-8)
    solve = lambda a: layer(a)[0]  # noqa: E731
    for derivative in (jax.grad(solve), jax.jacfwd(solve)):
        close(jax.jit(jax.vmap(derivative))(values), 0.5 / np.sqrt(values), 1e-7)
