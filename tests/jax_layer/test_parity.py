"""JAX's layer beside PyTorch's, and both beside the reference."""

from typing import Any

import numpy as np
import pytest
import torch

from problems.cases import case, errors, evaluate
from problems.jax_layers import double, jax, jax_layer_of
from problems.layers import ALL, QUICK, layer_of
from problems.marks import sliced

__all__ = ["double"]
pytestmark = pytest.mark.usefixtures("double", "engine")
FEW = ("robust_portfolio", "multi_label")


@pytest.mark.parametrize("name", sliced(ALL, lambda name: name not in FEW))
def test_solutions_and_gradients(name: str) -> None:
    """Within 1e-10 of PyTorch's, and within 1e-7 of the reference."""
    c = case(name, 4)
    layer, arrays = jax_layer_of(c.family), [jax.numpy.asarray(p.numpy()) for p in c.params]

    def loss(*given: Any) -> Any:
        return sum((o * w.numpy()).sum() for o, w in zip(layer(*given), c.weights, strict=True))

    values = [torch.from_numpy(np.array(value)) for value in jax.jit(layer)(*arrays)]
    gradients = jax.jit(jax.grad(loss, argnums=tuple(range(len(arrays)))))(*arrays)
    gradients = [torch.from_numpy(np.array(gradient)) for gradient in gradients]
    values_there, gradients_there = evaluate(layer_of(c.family), c)
    assert errors(values, values_there).max() < 1e-10
    assert errors(gradients, gradients_there).max() < 1e-10
    assert errors(values, c.values).max() < 1e-7
    assert errors(gradients, c.gradients).max() < 1e-7
    assert layer.report.backward.converged.all()


@pytest.mark.parametrize("name", sliced(QUICK, lambda name: name != "multi_label"))
def test_tangents(name: str) -> None:
    """⟨v, J d⟩ = ⟨Jᵀ v, d⟩ for the reference's Jᵀ v."""
    c = case(name, 4)
    layer, arrays = jax_layer_of(c.family), [jax.numpy.asarray(p.numpy()) for p in c.params]
    rng = np.random.default_rng(0)
    dots = [jax.numpy.asarray(rng.standard_normal(array.shape)) for array in arrays]
    _, moved = jax.jit(lambda arrays, dots: jax.jvp(layer, arrays, dots))(tuple(arrays), tuple(dots))
    found = products(c.weights, moved)
    expected = products(c.gradients, dots)
    assert np.abs(found.sum(1) - expected.sum(1)).max() < 1e-6 * np.linalg.norm(expected, axis=1).max()


def products(tensors: list[torch.Tensor], arrays: Any) -> np.ndarray:
    """Entry by entry, ``(4, ·)``."""
    pairs = zip(tensors, arrays, strict=True)
    return np.concatenate([(a.numpy() * np.asarray(b)).reshape(4, -1) for a, b in pairs], axis=1)
