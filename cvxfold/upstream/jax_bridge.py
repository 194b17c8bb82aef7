"""Arrays between JAX and PyTorch, and what cvxpylayers' JAX layer expects of a solver."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class JaxSolver(Protocol):
    """What solves batches of JAX arrays: the plugin."""

    def solve_jax_batch(
        self, P: Any, q: Any, A: Any, dims: Any, solver_args: Mapping[str, Any], needs_grad: bool
    ) -> tuple[Any, Any, Any]:
        """x ``(B, n)``, y ``(B, m)`` and the state for the derivative."""
        ...

    def derivative_jax_batch(self, dprimal: Any, ddual: Any, saved_state: Any) -> tuple[Any, Any, Any]:
        """Loss gradients on P, q and A."""
        ...


def to_torch(array: Any) -> Tensor:
    """A JAX array as a tensor on its device, without a copy where PyTorch knows the device.

    Raises:
        TypeError: the array has no value yet, as under ``jax.jit`` and ``jax.vmap``.
    """
    from jax.core import Tracer

    if isinstance(array, Tracer):
        raise TypeError(
            "FoldedSolver: cvxpylayers' JAX layer calls its solver on values, so jax.jit, jax.vmap and "
            "jax.jacobian cannot trace it; call it outside of them, and use the layer's batch dimension"
        )
    try:
        return torch.from_dlpack(array)
    except (RuntimeError, BufferError, TypeError):
        return torch.from_numpy(np.array(array))


def to_jax(tensor: Tensor) -> Any:
    """A tensor as a JAX array on its device, without a copy where JAX knows the device."""
    import jax.numpy as jnp

    tensor = tensor.detach().contiguous()
    try:
        return jnp.from_dlpack(tensor)
    except (RuntimeError, BufferError, TypeError):
        return jnp.asarray(tensor.cpu().numpy())


@dataclass(frozen=True)
class JaxBridge:
    """Stands where cvxpylayers 1.2 keeps the context of its built-in solvers, for its JAX layer.

    Args:
        solver: the plugin. dims: the cone dimensions of the layer.
    """

    solver: JaxSolver
    dims: Any

    def jax_to_data(self, P: Any, q: Any, A: Any) -> "JaxData":
        """The data of a call, ``(nnz, B)`` or ``(nnz,)``."""
        return JaxData(self, P, q, A)


@dataclass(frozen=True)
class JaxData:
    """The data of one call, in cvxpylayers' layout."""

    bridge: JaxBridge
    P: Any
    q: Any
    A: Any

    def jax_solve(self, solver_args: Mapping[str, Any] | None = None, needs_grad: bool = True) -> Any:
        """x ``(B, n)``, y ``(B, m)`` and the state for :meth:`jax_derivative`."""
        P, q, A = (self._batch_first(value) for value in (self.P, self.q, self.A))
        solver = self.bridge.solver
        return solver.solve_jax_batch(P, q, A, self.bridge.dims, solver_args or {}, needs_grad)

    def jax_solve_only(self, solver_args: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """The same where no derivative will be asked for."""
        x, y, _ = self.jax_solve(solver_args, needs_grad=False)
        return x, y

    def jax_derivative(self, dprimal: Any, ddual: Any, state: Any) -> tuple[Any, Any, Any]:
        """Loss gradients on P, q and A in the layout that they came in."""
        gradients = self.bridge.solver.derivative_jax_batch(dprimal, ddual, state)
        P, q, A = (None if g is None else g[0] if self.q.ndim == 1 else g.T for g in gradients)
        return P, q, A

    @staticmethod
    def _batch_first(value: Any) -> Any:
        if value is None:
            return None
        return value[None] if value.ndim == 1 else value.T
