"""The layer, under the name that its module has in cvxpylayers too."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Unpack

import cvxpy as cp
import torch
from cvxpylayers.utils.parse_args import LayersContext
from torch import Tensor

from cvxfold.compat.functorch import is_wrapped, uncompiled
from cvxfold.engines.protocol import Passage
from cvxfold.layer.autograd import solve
from cvxfold.layer.base import BaseLayer
from cvxfold.layer.directly import on_tape
from cvxfold.layer.options import LayerOptions
from cvxfold.layer.request import CallRequest
from cvxfold.layer.samples import Samples
from cvxfold.layer.solver_args import updated
from cvxfold.layer.unrolling import solve_unrolled
from cvxfold.methods.unrolled import Unrolled
from cvxfold.problem.recover import handed_out
from cvxfold.torch.numbers import numbered
from cvxfold.upstream.context import BUFFERS, upstream_buffer, upstream_context


class CvxpyLayer(BaseLayer, torch.nn.Module):
    """A differentiable convex optimization layer.

    Solves a parametrized CVXPY problem for a batch of parameter values at once, on the device they are on,
    and differentiates the solutions by folded optimization. ``layer.report`` tells how good the last
    solutions and gradients are.

    Args:
        problem: a DPP-compliant problem. It is left as it was found.
        parameters: all parameters of the problem, in the order of the call's arguments.
        variables: the variables, or dual variables of constraints, to return.
        solver: of the forward pass: None, cvxfold's own method, or the name of a conic solver that cvxpy has
            installed ("SCS", "CLARABEL", …), called for each instance in parallel; its solutions are then
            finished like cvxfold's own (not with ``refine=False``). "DIFFCP" stands for the solver that
            ``solve_method`` names, SCS unless given.
        gp: whether the problem is a geometric program.
        verbose: print cvxpy's compilation and a table of the iterations.
        canon_backend: cvxpy's canonicalization backend.
        solver_args: the solver's own arguments; each can be overridden in a call. For cvxfold's own method
            ``eps``, ``eps_abs``, ``eps_rel``, ``eps_infeas``, ``max_iters`` and ``verbose`` as in SCS, or
            Clarabel's names for them; and ``solve_method``, which names another solver.
        **options: ``backward``, ``tol`` and the others of :class:`cvxfold.layer.options.LayerOptions`, each
            explained there.

    Raises:
        ValueError: the problem is not DPP, ``parameters`` are not the problem's, a variable is not the
            problem's, or an option is out of range.
        TypeError: there is no option of a name that was given.

    Example:
        >>> x = cp.Variable(2)
        >>> A, b = cp.Parameter((3, 2)), cp.Parameter(3)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        >>> (solution,) = layer(torch.randn(8, 3, 2, requires_grad=True), torch.randn(3))
        >>> solution.sum().backward()
        >>> print(layer.report)
    """

    __call__: Callable[..., tuple[Tensor, ...]]  # of torch.nn.Module, which says Any

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
        torch.nn.Module.__init__(self)
        BaseLayer.__init__(
            self, problem, parameters, variables, solver, gp, verbose, canon_backend, solver_args, **options
        )
        self._number = numbered(self)

    def forward(
        self,
        *params: Tensor,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        samples: Samples | None = None,
    ) -> tuple[Tensor, ...]:
        """Solve for a batch of parameter values.

        Args:
            *params: one tensor for each parameter, of the parameter's shape or with a batch dimension before;
                unbatched ones hold for every instance. float32 and float64 may be mixed; integers count as
                numbers of PyTorch's default dtype, and numpy arrays and numbers serve too. Complex and
                Hermitian parameters take complex or real tensors, imaginary ones complex tensors.
            solver_args: on top of the layer's own.
            warm_start: start from the last solutions: of the samples, or else of the last batch, if it had
                the same size. Instances without one start from nothing.
            samples: with ``warm_start=True``: an id for each instance, such as its place in the data set,
                ``(B,)`` nonnegative integers. The layer keeps the last solution and scaling of each, in
                8 (2n + 3m) + 24 bytes, n and m the variables and rows of the cone program, or in
                8 (n + 2m) + 16 where instances share P and A, until :meth:`forget`.

        Returns:
            One tensor for each of ``variables``, ``(*shape)`` or ``(B, *shape)``, in the parameters' dtype
            and on their device; complex where the variable is.

        Raises:
            ValueError, TypeError: bad parameter tensors or samples; the message names them.
            SolverError: instances without a solution; the message names them.
            ConvergenceError: with ``on_unconverged="raise"``.
        """
        plain = solver_args is None and samples is None and not warm_start
        if plain and torch.compiler.is_compiling() and self._can_be_in_graphs(params):
            from cvxfold.torch.operators import in_graph  # who compiles nothing does not wait for these

            return in_graph(self._number, params)
        return self._called(params, solver_args, warm_start, samples)

    def _can_be_in_graphs(self, params: Sequence[Any]) -> bool:
        folds = not isinstance(self._options.backward, Unrolled)
        return folds and all(isinstance(value, Tensor) for value in params)

    @uncompiled
    def _called(
        self,
        params: Sequence[Tensor],
        solver_args: Mapping[str, Any] | None,
        warm_start: bool,
        samples: Samples | None,
    ) -> tuple[Tensor, ...]:
        """The call, outside of graphs."""
        begun, options = time.perf_counter(), updated(self._options, solver_args, self._session.said)
        warm = self._session.starts.asked(warm_start, samples)
        found: Passage | None = None
        call = self.short_call(params, options)
        if call is not None:
            self.say_uneven(call.arguments.uneven)
            found = call.solve(warm.where(call.arguments.form.instances), warm.wanted)
            if found is not None and not found.unsolved:
                warm.keep(found, lightly=True)
                return on_tape(call)
        missing_is_error = options.on_unsolvable == "raise"
        arguments, values, recoveries = self.program(*params, invalid_is_error=missing_is_error)
        self.say_uneven(arguments.uneven)
        batch = 1 if arguments.batch is None else arguments.batch
        found = found if arguments.invalid is None else None
        spent = time.perf_counter() - begun
        request = CallRequest(batch, options, warm, arguments.invalid, found, spent, _wanted(params))
        unrolled = options.backward if isinstance(options.backward, Unrolled) and batch else None
        if unrolled is not None:
            x, y, absent = solve_unrolled(values, self._session, request, unrolled)
        else:
            x, y, absent = solve(values, self._session, request)
        outputs = [recovery(x, y, signed=unrolled is None) for recovery in recoveries]
        outputs = handed_out(outputs, arguments.dtype, None if missing_is_error else absent)
        return tuple(output.squeeze(0) if arguments.batch is None else output for output in outputs)

    @cached_property
    def ctx(self) -> LayersContext:
        """The context that cvxpylayers' own layer would have, made at its first use; nothing here reads it.

        Raises:
            ValueError: cvxpylayers' default solver does not take the problem, or the layer came from a file
                or another process and has no problem.
        """
        if (source := self.source) is None:
            raise ValueError("ctx: a layer from a file or another process no longer has its problem")
        return upstream_context(source.problem, source.parameters, source.variables, source.gp)

    @property
    def P(self) -> Tensor | None:
        """cvxpylayers' map from parameters to the quadratic objective, None for its default solver."""
        return upstream_buffer(self.ctx, "P")

    @property
    def q(self) -> Tensor | None:
        """cvxpylayers' map from parameters to the linear objective."""
        return upstream_buffer(self.ctx, "q")

    @property
    def A(self) -> Tensor | None:
        """cvxpylayers' map from parameters to the entries of [−A | b]."""
        return upstream_buffer(self.ctx, "A")

    def __getstate__(self) -> dict[str, Any]:
        """Without cvxpylayers' context, whose problem is not copied."""
        return {name: value for name, value in self.__dict__.items() if name != "ctx"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is another layer in graphs."""
        super().__setstate__(state)
        self._number = numbered(self)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **named: Any
    ) -> None:
        """Take the state of a layer of cvxpylayers too: its maps, which are the problem's own."""
        for name in BUFFERS:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args, **named)


def _wanted(params: Sequence[Any]) -> list[bool] | None:
    """Which parameters require gradients; None where ``torch.func`` does not tell."""
    tensors = [value for value in params if isinstance(value, Tensor)]
    if any(is_wrapped(value) for value in tensors):
        return None
    return [isinstance(value, Tensor) and value.requires_grad for value in params]
