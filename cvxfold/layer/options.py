"""The options of a layer, each written once: its name, type, default and check in one table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Annotated, Any, Literal, TypedDict

from cvxfold.checks import (
    Option,
    checked,
    completed,
    one_of,
    optional,
    options_of,
    require_count,
    require_flag,
    require_positive,
)
from cvxfold.deadline import Deadline
from cvxfold.engines.choose import ExternalSolver, external_solver
from cvxfold.engines.protocol import SolveRequest
from cvxfold.engines.settings import RELAXATION, ForwardSettings
from cvxfold.methods import AdjointMethod, AdjointSettings, Auto
from cvxfold.methods.by_name import method_named
from cvxfold.methods.unrolled import Unrolled

OnUnconverged = Literal["warn", "raise", "ignore"]
EngineName = Literal["auto", "lanes", "tensors"]
OnUnsolvable = Literal["raise", "nan"]
BackwardMethod = (
    Literal[
        "auto",
        "direct",
        "gmres",
        "bicgstab",
        "anderson",
        "lfpi",
        "preconditioned_gmres",
        "preconditioned_bicgstab",
        "preconditioned_anderson",
        "preconditioned_lfpi",
        "least_squares",
        "jacobian_free",
        "unrolled",
    ]
    | AdjointMethod
    | Unrolled
)


def _require_relaxation(name: str, value: Any) -> None:
    require_positive(name, value)
    if value >= 2:
        raise ValueError(f"{name}: expected a number between 0 and 2, got {value!r}")


def _require_weight(name: str, value: Any) -> None:
    if value or isinstance(value, bool):
        require_positive(name, value)


class LayerOptions(TypedDict, total=False):
    """The options of a layer, as keyword arguments.

    Args:
        backward: how the adjoint system is solved: "direct" (the factor of the Newton system, refined),
            "gmres", "bicgstab", "anderson", "lfpi" (linear fixed-point iteration, as unrolling does), each of
            these four also as "preconditioned_…" by that factor; "least_squares" (of least norm);
            "jacobian_free" (one step, an approximation); or "auto" (direct; GMRES, then least squares,
            where that is not enough). "unrolled" differentiates the iteration itself. With all of
            them a gradient can be differentiated once more. A method with settings of its own is given as an
            object, such as ``cvxfold.fold.LFPI(step=0.9)`` or ``cvxfold.fold.Unrolled(50, start="cold")``.
        refine: whether to finish the splitting iteration by Newton steps, to machine precision.
        tol: tolerance of the forward pass, relative to what is added up in a residual; without ``refine`` in
            SCS's definitions, absolute and relative.
        max_iters: iterations of the forward pass at most; Newton steps begin after the first 25.
        backward_tol: tolerance on the relative residual of the adjoint system.
        backward_max_iters: iterations of the adjoint method at most; None leaves it to the method.
        on_unconverged: "warn" (a :class:`cvxfold.ConvergenceWarning`), "raise" (a
            :class:`cvxfold.ConvergenceError`) or "ignore", where a solution or a gradient misses its
            tolerance or there is no unique derivative.
        on_unsolvable: "raise" (an error that names them) or "nan" for instances that are infeasible or
            unbounded, or whose parameters are NaN, infinite or outside of their declared set: they return
            NaN with a zero gradient, and the others are what they would have been without them.
        on_degenerate: the same choices as ``on_unconverged`` for gradients that have no unique value; None
            for the same answer. "raise" is a :class:`cvxfold.DegenerateError`.
        proximal: ε ≥ 0: the gradient is that of the problem with (ε/2)‖x − x₀‖² added about its solution
            x₀, held constant. The solution stays; where it is not unique the gradient becomes so.
        rescue: whether an interior-point method (Clarabel, on the CPU) takes over the instances that
            cvxfold's own method does not reach at once, before it goes on.
        time_limit: seconds for the forward pass, and again for the backward pass; instances that do not
            finish are reported as unconverged, gradients by their residual. A step under way is not cut off.
        acceleration: memory of the Anderson acceleration of the splitting iteration; 0 for none.
        penalty: ρ of the splitting iteration, for all instances; None lets it follow their residuals.
        relaxation: α of the splitting iteration, between 0 and 2.
        engine: "lanes" (compiled kernels over packs of instances, on the CPU), "tensors" (batched PyTorch, on
            any device) or "auto": lanes where they are installed and made for the problem. What lanes do not
            do (``refine=False``, other methods of ``backward``, data elsewhere) they leave to the tensors.
    """

    backward: Annotated[BackwardMethod, Option("auto")]
    refine: Annotated[bool, Option(True, require_flag)]
    tol: Annotated[float, Option(1e-8, require_positive)]
    max_iters: Annotated[int | None, Option(None, optional(require_count))]
    backward_tol: Annotated[float, Option(1e-9, require_positive)]
    backward_max_iters: Annotated[int | None, Option(None, optional(require_count))]
    on_unconverged: Annotated[OnUnconverged, Option("warn", one_of(OnUnconverged))]
    on_unsolvable: Annotated[OnUnsolvable, Option("raise", one_of(OnUnsolvable))]
    on_degenerate: Annotated[OnUnconverged | None, Option(None, optional(one_of(OnUnconverged)))]
    proximal: Annotated[float, Option(0.0, _require_weight)]
    rescue: Annotated[bool, Option(True, require_flag)]
    time_limit: Annotated[float | None, Option(None, optional(require_positive))]
    acceleration: Annotated[int, Option(8, partial(require_count, least=0))]
    penalty: Annotated[float | None, Option(None, optional(require_positive))]
    relaxation: Annotated[float, Option(RELAXATION, _require_relaxation)]
    engine: Annotated[EngineName, Option("auto", one_of(EngineName))]


class PluginOptions(LayerOptions, total=False):
    """The options of a layer, and what it takes by position, for cvxpylayers' own layers.

    Args:
        solver: of the forward pass: None, cvxfold's own method, or the name of one that cvxpy has installed.
        verbose: whether to print a table of the iterations.
    """

    solver: Annotated[str | None, Option(None)]
    verbose: Annotated[bool, Option(False)]


OPTIONS = options_of(PluginOptions)
"""The options by name."""


@dataclass(frozen=True)
class ForwardSolver:
    """Another solver as the forward pass.

    Args:
        external: the solver.
        given: its arguments, as the user wrote them.
        workers: threads that call it; None for as many as there are processors.
    """

    external: ExternalSolver
    given: Mapping[str, Any]
    workers: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments under the solver's own names."""
        return self.external.arguments(self.given)


