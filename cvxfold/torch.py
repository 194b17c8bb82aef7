"""The drop-in layer: ``from cvxfold.torch import CvxpyLayer`` in place of cvxpylayers'."""

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from cvxfold.arguments import prepare
from cvxfold.autograd import solve
from cvxfold.canonical import canonicalize
from cvxfold.core import Core
from cvxfold.monitor.report import Report
from cvxfold.options import BackwardMethod, OnUnconverged, Options
from cvxfold.parametrize import Parametrization
from cvxfold.recover import Recovery
from cvxfold.transforms import uncompiled


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
        backward: how the adjoint system is solved: "direct" (the factor of the Newton system, refined),
            "gmres", "lfpi" (linear fixed-point iteration, as unrolling does), "least_squares" (of least
            norm), or "auto" (direct; GMRES, then least squares, where that is not enough).
        refine: whether to finish the splitting iteration by Newton steps, to machine precision.
        tol: tolerance of the forward pass, absolute and relative, in SCS's definitions.
        max_iters: iterations of the forward pass at most; Newton steps begin after the first 25.
        backward_tol: tolerance on the relative residual of the adjoint system.
        backward_max_iters: iterations of the adjoint method at most; None leaves it to the method.
        on_unconverged: "warn" (a :class:`cvxfold.ConvergenceWarning`), "raise" (a
            :class:`cvxfold.ConvergenceError`) or "ignore", where a solution or a gradient misses its
            tolerance.

    Raises:
        ValueError: the problem is not DPP, ``parameters`` are not the problem's, a variable is not the
            problem's, or an option is unknown or out of range.

    Example:
        >>> x = cp.Variable(2)
        >>> A, b = cp.Parameter((3, 2)), cp.Parameter(3)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
        >>> (solution,) = layer(torch.randn(8, 3, 2, requires_grad=True), torch.randn(3))
        >>> solution.sum().backward()
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
        *,
        backward: BackwardMethod = "auto",
        refine: bool = True,
        tol: float = 1e-8,
        max_iters: int | None = None,
        backward_tol: float = 1e-9,
        backward_max_iters: int | None = None,
        on_unconverged: OnUnconverged = "warn",
    ) -> None:
        super().__init__()
        self._options = Options.create(
            backward=backward,
            refine=refine,
            tol=tol,
            max_iters=max_iters,
            backward_tol=backward_tol,
            backward_max_iters=backward_max_iters,
            on_unconverged=on_unconverged,
            verbose=verbose,
            solver=solver,
        ).updated(solver_args)
        self._canonical = canonicalize(
            problem, parameters, variables, gp=gp, verbose=verbose, canon_backend=canon_backend
        )
        self._core = Core(self._canonical.structure)
        self._maps: dict[torch.device, tuple[Parametrization, list[Recovery]]] = {}

    @uncompiled
    def forward(
        self,
        *params: Tensor,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: bool = False,
    ) -> tuple[Tensor, ...]:
        """Solve for a batch of parameter values.

        Args:
            *params: one floating-point tensor for each parameter, of the parameter's shape or with a batch
                dimension before; unbatched ones hold for every instance. float32 and float64 may be mixed.
            solver_args: on top of the layer's own.
            warm_start: start from the last call's solutions, if the batch has the same size.

        Returns:
            One tensor for each of ``variables``, ``(*shape)`` or ``(B, *shape)``, in the parameters' dtype
            and on their device.

        Raises:
            ValueError, TypeError: bad parameter tensors; the message names the parameter.
            SolverError: instances without a solution; the message names them.
            ConvergenceError: with ``on_unconverged="raise"``.
        """
        options = self._options.updated(solver_args)
        arguments = prepare(params, self._canonical.parameters)
        parametrization, recoveries = self._on(arguments.device)
        values = parametrization(arguments.tensors)
        batch = 1 if arguments.batch is None else arguments.batch
        x, y = solve(self._core, values, batch, options, warm_start=warm_start)
        outputs = (recovery(x, y).to(arguments.dtype) for recovery in recoveries)
        return tuple(output.squeeze(0) if arguments.batch is None else output for output in outputs)

    @property
    def report(self) -> Report | None:
        """The record of the last call, also of one that raised an error; None before the first."""
        return self._core.report

    def _on(self, device: torch.device) -> tuple[Parametrization, list[Recovery]]:
        """The maps to and from the cone program on a device, made at its first use."""
        if device not in self._maps:
            with torch.inference_mode(False):  # made under it they could not serve a backward pass later
                recoveries = [Recovery(spec, device) for spec in self._canonical.outputs]
                self._maps[device] = (Parametrization(self._canonical, device), recoveries)
        return self._maps[device]
