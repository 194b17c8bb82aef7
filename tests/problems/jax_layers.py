"""The JAX layer in tests: in double precision, beside PyTorch's layer of the same problem."""

from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from cvxfold.torch import CvxpyLayer as TorchLayer
from problems.families import Family
from problems.layers import canonicalized_once

jax: Any = pytest.importorskip("jax")


@pytest.fixture
def double() -> Iterator[None]:
    """JAX in double precision."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def jax_layer_of(family: Family, **options: Any) -> Any:
    """The JAX layer of a family's problem."""
    from cvxfold.jax import CvxpyLayer

    with canonicalized_once():
        return CvxpyLayer(family.problem, family.parameters, family.variables, **options)


def regression(**options: Any) -> tuple[Any, TorchLayer]:
    """‖Ax − b‖² + 0.1‖x‖₁ with x ≥ −0.3, from A ``(6, 4)`` and b ``(6,)``: JAX's layer and PyTorch's."""
    from cvxfold.jax import CvxpyLayer

    x, A, b = cp.Variable(4), cp.Parameter((6, 4), name="A"), cp.Parameter(6, name="b")
    cost = cp.sum_squares(A @ x - b) + 0.1 * cp.norm1(x)
    problem = cp.Problem(cp.Minimize(cost), [x >= -0.3])
    return CvxpyLayer(problem, [A, b], [x], **options), TorchLayer(problem, [A, b], [x], **options)


def data(batch: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """A ``(B, 6, 4)`` and b ``(B, 6)``."""
    rng = np.random.default_rng(seed)
    return jax.numpy.asarray(rng.standard_normal((batch, 6, 4))), jax.numpy.asarray(
        rng.standard_normal((batch, 6))
    )


def tensors(*arrays: Any) -> list[torch.Tensor]:
    """The same for PyTorch, with gradients wanted."""
    return [torch.from_numpy(np.array(array)).requires_grad_() for array in arrays]


def close(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Equal but for ``tolerance``, relative to the largest entry."""
    found, expected = (np.asarray(value) for value in (found, expected))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0.0) <= tolerance * max(
        1.0, np.abs(expected).max(initial=0.0)
    )
