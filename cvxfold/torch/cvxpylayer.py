"""The layer, under the name that its module has in cvxpylayers too."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Unpack

import cvxpy as cp
import torch
from cvxpylayers.utils.parse_args import LayersContext
from torch import Tensor

from cvxfold.compat.functorch import uncompiled
from cvxfold.engines.protocol import Passage
from cvxfold.layer.autograd import solve
from cvxfold.layer.options import LayerOptions, Options, PluginOptions
from cvxfold.layer.plain import PlainArguments
from cvxfold.layer.request import CallRequest
from cvxfold.layer.said import Said
from cvxfold.layer.samples import Samples
from cvxfold.layer.session import Session
from cvxfold.layer.shortcut import LayerParts, ShortCall, is_plain
from cvxfold.layer.solver_args import updated
from cvxfold.layer.unrolling import solve_unrolled
from cvxfold.methods.unrolled import Unrolled
from cvxfold.problem.arguments import Arguments, prepare
from cvxfold.problem.canonical import canonicalize
from cvxfold.problem.parametrize import Parametrization
from cvxfold.problem.recover import Recovery, limits
from cvxfold.problem.values import ProgramValues
from cvxfold.report.report import Report
from cvxfold.upstream.context import BUFFERS, upstream_buffer, upstream_context


@dataclass(frozen=True)
class Source:
    """What a layer was made from. Copies of the layer share it; a file or another process gets None."""

    problem: cp.Problem
    parameters: Sequence[cp.Parameter]
    variables: Sequence[cp.Variable]
    gp: bool

    def __deepcopy__(self, _: dict[int, Any]) -> "Source":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


class CvxpyLayer(torch.nn.Module):
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
        super().__init__()
        given = PluginOptions(solver=solver, verbose=verbose, **options)
        said = Said()
        self._options = updated(Options.of(given), solver_args, said)
        self._canonical = canonicalize(
            problem, parameters, variables, gp=gp, verbose=verbose, canon_backend=canon_backend
        )
        self.source: Source | None = Source(problem, tuple(parameters), tuple(variables), gp)
        self._session = Session(self._canonical.structure, self._canonical.moving, self._options.engine)
        self._session.said = said
        self._maps: dict[torch.device, tuple[Parametrization, list[Recovery]]] = {}
        self._parts: dict[torch.device, LayerParts] = {}

    @uncompiled
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
                8 (2n + 3m) + 24 bytes, n and m the variables and rows of the cone program, until
                :meth:`forget`.

        Returns:
            One tensor for each of ``variables``, ``(*shape)`` or ``(B, *shape)``, in the parameters' dtype
            and on their device; complex where the variable is.

        Raises:
            ValueError, TypeError: bad parameter tensors or samples; the message names them.
            SolverError: instances without a solution; the message names them.
            ConvergenceError: with ``on_unconverged="raise"``.
        """
        begun, options = time.perf_counter(), updated(self._options, solver_args, self._session.said)
        warm = self._session.starts.asked(warm_start, samples)
        found: Passage | None = None
        call = self._short_call(params, options)
        if call is not None:
            self._say_uneven(call.arguments.uneven)
            found = call.solve(warm.points(call.arguments.instances), warm.wanted)
            if found is not None and not found.unsolved:
                warm.keep(found, lightly=True)
                return call.outputs()
        missing_is_error = options.on_unsolvable == "raise"
        arguments, values, recoveries = self.program(*params, invalid_is_error=missing_is_error)
        self._say_uneven(arguments.uneven)
        batch = 1 if arguments.batch is None else arguments.batch
        found = found if arguments.invalid is None else None
        request = CallRequest(batch, options, warm, arguments.invalid, found, time.perf_counter() - begun)
        unrolled = options.backward if isinstance(options.backward, Unrolled) and batch else None
        if unrolled is not None:
            x, y, absent = solve_unrolled(values, self._session, request, unrolled)
        else:
            x, y, absent = solve(values, self._session, request)
        outputs = [recovery(x, y, signed=unrolled is None) for recovery in recoveries]
        real, imaginary = arguments.dtype, arguments.dtype.to_complex()
        outputs = [output.to(imaginary if output.is_complex() else real) for output in outputs]
        if not missing_is_error:
            outputs = [
                torch.where(absent.view(-1, *[1] * (output.dim() - 1)), torch.nan, output)
                for output in outputs
            ]
        return tuple(output.squeeze(0) if arguments.batch is None else output for output in outputs)

    def forget(self) -> None:
        """Forget the solutions that calls with ``warm_start=True`` start from, and so free their memory."""
        self._session.starts.forget()

    def program(
        self, *params: Tensor, invalid_is_error: bool = True
    ) -> tuple[Arguments, ProgramValues, list[Recovery]]:
        """The cone programs of a batch of parameter values, and the way from their solutions to outputs."""
        arguments = prepare(params, self._canonical.parameters, invalid_is_error=invalid_is_error)
        parametrization, recoveries = self._on(arguments.device)
        return arguments, parametrization(arguments.tensors), recoveries

    @property
    def session(self) -> Session:
        """What solves and differentiates the cone programs, and lasts from call to call."""
        return self._session

    @property
    def options(self) -> Options:
        """What the layer was asked for."""
        return self._options

    @property
    def report(self) -> Report:
        """The record of the last call, also of one that raised an error; of no instance before the first."""
        return self._session.report

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

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Have a function called with the report after each pass, forward and backward.

        Args:
            callback: takes the report; its ``backward`` is None after a forward pass.

        Returns:
            A function that ends this.

        Example:
            >>> end = layer.on_report(lambda report: report.backward and log(report.to_dict()))
        """
        return self._session.on_report(callback)

    def __getstate__(self) -> dict[str, Any]:
        """Without cvxpylayers' context, whose problem is not copied."""
        return {name: value for name, value in self.__dict__.items() if name != "ctx"}

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **named: Any
    ) -> None:
        """Take the state of a layer of cvxpylayers too: its maps, which are the problem's own."""
        for name in BUFFERS:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args, **named)

    def _short_call(self, params: tuple[Tensor, ...], options: Options) -> ShortCall | None:
        """The call by the engine's shortcut, where there is one and all is plain."""
        if not is_plain(options) or (shortcut := self._session.shortcut(self._canonical)) is None:
            return None
        arguments = PlainArguments.of(params, self._canonical.parameters)
        if arguments is None:
            return None
        return ShortCall(self._parts_on(arguments.device), shortcut, options, arguments)

    def _say_uneven(self, names: Sequence[str]) -> None:
        if names:
            self._session.said.once(
                "uneven",
                f"{', '.join(names)}: declared symmetric or Hermitian, but not so to rounding; the upper "
                "triangle is read, and has the gradient, as in cvxpylayers",
            )

    def _parts_on(self, device: torch.device) -> LayerParts:
        """What a call by the shortcut needs of the layer, made at its first use on a device."""
        if device not in self._parts:
            self._parts[device] = self._new_parts(device)
        return self._parts[device]

    def _new_parts(self, device: torch.device) -> LayerParts:
        without_logarithms = replace(
            self._canonical, parameters=tuple(replace(spec, log=False) for spec in self._canonical.parameters)
        )
        with torch.inference_mode(False):
            parametrize = Parametrization(without_logarithms, device)
            bounds = [limits(spec, device) for spec in self._canonical.outputs]
        return LayerParts(self._session, self._canonical.outputs, bounds, parametrize)

    def _on(self, device: torch.device) -> tuple[Parametrization, list[Recovery]]:
        """The maps to and from the cone program on a device, made at its first use."""
        if device not in self._maps:
            with torch.inference_mode(False):  # made under it they could not serve a backward pass later
                recoveries = [Recovery(spec, device) for spec in self._canonical.outputs]
                self._maps[device] = (Parametrization(self._canonical, device), recoveries)
        return self._maps[device]
