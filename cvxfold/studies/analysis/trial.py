"""Short runs of every way to differentiate a batch that is solved: what each costs here."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cvxfold.fold import GMRES, METHODS, AdjointMethod, AdjointSettings, Auto, Direct
from cvxfold.fold.unrolled import Unrolled
from cvxfold.gradient.adjoint import Optimum
from cvxfold.layer.answer import Solved
from cvxfold.layer.options import Options
from cvxfold.layer.request import Call
from cvxfold.layer.session import Core
from cvxfold.layer.unrolling import solve_unrolled
from cvxfold.problem.parametrize import ProgramValues
from cvxfold.studies.analysis.cost import Cost, Line, of_iterating, of_solving, of_unrolling, shortest

_NEVER_MET = 1e-300  # a tolerance


@dataclass(frozen=True)
class Trial:
    """A batch that is solved, and a loss gradient.

    Args:
        core: one that nobody else uses. batch: B.
        program: makes the program's data from the parameters, on a new tape.
        options: of the calls.
        solved: the solutions.
        x_bar, y_bar, u_bar: the loss gradient on x ``(B, n)``, y and u ``(B, m)``.
        tol: of the default method.
    """

    core: Core
    batch: int
    program: Callable[[], ProgramValues]
    options: Options
    solved: Solved
    x_bar: Tensor
    y_bar: Tensor
    u_bar: Tensor
    tol: float

    def costs(self) -> dict[str, Cost]:
        """By method; of unrolling only where a gradient is wanted."""
        device = self._at.u.device
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

    @property
    def _at(self) -> Optimum:
        return self.solved.whole.at

    def _unrolling(self, rest: Cost) -> Cost:
        """The cost of whole calls, but for the verdicts, which ``rest`` has."""
        core, penalty = self.core, float(self._at.splitting.penalty[0])
        forward = replace(self.options.forward, penalty=penalty)

        def unroll(count: int) -> Tensor:
            method = Unrolled(count)
            options = replace(self.options, forward=forward, backward=method)
            x, y, _ = solve_unrolled(
                self.program(),
                Call(core, self.batch, options, warm_start=False),
                method,
                ended=lambda _: None,
            )
            return (self.x_bar * x).sum() + (self.y_bar * y).sum()

        def solve() -> object:
            with torch.no_grad():
                return core.forward(self.program(), Call(core, self.batch, self.options, warm_start=False))

        return of_unrolling(unroll, solve, rest, self._at.u.device)

    def _iterate(self, method: AdjointMethod, tol: float = _NEVER_MET) -> Callable[..., Tensor]:
        """The method alone, with the factor at hand, for so many iterations."""
        phi = self._at.phi
        return lambda count=None: method.solve(phi, self.u_bar, AdjointSettings(tol, count)).w

    def _backward(self) -> object:
        """The backward pass of the default method, up to the gradients of the data."""
        solved = replace(self.solved)  # where the loss gradients may be noted
        self._at.__dict__.pop("phi", None)  # with the factor
        options = replace(self.options, backward=Auto(), adjoint=replace(self.options.adjoint, tol=self.tol))
        call = Call(self.core, self.batch, options, warm_start=False)
        data = self.core.backward(solved, self.x_bar, self.y_bar, call)
        with torch.enable_grad():
            values = self.program()
        on = zip((data.on_P, data.on_q, data.on_A, data.on_b), values, strict=True)
        return [one(value.shape[0] == 1 < self.batch) for one, value in on if value.requires_grad]
