"""The tensor engine: every step is a batched PyTorch operation, on any device."""

import torch
from torch import Tensor

from cvxfold.batches.near import some
from cvxfold.deadline import Deadline
from cvxfold.engines.external import rescued, why_no_rescue
from cvxfold.engines.outcome import SOLVED, Start
from cvxfold.engines.protocol import Solution, SolveRequest
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.far_bounds import BroughtNear, bring_near
from cvxfold.engines.tensors.finish import Rescue
from cvxfold.engines.tensors.fixed_point import FixedPoint
from cvxfold.engines.tensors.linearization import SplittingLinearization
from cvxfold.engines.tensors.matrices import in_matrices
from cvxfold.engines.tensors.memory import Memory
from cvxfold.engines.tensors.penalty import balance_of
from cvxfold.engines.tensors.prepare import Preparation, Prepared
from cvxfold.engines.tensors.solve import Found, solve
from cvxfold.engines.tensors.splitting import Splitting
from cvxfold.engines.tensors.unrolled import cold_operator, judged
from cvxfold.gradient.adjoint import Adjoint, fold
from cvxfold.gradient.screen import Screen, screen
from cvxfold.methods import AdjointSettings, Auto
from cvxfold.methods.unrolled import Tape, Unrolled, unroll
from cvxfold.problem.program import Program
from cvxfold.problem.structure import Structure
from cvxfold.problem.values import ProgramValues

# n × n and m × n matrices of an instance that live at once in a Newton step: P, M, its factor, the Gram
# matrices, H and its factor; A, its weighted rows.
_SQUARE, _TALL = 8, 3


