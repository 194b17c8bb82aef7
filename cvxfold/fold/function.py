"""``cvxfold.fold``: a user's own iteration, differentiated at its fixed point by folding.

At x* = F(x*, θ), whoever found it, with Φ = ∂F/∂x and a loss gradient x̄:

    1. y = F(x*, θ) is put on autograd's tape, once
    2. fold      (I − Φᵀ) w = x̄            products Φᵀw go back through that tape
    3. w goes back through the tape to θ:   θ̄ = (∂F/∂θ)ᵀ w

That is what backpropagation through infinitely many iterations started at x* gives (Kotary, Christopher, Dinh
and Fioretto, arXiv 2312.17394, section 5). What the update depends on need not be among its parameters: the
weights of a network that it closes over get their gradients by the same tape.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from cvxfold.compat.functorch import uncompiled
from cvxfold.compat.trees import flattened
from cvxfold.deadline import Deadline
from cvxfold.engines.outcome import SOLVED, UNCONVERGED
from cvxfold.fold.adjoint import Backward
from cvxfold.fold.autograd import folded_at
from cvxfold.fold.examine import Place
from cvxfold.fold.iterate import Iterated, iterate, residual_of
from cvxfold.fold.judge import check_finite, judge_forward
from cvxfold.fold.layout import IterateLayout
from cvxfold.fold.options import OPTIONS, FoldOptions, FoldSettings
from cvxfold.fold.parameters import as_tensors, check_params, check_precision, detached, wanting
from cvxfold.fold.reach import beside, check_reach, closed_over
from cvxfold.fold.tape import UpdateTape
from cvxfold.fold.unrolling import unrolled_from
from cvxfold.layer.said import Said
from cvxfold.methods import Unrolled
from cvxfold.report.announce import Reports
from cvxfold.report.records import ForwardRecord
from cvxfold.report.report import FixedPointReport, Report

Update = Callable[..., Any]
"""F: x and the parameters → the next x."""


def fold(
    update: Update, solver: Callable[..., Any] | None = None, **options: Unpack[FoldOptions]
) -> "Folded":
    """Fold an iteration: a function of its parameters that returns its fixed point, with folded gradients.

    Args:
        update: F(x, *params) → x, one step of a method whose fixed point is what is wanted, made of torch
            operations. x is a floating-point tensor or nested tuples, lists or dictionaries of them;
            parameters are anything.
        solver: anything that finds the fixed point: solver(*params) → x, tensors or arrays; called with
            detached parameters and without gradients. None: the update itself is iterated, accelerated.
        **options: ``batched``, ``start``, ``backward``, ``tol`` and the others of
            :class:`cvxfold.fold.options.FoldOptions`, each explained there.

    Raises:
        TypeError: ``update`` or ``solver`` cannot be called, or there is no option of a name.
        ValueError: an option is out of range.

    Example:
        >>> def update(x, c):  # projected gradient descent on ½‖x − c‖² over a box
        ...     return (x - 0.5 * (x - c)).clamp(0, 1)
        >>> nearest = cvxfold.fold(update, start=torch.zeros_like)
        >>> c = torch.tensor([-1.0, 0.3, 2.0], requires_grad=True)
        >>> nearest(c).sum().backward()
        >>> c.grad
        tensor([0., 1., 0.])
        >>> print(nearest.report)
    """
    return Folded(update, solver, FoldSettings.of(solver, options))


class Folded(torch.nn.Module):
    """A folded iteration; made by :func:`fold`. An update that is a Module is a part of this one.

    Args:
        update, solver: as in :func:`fold`.
        settings: its options.

    Raises:
        TypeError: ``update`` or ``solver`` cannot be called.
    """

    def __init__(self, update: Update, solver: Callable[..., Any] | None, settings: FoldSettings) -> None:
        super().__init__()
        for name, function in (("update", update), ("solver", solver)):
            if not callable(function) and not (name == "solver" and function is None):
                raise TypeError(f"{name}: expected a function, got {type(function).__name__}")
        self.update = update
        self.solver = solver
        self.settings = settings
        self._reports = Reports()
        self._said = Said()
        self._depends: dict[tuple[bool, ...], bool] = {}  # on leaves beside the parameters, as far as known

    @uncompiled
    def forward(self, *params: Any, start: Any = None) -> Any:
        """The fixed point for these parameters.

        1. Find x*: by the solver, or by iterating.
        2. Apply the update there, on the tape where a gradient is wanted, and see whether it stays.
        3. Report and complain.
        4. Fold, or unroll.

        Args:
            *params: of the update and the solver.
            start: where to iterate from in this call, in place of the option; laid out as x is.

        Returns:
            x*, laid out as the update has it.

        Raises:
            TypeError, ValueError: bad parameters, or an update or solver that returns what is no x; the
                message says what is expected and what was given.
            FixedPointError: x* is no fixed point of the update: the residual is above ``limit``.
            ConvergenceError: with ``on_unconverged="raise"``.
        """
        check_params(params)
        began = time.perf_counter()
        layout, u, found = self._found(params, start)  # 1
        wanted = wanting(params) if torch.is_grad_enabled() else []
        tape = self._tape(layout, u, params, wanted)  # 2
        if tape is None:
            with torch.no_grad():
                image = layout.image(self.update, u, params)
        else:
            image = layout.packed([leaf.detach() for leaf in tape.y])
        residual = residual_of(u, image)
        report = self._reported(layout, residual, found, time.perf_counter() - began)  # 3
        method = self.settings.method
        if tape is None:
            return layout.tree(layout.unpacked(u))
        solved = residual <= self.settings.tolerance(layout.dtype)
        place = Place(self.update, params, tape)
        backward = Backward(self.settings, place, solved, report, self._reports, self._said)
        if isinstance(method, Unrolled):  # 4
            first = self._cold(layout, params, start) if method.start == "cold" else u
            return unrolled_from(first, method, backward)
        others = closed_over(tape, [leaf for _, leaf in wanted]) if self._depends[_pattern(params)] else []
        return layout.tree(folded_at(backward, others))

    @property
    def report(self) -> Report:
        """The record of the last call; of no instance before the first."""
        return self._reports.last

    def _repr_html_(self) -> str:
        """The iteration and its last report for notebooks."""
        from cvxfold.layer.shown import called, changed, shown

        given = {name: getattr(self.settings, name, None) for name in OPTIONS}
        given["backward"] = "auto" if self.settings.is_auto else self.settings.method
        solver = self.solver
        entries = {
            "update": called(self.update),
            "solver": "none: the update is iterated" if solver is None else called(solver),
            "options": changed(OPTIONS, given),
        }
        return shown(type(self).__name__, entries, self.report)

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Have a function called with the report after each pass; returns what ends that."""
        return self._reports.on_report(callback)

    def tape(self, *params: Any, start: Any = None) -> UpdateTape:
        """The update at its fixed point, on the tape; the report of the last call stays."""
        check_params(params)
        layout, u, _ = self._found(params, start)
        return UpdateTape(self.update, layout, u, params)

    def start_of(self, layout: IterateLayout, params: Sequence[Any], start: Any = None) -> Tensor | None:
        """Where iterations begin, ``(B, m)``; None if nobody said so."""
        if start is None and self.settings.start is None:
            return None
        return self._cold(layout, params, start)

    def _found(self, params: Sequence[Any], start: Any) -> tuple[IterateLayout, Tensor, Iterated | None]:
        """The layout of x, x* ``(B, m)``, and how the iteration ended, if there was one."""
        plain, settings = detached(params), self.settings
        with torch.no_grad():
            if self.solver is not None:
                if start is not None:
                    raise ValueError("start: expected None where a solver finds the fixed point, got a start")
                x = as_tensors(self.solver(*plain), plain)
                layout = IterateLayout.of(x, "solver", settings.batched)
                u = layout.packed(flattened(x)[0])
                check_finite(u, "solver: returned NaN or infinity")
                return layout, u, None
            x = as_tensors(self._start(plain, start), plain)
            layout = IterateLayout.of(x, "start", settings.batched)

            def step(u: Tensor) -> Tensor:
                return layout.image(self.update, u, plain)

            u = layout.packed(flattened(x)[0])
            check_finite(u, "start: expected finite values, got NaN or infinity")
            try:
                found = iterate(
                    step, u, settings.tolerance(layout.dtype), settings.max_iters, settings.acceleration,
                    Deadline.after(settings.time_limit),
                )  # fmt: skip
            except (RuntimeError, TypeError) as error:
                check_precision(layout, plain, error)
                raise
            check_finite(found.residual.unsqueeze(-1), "update: returned NaN or infinity at the start")
            return layout, found.u, found

    def _start(self, params: Sequence[Any], start: Any) -> Any:
        given = self.settings.start if start is None else start
        return given(*params) if callable(given) else given

    def _cold(self, layout: IterateLayout, params: Sequence[Any], start: Any) -> Tensor:
        plain = detached(params)
        return layout.packed(layout.leaves(as_tensors(self._start(plain, start), plain), "start"))

    def _tape(
        self, layout: IterateLayout, u: Tensor, params: Sequence[Any], wanted: Sequence[tuple[str, Tensor]]
    ) -> UpdateTape | None:
        """y = F(x*) on the tape, if anything that it depends on wants a gradient."""
        if not torch.is_grad_enabled():
            return None
        pattern = _pattern(params)
        if not wanted and self._depends.get(pattern) is False:
            return None
        tape = UpdateTape(self.update, layout, u, params)
        if pattern not in self._depends:
            with torch.no_grad():
                again = layout.leaves(self.update(layout.tree(beside(tape.x)), *params))
            self._depends[pattern] = check_reach(tape, again, wanted)
        return tape if wanted or self._depends[pattern] else None

    def _reported(
        self, layout: IterateLayout, residual: Tensor, found: Iterated | None, seconds: float
    ) -> Report:
        """The report of a forward pass, and what is to be said about it."""
        settings = self.settings
        tol = settings.tolerance(layout.dtype)
        codes = torch.where(residual <= tol, SOLVED, UNCONVERGED)
        counts = torch.zeros_like(codes) if found is None else found.iterations
        iteration = "accelerated iteration" if settings.acceleration else "iteration"
        who = "the solver" if found is None else iteration
        report = FixedPointReport(ForwardRecord.of_fixed_point(codes, counts, residual, seconds), who)
        self._reports.remember(report)
        try:
            judge_forward(report, tol, settings, found, self._said)
        finally:
            self._reports.notify(report)
        return report


def _pattern(params: Sequence[Any]) -> tuple[bool, ...]:
    """Which of the parameters are tensors that want a gradient."""
    return tuple(isinstance(p, Tensor) and p.requires_grad for p in flattened(params)[0])
