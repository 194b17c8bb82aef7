"""The plugin: cvxfold as the solver of cvxpylayers' own layers, for PyTorch and for JAX."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from cvxpylayers.interfaces.base import SolverInterface
from torch import Tensor

from cvxfold.canonical import maps_of
from cvxfold.core import Call, Core, Solved
from cvxfold.monitor.report import Report
from cvxfold.options import BackwardMethod, OnUnconverged, Options
from cvxfold.parametrize import ProgramValues


@dataclass(frozen=True)
class _State:
    """What a solve leaves for its derivative."""

    call: Call
    solved: Solved
    dtype: torch.dtype


class FoldedSolver(SolverInterface):
    """cvxfold as a cvxpylayers ``SolverInterface``.

    Pass an instance as ``solver=`` to ``cvxpylayers.torch.CvxpyLayer`` or ``cvxpylayers.jax.CvxpyLayer``; it
    may serve several layers. The options are those of :class:`cvxfold.torch.CvxpyLayer`, and the layers'
    ``solver_args`` override them by call. ``report`` is the record of the last call.

    JAX arrays are handed to PyTorch and back without a copy where both know the device. cvxpylayers'
    JAX layer calls its solver on values: neither ``jax.jit`` nor ``jax.vmap`` can trace it; use the batch
    dimension instead.

    Args:
        solver: of the forward pass, as the layer's.
        backward, refine, tol, max_iters, backward_tol, backward_max_iters, on_unconverged, verbose: likewise.

    Raises:
        ValueError: an option is unknown or out of range.

    Example:
        >>> from cvxpylayers.torch import CvxpyLayer
        >>> layer = CvxpyLayer(problem, parameters=[A, b], variables=[x], solver=FoldedSolver())
    """

    canon_solver = "SCS"
    supports_quad_obj = True

    def __init__(
        self,
        *,
        solver: str | None = None,
        backward: BackwardMethod = "auto",
        refine: bool = True,
        tol: float = 1e-8,
        max_iters: int | None = None,
        backward_tol: float = 1e-9,
        backward_max_iters: int | None = None,
        on_unconverged: OnUnconverged = "warn",
        verbose: bool = False,
    ) -> None:
        self._options = Options.create(
            solver=solver,
            backward=backward,
            refine=refine,
            tol=tol,
            max_iters=max_iters,
            backward_tol=backward_tol,
            backward_max_iters=backward_max_iters,
            on_unconverged=on_unconverged,
            verbose=verbose,
        )
        # By layer. A call names its layer only by the object that holds its cone dimensions.
        self._cores: list[tuple[Any, Core]] = []
        self._last: Core | None = None

    @property
    def report(self) -> Report | None:
        """The record of the last call of any layer, also of one that raised an error."""
        return self._last.report if self._last else None

    def setup(self, ctx: Any) -> None:
        """Take a layer's structure (its constructor calls this).

        Args:
            ctx: cvxpylayers' ``LayersContext``.
        """
        self._cores = [pair for pair in self._cores if pair[0] is not ctx.cone_dims]
        self._cores.append((ctx.cone_dims, Core(maps_of(ctx)[0])))
        if ctx.solver_ctx is None:  # the JAX layer of cvxpylayers 1.2 asks this for its solver
            from cvxfold.jax_bridge import JaxBridge

            ctx.solver_ctx = JaxBridge(self, ctx.cone_dims)

    def solve_torch_batch(
        self,
        P: Tensor | None,
        q: Tensor,
        A: Tensor,
        dims: Any,
        solver_args: Mapping[str, Any],
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor, Any]:
        """Solve a batch.

        Args:
            P: stored entries, ``(B, nnz P)``, or None. q: with a constant last, ``(B, n + 1)``.
            A: stored entries of [−A | b], ``(B, nnz A + nnz b)``.
            dims: the cone dimensions of the layer.
            solver_args: on top of the solver's own options.
            needs_grad: whether the derivative may be asked for.

        Returns:
            x ``(B, n)`` and y ``(B, m)`` in q's dtype, and the state for :meth:`derivative_torch_batch`.

        Raises:
            InfeasibleError, UnboundedError, ConvergenceError: as the layer does.
            ValueError: data that are not finite, unknown ``solver_args``, or a layer that was not set up.
        """
        core = self._last = self._core(dims)
        options = self._options.updated(solver_args)
        values = _values(P, q, A, core.structure.A_entries.shape[1])
        call = Call(core, len(q), options, warm_start=False)
        with torch.no_grad():
            solved = core.forward(values, call)
        state = _State(call, solved, q.dtype) if needs_grad else None
        return solved.x.to(q.dtype), solved.y.to(q.dtype), state

    def derivative_torch_batch(
        self, dprimal: Tensor, ddual: Tensor, saved_state: Any
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Fold the backward pass.

        Args:
            dprimal: loss gradient on x, ``(B, n)``. ddual: on y, ``(B, m)``.
            saved_state: of :meth:`solve_torch_batch`.

        Returns:
            Loss gradients on P, q and A, of the shapes and the dtype that they had there.
        """
        call, solved, dtype = saved_state.call, saved_state.solved, saved_state.dtype
        with torch.no_grad():
            data = call.core.backward(solved, dprimal.double(), ddual.double(), call)
            q = data.on_q(shared=False)
            q = torch.cat([q, q.new_zeros(len(q), 1)], dim=1)
            A = torch.cat([-data.on_A(shared=False), data.on_b(shared=False)], dim=1)
            P = data.on_P(shared=False).to(dtype) if len(call.core.structure.P_entries[0]) else None
        return P, q.to(dtype), A.to(dtype)

    def solve_jax_batch(
        self, P: Any, q: Any, A: Any, dims: Any, solver_args: Mapping[str, Any], needs_grad: bool
    ) -> tuple[Any, Any, Any]:
        """:meth:`solve_torch_batch` for JAX arrays."""
        from cvxfold.jax_bridge import to_jax, to_torch

        given = None if P is None else to_torch(P)
        x, y, state = self.solve_torch_batch(given, to_torch(q), to_torch(A), dims, solver_args, needs_grad)
        return to_jax(x), to_jax(y), state

    def derivative_jax_batch(self, dprimal: Any, ddual: Any, saved_state: Any) -> tuple[Any, Any, Any]:
        """:meth:`derivative_torch_batch` for JAX arrays."""
        from cvxfold.jax_bridge import to_jax, to_torch

        P, q, A = self.derivative_torch_batch(to_torch(dprimal), to_torch(ddual), saved_state)
        return None if P is None else to_jax(P), to_jax(q), to_jax(A)

    def _core(self, dims: Any) -> Core:
        for known, core in self._cores:
            if known is dims:
                return core
        raise ValueError(
            "FoldedSolver: not set up for this layer; pass it as solver= to the layer's constructor"
        )


def _values(P: Tensor | None, q: Tensor, A: Tensor, split: int) -> ProgramValues:
    """The stored entries; what is the same for the whole batch is kept once, as cvxpylayers expands it."""
    if not (q.isfinite().all() and A.isfinite().all() and (P is None or P.isfinite().all())):
        raise ValueError("FoldedSolver: expected finite problem data, got NaN or infinity")
    P = q.new_zeros(1, 0) if P is None else P
    parts = (value.detach().double() for value in (P, q[:, :-1], -A[:, :split], A[:, split:]))
    return ProgramValues(*(part[:1] if bool((part == part[:1]).all()) else part for part in parts))
