"""The layer for JAX, under the name that its module has in cvxpylayers too."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np

from cvxfold.errors import ParameterTypeError
from cvxfold.jax.callbacks import HostCall
from cvxfold.jax.primitives import solve_p
from cvxfold.layer.base import BaseLayer
from cvxfold.layer.options import LayerOptions
from cvxfold.layer.recall import Passes, Recall
from cvxfold.layer.solver_args import updated
from cvxfold.methods.unrolled import Unrolled
from cvxfold.problem.arguments import batch_sizes, check_count, name_of
from cvxfold.problem.structure import ParameterSpec
from cvxfold.report.report import Report


class CvxpyLayer(BaseLayer):
    """A differentiable convex optimization layer for JAX.

    Solves a parametrized CVXPY problem for a batch of parameter values at once and differentiates the
    solutions by folded optimization, under ``jax.jit``, ``vmap``, ``grad``, ``jacrev``, ``jvp``, ``jacfwd``,
    ``checkpoint`` and inside ``lax.scan``. A mapped call is one batch. ``layer.report`` tells how good the
    last solutions and gradients are. The solver runs on the host's CPU.

    Args:
        problem: a DPP-compliant problem. It is left as it was found.
        parameters: all parameters of the problem, in the order of the call's arguments.
        variables: the variables, or dual variables of constraints, to return.
        solver, gp, verbose, canon_backend, solver_args, **options: as for
            :class:`cvxfold.torch.CvxpyLayer`, but for ``backward="unrolled"``.

    Raises:
        ValueError: the problem is not DPP, ``parameters`` are not the problem's, a variable is not the
            problem's, or an option is out of range.
        TypeError: there is no option of a name that was given.

    Example:
        >>> x = cp.Variable(2)
        >>> A, b = cp.Parameter((3, 2)), cp.Parameter(3)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        >>> loss = jax.jit(lambda A, b: layer(A, b)[0].sum())
        >>> jax.grad(loss)(jnp.ones((8, 3, 2)), jnp.ones(3))
        >>> print(layer.report)
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[cp.Variable],
        solver: str | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            problem, parameters, variables, solver, gp, verbose, canon_backend, solver_args, **options
        )
        if isinstance(self.options.backward, Unrolled):
            raise ValueError("backward: 'unrolled' needs PyTorch's layer, cvxfold.torch.CvxpyLayer")
        self._recall = Recall()

    def __repr__(self) -> str:
        """As the layer for PyTorch shows itself."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def __call__(
        self, *params: Any, solver_args: Mapping[str, Any] | None = None, warm_start: bool = False
    ) -> tuple[jax.Array, ...]:
        """Solve for a batch of parameter values.

        Args:
            *params: one array for each parameter, of the parameter's shape or with a batch dimension before;
                unbatched ones hold for every instance. Integers count as JAX's default floats, and NumPy's
                arrays and numbers serve too. Complex and Hermitian parameters take complex or real arrays,
                imaginary ones complex arrays.
            solver_args: on top of the layer's own.
            warm_start: begin at the last batch's solutions, if it had the same size.

        Returns:
            One array for each of ``variables``, ``(*shape)`` or ``(B, *shape)``, in the parameters' dtype;
            complex where the variable is.

        Raises:
            ValueError, TypeError: bad parameters; the message names them. Bad values, such as NaN, and what
                follows are errors of JAX's runtime under ``jax.jit``, which quote the message.
            SolverError: instances without a solution; the message names them.
            ConvergenceError: with ``on_unconverged="raise"``.
        """
        options = updated(self.options, solver_args, self.session.said)
        specs = self.parameters_of_problem
        check_count(params, specs)
        arrays = [_as_array(*each) for each in zip(range(len(params)), params, specs, strict=True)]
        sizes, batch = batch_sizes([array.shape for array in arrays], specs)
        real = _real(jnp.result_type(*arrays)) if arrays else jnp.result_type(float)
        of_outputs = [_complex(real) if spec.is_complex else real for spec in self.variables_of_problem]
        of_parameters = [np.dtype(array.dtype) for array in arrays]
        call = HostCall(Passes(self, self._recall, options, warm_start), (of_parameters, of_outputs))
        if batch is not None:
            arrays = [
                jnp.expand_dims(array, 0) if size is None else array
                for array, size in zip(arrays, sizes, strict=True)
            ]
        return tuple(solve_p.bind(*arrays, call=call, leaves_state=False))

    @property
    def report(self) -> Report:
        """The record of the last call, also of one that raised an error; of no instance before the first.

        Of any thread: JAX calls back from threads of its own. Under ``jax.jit`` a call has been made once its
        results are ready (``jax.block_until_ready``).
        """
        return self.session.latest_report


def _as_array(number: int, value: Any, spec: ParameterSpec) -> jax.Array:
    """A JAX array of the parameter's numbers.

    Raises:
        ParameterTypeError: it is none.
    """
    name = name_of(number, spec)
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int | complex):
        raise ParameterTypeError(
            f"{name}: expected a jax.Array, got {type(value).__name__}; jax.numpy.asarray may make one of it"
        )
    array = jnp.asarray(value)
    kind = array.dtype
    if jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, jnp.bool_):
        array = array.astype(jnp.result_type(float))
    elif not jnp.issubdtype(kind, jnp.inexact):
        raise ParameterTypeError(f"{name}: expected a dtype of numbers, got {kind}")
    is_complex = jnp.issubdtype(array.dtype, jnp.complexfloating)
    if spec.field == "imaginary" and not is_complex:
        raise ParameterTypeError(
            f"{name}: expected a complex dtype, as the parameter is declared imaginary, got {kind}"
        )
    if spec.field == "real" and is_complex:
        raise ParameterTypeError(f"{name}: expected a dtype of real numbers, got {kind}")
    return array


def _real(dtype: Any) -> np.dtype[Any]:
    return np.dtype(jnp.finfo(dtype).dtype)


def _complex(dtype: Any) -> np.dtype[Any]:
    return np.dtype(jnp.result_type(dtype, jnp.complex64))
