"""The JAX layer as a field of Equinox' and Flax' models: gradients of weights against a closed form's."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from problems.jax_layers import close, double, jax

__all__ = ["double"]
pytestmark = pytest.mark.usefixtures("double")


def shares() -> Any:
    """The projection of a point ``(4,)`` onto the simplex."""
    from cvxfold.jax import CvxpyLayer

    x, b = cp.Variable(4), cp.Parameter(4)
    simplex: list[Any] = [x >= 0, cp.sum(x) == 1]
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b)), simplex), [b], [x])


def projected(point: Any) -> Any:
    """The same in closed form: max(point − τ, 0), τ from the sorted entries (Held et al., 1974)."""
    falling = -jax.numpy.sort(-point)
    excess = (jax.numpy.cumsum(falling) - 1) / jax.numpy.arange(1, point.size + 1)
    return jax.numpy.maximum(point - excess[jax.numpy.sum(falling > excess) - 1], 0)


def samples() -> tuple[Any, Any, Any, Any]:
    """Features ``(16, 3)``, wanted shares ``(16, 4)``, a weight ``(4, 3)`` and a bias ``(4,)``."""
    rng = np.random.default_rng(0)
    shapes = (16, 3), (16, 4), (4, 3), (4,)
    return tuple(jax.numpy.asarray(rng.standard_normal(shape)) for shape in shapes)


def expected() -> tuple[Any, Any]:
    """The gradients of Σ (projection − wanted)² with respect to weight and bias."""
    features, wanted, weight, bias = samples()

    def error(weight: Any, bias: Any) -> Any:
        return ((jax.vmap(projected)(features @ weight.T + bias) - wanted) ** 2).sum()

    return jax.grad(error, argnums=(0, 1))(weight, bias)


def with_equinox() -> tuple[Any, Any]:
    eqx = pytest.importorskip("equinox")
    features, wanted, weight, bias = samples()

    class Model(eqx.Module):
        linear: Any
        layer: Any = eqx.field(static=True)

        def __call__(self, features: Any) -> Any:
            return self.layer(self.linear(features))[0]

    linear = eqx.nn.Linear(3, 4, key=jax.random.key(0))
    linear = eqx.tree_at(lambda linear: (linear.weight, linear.bias), linear, (weight, bias))

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(model: Any) -> Any:
        return ((jax.vmap(model)(features) - wanted) ** 2).sum()

    found = gradient(Model(linear, shares())).linear
    return found.weight, found.bias


def with_nnx() -> tuple[Any, Any]:
    nnx = pytest.importorskip("flax.nnx")
    features, wanted, weight, bias = samples()

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.linear = nnx.Linear(3, 4, param_dtype=float, rngs=nnx.Rngs(0))
            self.layer = shares()

        def __call__(self, features: Any) -> Any:
            return self.layer(self.linear(features))[0]

    model = Model()
    model.linear.kernel[...], model.linear.bias[...] = weight.T, bias
    found = nnx.jit(nnx.grad(lambda model: ((model(features) - wanted) ** 2).sum()))(model)["linear"]
    return found["kernel"][...].T, found["bias"][...]


def with_linen() -> tuple[Any, Any]:
    nn = pytest.importorskip("flax.linen")
    features, wanted, weight, bias = samples()

    class Model(nn.Module):
        layer: Any

        @nn.compact
        def __call__(self, features: Any) -> Any:
            return self.layer(nn.Dense(4)(features))[0]

    model = Model(shares())
    weights = {"params": {"Dense_0": {"kernel": weight.T, "bias": bias}}}
    error = jax.grad(lambda weights: ((model.apply(weights, features) - wanted) ** 2).sum())
    found = jax.jit(error)(weights)["params"]["Dense_0"]
    return found["kernel"].T, found["bias"]


@pytest.mark.parametrize("gradients", [with_equinox, with_nnx, with_linen])
def test_gradients_of_a_models_weights(gradients: Callable[[], tuple[Any, Any]]) -> None:
    for found, true in zip(gradients(), expected(), strict=True):
        assert np.abs(true).max() > 0.1
        close(found, true)