class TensorEngine:
    """Keeps from call to call what the next one can use: factors, the equilibration, the penalty.

    Args:
        structure: of the programs.
    """

    name = "tensors"

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._preparations: dict[bool, Preparation] = {}
        self._prepared: Prepared | None = None
        self._memory: Memory | None = None

    def solve(self, program: Program, request: SolveRequest) -> Solution:
        """Presolve, equilibrate, solve, and undo both.

        1. Presolve and equilibrate P and A, if they are not those of the last call.
        2. Begin with a given point, or with nothing.
        3. Solve, with bounds that are far brought near; without that where one of them is active, or where
           that does not solve everything.
        4. Take the solutions back to the program's own units.
        """
        settings, memory = request.settings, self._memory
        prepared = self._prepare(program.values, settings)  # 1
        q, b = program.values.q, program.right_hand_side
        cone_program, scaling = prepared.program(q, b, program.batch)
        start = None if request.start is None else prepared.reduced.start(request.start)  # 2
        rescue = _rescue(program, prepared) if request.rescue and why_no_rescue() is None else None
        nearer = bring_near(cone_program, scaling, prepared.bounds) if settings.refine else None  # 3
        found = None
        if nearer is not None:
            lowered = None if start is None else nearer.start(start)
            ask = None if rescue is None else _lowered(rescue, nearer)
            found = solve(nearer.program, nearer.scaling, settings, memory, lowered, ask, request.deadline)
            amiss = (found.settled.status != SOLVED) | nearer.active(found.point.s)
            if not request.deadline.passed and any(some(amiss)):
                found = nearer = None
        if found is None:
            found = solve(cone_program, scaling, settings, memory, start, rescue, request.deadline)
        self._prepared, self._memory = prepared, found.memory
        point, scaling = found.point, found.scaling  # 4
        x, s, y = scaling.original(point.x, point.s, point.y)
        x, y = prepared.reduced.lift(x, y, q, b)
        at = FixedPoint(found.splitting, scaling, prepared.reduced, point, x, y)
        return _solution(program, found, at, s if nearer is None else s + nearer.beyond, request.proximal)

    def differentiate(
        self, solution: Solution, x_bar: Tensor, y_bar: Tensor, settings: AdjointSettings
    ) -> tuple[Adjoint, Screen]:
        """Fold by the regularized factor, by Krylov methods where that is not enough."""
        phi = self.linearize(solution)
        adjoint = fold(phi, x_bar, y_bar, Auto(), settings)
        return adjoint, screen(phi, adjoint, x_bar, y_bar)

    def linearize(self, solution: Solution, thoroughly: bool = False) -> SplittingLinearization:
        """F at a solution."""
        at, epsilon = self._located(solution), solution.proximal
        at = at.regularized(epsilon) if epsilon else at
        phi = SplittingLinearization(solution.program, at, epsilon=epsilon)
        return in_matrices(phi) if thoroughly else phi

    def unroll(
        self, program: Program, request: SolveRequest, method: Unrolled, tape: Tape, start: Solution | None
    ) -> tuple[Tensor, Tensor, Solution]:
        """Iterate on the tape, with the presolve and the equilibration of the same data off the tape.

        1. From a solution, or from zero under a first penalty; the untracked iterations.
        2. The same program with its data on the tape.
        3. K iterations, and the point that they come to.
        4. What that amounts to as a solution.
        """
        settings, fixed = request.settings, program.detached()
        with torch.no_grad():  # 1
            prepared = self._prepare(fixed.values, settings)
            if start is not None:
                at = self._located(start)
                operator, u = at.splitting, at.u
            else:
                cone_program, _ = prepared.program(fixed.values.q, fixed.right_hand_side, fixed.batch)
                operator, u = cold_operator(cone_program, settings), torch.zeros_like(cone_program.b)
            u = operator.run(u, method.untracked)
        values, b = program.values, program.right_hand_side  # 2
        on_tape = self._preparation(settings).on_tape(values.P, values.A, prepared)
        cone_program, scaling = on_tape.program(values.q, b, program.batch)
        splitting = Splitting(cone_program, operator.penalty, operator.alpha)
        u = unroll(lambda u: splitting.run(u, 1), tape.begin(u, list(values)), method, tape)  # 3
        point = splitting.evaluate(u)
        x, s, y = scaling.original(point.x, point.s, point.y)
        x, y = on_tape.reduced.lift(x, y, values.q, b)
        with torch.no_grad():  # 4
            found = judged(operator, scaling, u.detach(), settings, method)
            at = FixedPoint(operator, scaling, prepared.reduced, found.point, x.detach(), y.detach())
        return x, y, _solution(fixed, found, at, s.detach())

    def size(self, settings: ForwardSettings) -> tuple[int, int, int]:
        """Variables and rows after presolve, and bytes of an instance with matrices of its own."""
        preparation = self._preparation(settings)
        n, m = preparation.columns, preparation.rows
        return n, m, 8 * (_SQUARE * n * n + _TALL * m * n)

    def _prepare(self, values: ProgramValues, settings: ForwardSettings) -> Prepared:
        """What depends on P and A alone, from the last call where they are the same."""
        prepared = self._prepared
        if prepared is not None and prepared.fits(values.P, values.A, settings.bare):
            return prepared
        return self._preparation(settings).prepare(values.P, values.A)

    def _preparation(self, settings: ForwardSettings) -> Preparation:
        """Presolve and equilibration for this structure, with or without the former."""
        bare = settings.bare
        if bare not in self._preparations:
            self._preparations[bare] = Preparation(self._structure, bare)
        return self._preparations[bare]

    def _located(self, solution: Solution) -> FixedPoint:
        """A solution as a fixed point of F, under the natural penalty where it has none of its own."""
        if isinstance(solution.kept, FixedPoint):
            return solution.kept
        program, values = solution.program, solution.program.values
        prepared = self._prepare(values, ForwardSettings())
        if len(values.P) == len(values.A) == 1:  # for the next time, unless they are many
            self._prepared = prepared
        cone_program, scaling = prepared.program(values.q, program.right_hand_side, program.batch)
        left = prepared.reduced.start(Start(solution.s, solution.y, solution.x))
        assert left.x is not None
        s, y = scaling.equilibrated(left.s, left.y)
        x = left.x / scaling.columns / scaling.size.unsqueeze(-1)
        penalty, natural = solution.penalty, balance_of(cone_program, x, s, y)
        penalty = torch.where(penalty.isnan(), natural, penalty)
        splitting = Splitting(cone_program, penalty, solution.relaxation)
        point = splitting.evaluate(splitting.state(s, y))
        return FixedPoint(splitting, scaling, prepared.reduced, point, solution.x, solution.y)


def _rescue(program: Program, prepared: Prepared) -> Rescue:
    """An interior-point method for what our own does not reach."""

    def rescue(index: Tensor, deadline: Deadline) -> Start:
        return prepared.reduced.start(rescued(program.take(index), deadline))

    return rescue


def _lowered(rescue: Rescue, nearer: BroughtNear) -> Rescue:
    """The same points, for a program whose far bounds were brought near."""

    def ask(index: Tensor, deadline: Deadline) -> Start:
        return nearer.take(index).start(rescue(index, deadline))

    return ask


def _solution(program: Program, found: Found, at: FixedPoint, s: Tensor, proximal: float = 0.0) -> Solution:
    """What was found, in the units of the program; s ``(B, m')`` of what presolve left."""
    settled = found.settled
    return Solution(
        engine=TensorEngine.name,
        program=program,
        x=at.x,
        y=at.y,
        s=at.reduced.spread_rows(s),
        status=settled.status,
        iterations=settled.iterations,
        newton_steps=settled.newton_steps,
        residuals=found.residuals.outcome(found.tested),
        certificate=settled.certificate,
        rescued=settled.rescued,
        penalty=found.splitting.penalty.expand(program.batch),
        proximal=proximal,
        relaxation=found.splitting.alpha,
        kept=at,
    )