@dataclass(frozen=True)
class Options:
    """What a call should reach, may spend, and does when it falls short.

    Args:
        given: the options by name, those left out with their defaults.
        forward: tolerances and limits of the forward pass.
        adjoint: tolerance and limit of the backward pass.
        backward: the adjoint method, or how to unroll.
        solver: of the forward pass; None is cvxfold's own method.
        on_unconverged, on_unsolvable, on_degenerate, proximal, rescue, engine: as in :class:`LayerOptions`.
    """

    given: Mapping[str, Any] = field(compare=False)
    forward: ForwardSettings
    adjoint: AdjointSettings
    backward: AdjointMethod | Unrolled
    solver: ForwardSolver | None
    on_unconverged: OnUnconverged
    on_unsolvable: OnUnsolvable
    on_degenerate: OnUnconverged | None
    proximal: float
    rescue: bool
    engine: EngineName

    @classmethod
    def of(cls, arguments: PluginOptions) -> "Options":
        """Check a layer's keyword arguments.

        Raises:
            TypeError: there is no such option; the message names the nearest one.
            ValueError: an unknown name or a number out of range; the message lists what is allowed.
        """
        given = completed(OPTIONS, arguments)
        method, solver = method_named(given["backward"]), given["solver"]
        if isinstance(method, Unrolled):
            _check_unrolled(method, given)
        checked(OPTIONS, given)
        forward = ForwardSettings(
            eps_abs=float(given["tol"]),
            eps_rel=float(given["tol"]),
            refine=given["refine"],
            verbose=bool(given["verbose"]),
            penalty=_float(given["penalty"]),
            relaxation=float(given["relaxation"]),
            time_limit=_float(given["time_limit"]),
            acceleration=given["acceleration"],
        )
        if given["max_iters"] is not None:
            forward = replace(forward, max_iters=int(given["max_iters"]))
        return cls(
            given=given,
            forward=forward,
            adjoint=AdjointSettings(float(given["backward_tol"]), given["backward_max_iters"]),
            backward=method,
            solver=None
            if solver is None
            else ForwardSolver(external_solver(solver), {"verbose": forward.verbose}),
            on_unconverged=given["on_unconverged"],
            on_unsolvable=given["on_unsolvable"],
            on_degenerate=given["on_degenerate"],
            proximal=float(given["proximal"]),
            rescue=given["rescue"],
            engine=given["engine"],
        )

    @property
    def request(self) -> SolveRequest:
        """What is asked of a forward pass that begins now."""
        if self.forward.time_limit is None:
            return self._unlimited
        return replace(self._unlimited, deadline=Deadline.after(self.forward.time_limit))

    @cached_property
    def are_plain(self) -> bool:
        """Whether they leave a call to the engine's shortcut."""
        return self.solver is None and self.backward == Auto()

    @cached_property
    def _unlimited(self) -> SolveRequest:
        return SolveRequest(self.forward, None, self.rescue, self.proximal)


def _check_unrolled(method: Unrolled, given: Mapping[str, Any]) -> None:
    """What cannot be had together with unrolling."""
    if given["backward_max_iters"] is not None:
        raise ValueError("backward_max_iters: expected None: Unrolled(iterations=…) sets them")
    if given["solver"] is not None and method.start == "cold":
        raise ValueError(f"solver: expected None for an unrolled cold start, got {given['solver']!r}")
    if given["proximal"]:
        raise ValueError("proximal: expected 0 where the gradient is unrolled, not folded")


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
