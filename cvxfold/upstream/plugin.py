"""The plugin: cvxfold as the solver of cvxpylayers' own layers, for PyTorch and for JAX."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from cvxpylayers.interfaces.base import SolverInterface
from torch import Tensor

from cvxfold.layer.answer import Answer
from cvxfold.layer.options import Options, PluginOptions
from cvxfold.layer.request import CallRequest
from cvxfold.layer.session import Session
from cvxfold.layer.solver_args import updated
from cvxfold.methods.unrolled import Unrolled
from cvxfold.problem.canonical import as_it_was, maps_of
from cvxfold.problem.gradients import DataGradients
from cvxfold.problem.structure import IndexArray, Moving
from cvxfold.problem.values import ProgramValues
from cvxfold.report.announce import Reports
from cvxfold.report.report import Report
from cvxfold.upstream.jax_bridge import JaxBridge, to_jax, to_torch


@dataclass(frozen=True)
class _SetUp:
    """A layer that the solver was set up for.

    Args:
        dims: the object that holds its cone dimensions: the only name that a call gives its layer.
        session: of its structure.
        P_order, A_order: where the layer's vectors of P and [−A | b] hold our entries, if elsewhere.
    """

    dims: Any
    session: Session
    P_order: IndexArray | None
    A_order: IndexArray | None

    @classmethod
    def of(cls, context: Any, engine: str) -> "_SetUp":
        reduced_P, P_order = as_it_was(context.reduced_P)
        reduced_A, A_order = as_it_was(context.reduced_A)
        structure, *maps = maps_of(replace(context, reduced_P=reduced_P, reduced_A=reduced_A))
        return cls(context.cone_dims, Session(structure, Moving.of(*maps), engine), P_order, A_order)

    def values(
        self, P: Tensor | None, q: Tensor, A: Tensor, invalid_is_error: bool
    ) -> tuple[ProgramValues, Tensor | None]:
        """The stored entries; what is the same for the whole batch once, as cvxpylayers expands it.

        Also which instances hold NaN or infinity, ``(B,)``; None if none does. Another's data stand there.
        """
        given = [q, A] if P is None else [q, A, P]
        valid = torch.stack([data.isfinite().all(1) for data in given]).all(0)
        invalid = None
        if not bool(valid.all()):
            invalid = ~valid
            if invalid_is_error:
                raise ValueError(
                    "FoldedSolver: expected finite problem data, got NaN or infinity in instances "
                    f"{invalid.nonzero().squeeze(-1).tolist()}"
                )
            donor = valid.long().argmax()
            given = [torch.where(valid.unsqueeze(1), data, data[donor].nan_to_num()) for data in given]
            q, A, P = given[0], given[1], None if P is None else given[2]
        P = q.new_zeros(1, 0) if P is None else _picked(P, self.P_order)
        A, split = _picked(A, self.A_order), self.session.entries.structure.A_entries.shape[1]
        parts = (value.detach().double() for value in (P, q[:, :-1], -A[:, :split], A[:, split:]))
        shared = (part[:1] if bool((part == part[:1]).all()) else part for part in parts)
        return ProgramValues(*shared), invalid

    def gradients(self, data: DataGradients) -> tuple[Tensor, Tensor, Tensor]:
        """Loss gradients on the layer's vectors of P, q and [−A | b]."""
        q = data.on_q(shared=False)
        A = torch.cat([-data.on_A(shared=False), data.on_b(shared=False)], dim=1)
        P = data.on_P(shared=False)
        return (
            _placed(P, self.P_order),
            torch.cat([q, q.new_zeros(len(q), 1)], dim=1),
            _placed(A, self.A_order),
        )


