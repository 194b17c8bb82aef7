"""The plugin in cvxpylayers' JAX layer, against the reference and against our layer."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from cvxfold import FoldedSolver
from problems.cases import case
from problems.families import FAMILIES, Family
from problems.layers import IN_PLUGINS, layer_of
from problems.marks import long, sliced

jax: Any = pytest.importorskip("jax")


class TestJax:
    @pytest.fixture(autouse=True)
    def double(self):
        from cvxpylayers.jax import CvxpyLayer

        self.Layer = CvxpyLayer
        jax.config.update("jax_enable_x64", True)
        yield
        jax.config.update("jax_enable_x64", False)

    def layer(self, family: Family, solver: Any = None) -> Any:
        return self.Layer(
            family.problem, family.parameters, family.variables, solver=solver or FoldedSolver()
        )

    @pytest.mark.parametrize("name", sliced(IN_PLUGINS, lambda name: name != "portfolio_mu"))
    def test_agrees_with_the_reference(self, name: str) -> None:
        c = case(name, 3, 3)
        layer, arrays = self.layer(c.family), [jax.numpy.asarray(p.numpy()) for p in c.params]

        def loss(*given: Any) -> Any:
            return sum((o * v.numpy()).sum() for o, v in zip(layer(*given), c.weights, strict=True))

        for ours, theirs in zip(layer(*arrays), c.values, strict=True):
            np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), rtol=1e-7, atol=1e-8)
        found = jax.grad(loss, argnums=tuple(range(len(arrays))))(*arrays)
        for ours, theirs in zip(found, c.gradients, strict=True):
            np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), rtol=1e-6, atol=1e-7)

    def test_one_instance_in_float32(self) -> None:
        family = FAMILIES["dense_qp5"]()
        params = [p[0] for p in family.sample(1, 3)]
        jax.config.update("jax_enable_x64", False)
        layer = self.layer(family)
        arrays = [jax.numpy.asarray(p.numpy(), dtype="float32") for p in params]
        (expected,) = layer_of(family)(*params)
        (found,) = layer(*arrays)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.asarray(found), expected.numpy(), rtol=1e-4, atol=1e-5)
        gradient = jax.grad(lambda q: layer(arrays[0], q, *arrays[2:])[0].sum())(arrays[1])
        assert gradient.dtype == np.float32
        assert bool(jax.numpy.isfinite(gradient).all())

    def test_tracing_is_refused_clearly(self) -> None:
        family = FAMILIES["portfolio_mu"]()
        (mu,) = (jax.numpy.asarray(p.numpy()) for p in family.sample(2, 3))
        layer = self.layer(family)
        with pytest.raises(TypeError, match=r"jax\.jit"):
            jax.jit(layer)(mu)
        with pytest.raises(TypeError, match=r"batch dimension"):
            jax.vmap(layer)(mu)

    def test_arrays_are_shared_not_copied(self) -> None:
        from cvxfold.upstream.jax_bridge import to_jax, to_torch

        tensor = torch.arange(6, dtype=torch.float64).reshape(2, 3)
        assert to_jax(tensor).unsafe_buffer_pointer() == tensor.data_ptr()
        array = jax.numpy.arange(6.0)
        assert to_torch(array).data_ptr() == array.unsafe_buffer_pointer()

    @long
    def test_no_mlx_needed(self) -> None:
        code = """
import sys
sys.modules["mlx"] = sys.modules["mlx.core"] = None
import cvxpy as cp, jax, jax.numpy as jnp
from cvxpylayers.jax import CvxpyLayer
from cvxfold import FoldedSolver
x, a = cp.Variable(2), cp.Parameter(2)
layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a))), [a], [x], solver=FoldedSolver())
print(jax.grad(lambda a: layer(a)[0].sum())(jnp.ones(2)))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "[1. 1.]" in done.stdout.replace("0.99999994", "1.")
