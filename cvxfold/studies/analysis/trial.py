"""Short runs of every way to differentiate a batch that is solved: what each costs here."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cvxfold.engines.protocol import Solution
from cvxfold.layer.backward import differentiate
from cvxfold.layer.options import Options
from cvxfold.layer.request import CallRequest
from cvxfold.layer.session import Session
from cvxfold.layer.unrolling import solve_unrolled
from cvxfold.methods import GMRES, METHODS, AdjointMethod, AdjointSettings, Auto, Direct
from cvxfold.methods.unrolled import Unrolled
from cvxfold.problem.gradients import DataGradients
from cvxfold.problem.values import ProgramValues
from cvxfold.studies.analysis.cost import Cost, Line, of_iterating, of_solving, of_unrolling, shortest

_NEVER_MET = 1e-300  # a tolerance


@dataclass(frozen=True)
class Trial:
    """A batch that is solved, and a loss gradient.

    Args:
        session: one that nobody else uses.
        program: makes the program's data from the parameters, on a new tape.
        options: of the calls.
        solution: of the batch.
        bars: the loss gradients on x ``(B, n)`` and y ``(B, m)``. u_bar: on u, ``(B, k)``.
        tol: of the default method.
    """

    session: Session
    program: Callable[[], ProgramValues]
    options: Options
    solution: Solution
    bars: tuple[Tensor, Tensor]
    u_bar: Tensor
    tol: float

    def costs(self) -> dict[str, Cost]:
        """By method; of unrolling only where a gradient is wanted."""
        device = self.u_bar.device
        found: dict[str, Cost] = {}
        with torch.no_grad():
            found["auto"] = whole = of_solving(self._backward, device)
            direct = shortest(self._iterate(Direct(), self.tol), device)
            rest = Cost(Line(max(0.0, whole.seconds.fixed - direct)), whole.bytes)
            for name in ("lfpi", "anderson", "gmres", "bicgstab"):
                method = METHODS[name]
                basis = method.restart if isinstance(method, GMRES) else float("inf")
                found[name] = of_iterating(self._iterate(method), device, ceiling=basis).beside(rest)
        if any(value.requires_grad for value in self.program()):
            found["unrolled"] = self._unrolling(rest)
        return found

    def _unrolling(self, rest: Cost) -> Cost:
        """The cost of whole calls, but for the verdicts, which ``rest`` has."""
        session, batch = self.session, len(self.u_bar)

        def unroll(count: int) -> Tensor:
            method = Unrolled(count)
            request = CallRequest(batch, replace(self.options, backward=method))
            x, y, _ = solve_unrolled(self.program(), session, request, method, ended=lambda _: None)
            return (self.bars[0] * x).sum() + (self.bars[1] * y).sum()

        def solve() -> object:
            with torch.no_grad():
                return session.solve(self.program(), CallRequest(batch, self.options))

        return of_unrolling(unroll, solve, rest, self.u_bar.device)

    def _iterate(self, method: AdjointMethod, tol: float = _NEVER_MET) -> Callable[..., Tensor]:
        """The method alone, with the factor at hand, for so many iterations."""
        phi = self.session.engine.linearize(self.solution)
        return lambda count=None: method.solve(phi, self.u_bar, AdjointSettings(tol, count)).w

    def _backward(self) -> object:
        """The backward pass of the default method, up to the gradients of the data, its factor included."""
        solution, settings = self.solution, replace(self.options.adjoint, tol=self.tol)
        solution.release()
        found = differentiate(self.session.engine, solution, self.bars, Auto(), settings)
        entries = self.session.entries
        data = DataGradients(found.p, found.v, solution.x, solution.y, entries)
        with torch.enable_grad():
            values = self.program()
        batch = len(self.u_bar)
        on = zip((data.on_P, data.on_q, data.on_A, data.on_b), values, strict=True)
        return [one(value.shape[0] == 1 < batch) for one, value in on if value.requires_grad]