@dataclass(frozen=True)
class _SavedState:
    """What a solve leaves for its derivative."""

    layer: _SetUp
    answer: Answer
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
        **options: of :class:`cvxfold.layer.options.PluginOptions`: those of the layer, but for
            ``backward="unrolled"``, and ``solver`` and ``verbose``.

    Raises:
        ValueError: an option is out of range.
        TypeError: there is no option of a name that was given.

    Example:
        >>> from cvxpylayers.torch import CvxpyLayer
        >>> layer = CvxpyLayer(problem, parameters=[A, b], variables=[x], solver=FoldedSolver())
    """

    canon_solver = "SCS"
    supports_quad_obj = True

    def __init__(self, **options: Unpack[PluginOptions]) -> None:
        self._options = Options.of(options)
        if isinstance(self._options.backward, Unrolled):
            raise ValueError("backward: 'unrolled' needs a layer of cvxfold's own, cvxfold.torch.CvxpyLayer")
        self._layers: list[_SetUp] = []
        self._last: Session | None = None

    @property
    def report(self) -> Report:
        """The record of the last call of any layer, also of one that raised; of no instance before."""
        return self._last.report if self._last else Reports().last

    def setup(self, ctx: Any) -> None:
        """Take a layer's structure (its constructor calls this).

        Args:
            ctx: cvxpylayers' ``LayersContext``.

        Raises:
            ValueError: another layer changed the canonical form on the Problem beyond recognition.
        """
        self._layers = [layer for layer in self._layers if layer.dims is not ctx.cone_dims]
        self._layers.append(_SetUp.of(ctx, self._options.engine))
        if ctx.solver_ctx is None:  # the JAX layer of cvxpylayers 1.2 asks this for its solver
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
        layer = self._layer(dims)
        session = self._last = layer.session
        options = updated(self._options, solver_args, session.said)
        values, invalid = layer.values(P, q, A, options.on_unsolvable == "raise")
        with torch.no_grad():
            answer = session.solve(values, CallRequest(len(q), options, invalid=invalid))
        state = _SavedState(layer, answer, q.dtype) if needs_grad else None
        absent = answer.absent.unsqueeze(-1)
        x, y = (torch.where(absent, torch.nan, value).to(q.dtype) for value in (answer.x, answer.y))
        return x, y, state

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
        state: _SavedState = saved_state
        session = state.layer.session
        with torch.no_grad():
            data = session.differentiate(state.answer, dprimal.double(), ddual.double())
            P, q, A = (gradient.to(state.dtype) for gradient in state.layer.gradients(data))
        return P if P.shape[1] else None, q, A

    def solve_jax_batch(
        self, P: Any, q: Any, A: Any, dims: Any, solver_args: Mapping[str, Any], needs_grad: bool
    ) -> tuple[Any, Any, Any]:
        """:meth:`solve_torch_batch` for JAX arrays."""
        given = None if P is None else to_torch(P)
        x, y, state = self.solve_torch_batch(given, to_torch(q), to_torch(A), dims, solver_args, needs_grad)
        return to_jax(x), to_jax(y), state

    def derivative_jax_batch(self, dprimal: Any, ddual: Any, saved_state: Any) -> tuple[Any, Any, Any]:
        """:meth:`derivative_torch_batch` for JAX arrays."""
        P, q, A = self.derivative_torch_batch(to_torch(dprimal), to_torch(ddual), saved_state)
        return None if P is None else to_jax(P), to_jax(q), to_jax(A)

    def _layer(self, dims: Any) -> _SetUp:
        for layer in self._layers:
            if layer.dims is dims:
                return layer
        raise ValueError(
            "FoldedSolver: not set up for this layer; pass it as solver= to the layer's constructor"
        )


def _picked(entries: Tensor, order: IndexArray | None) -> Tensor:
    return entries if order is None else entries[:, torch.as_tensor(order, device=entries.device)]


def _placed(entries: Tensor, order: IndexArray | None) -> Tensor:
    if order is None:
        return entries
    return torch.empty_like(entries).index_copy_(1, torch.as_tensor(order, device=entries.device), entries)
