"""The tensor engine: every step is a batched PyTorch operation, on any device."""

from dataclasses import replace

import torch
from torch import Tensor

from cvxfold.batches.near import some
from cvxfold.deadline import Deadline
from cvxfold.engines.external import rescued, why_no_rescue
from cvxfold.engines.outcome import INFEASIBLE, SOLVED, UNBOUNDED, Start
from cvxfold.engines.protocol import Solution, SolveRequest
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.far_bounds import BroughtNear, bring_near
from cvxfold.engines.tensors.finish import Rescue
from cvxfold.engines.tensors.fixed_point import FixedPoint
from cvxfold.engines.tensors.linearization import SplittingLinearization
from cvxfold.engines.tensors.matrices import in_matrices
from cvxfold.engines.tensors.memory import Memory
from cvxfold.engines.tensors.origin import Origin, Origins, required
from cvxfold.engines.tensors.penalty import balance_of
from cvxfold.engines.tensors.prepare import Preparation, Prepared
from cvxfold.engines.tensors.program import ConeProgram
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
_PASSES = 3  # with the origin of x at bounds that turned out to be active, at most one fewer


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
        self._origins: Origins | None = None

    def solve(self, program: Program, request: SolveRequest) -> Solution:
        """Presolve, equilibrate, solve, and undo both.

        1. Presolve and equilibrate P and A, if they are not those of the last call.
        2. Solve, with bounds that are far brought near, and x about those that it has to be beyond.
        3. Where one that was brought near is active, again with x about it; as it is given where that leads
           nowhere, or where not everything is solved.
        4. Take the solutions back to the program's own units.
        """
        settings = request.settings
        prepared = self._prepare(program.values, settings)  # 1
        given = prepared.program(program.values.q, program.right_hand_side, program.batch)  # 2
        beyond = required(given[0], prepared.bounds) if settings.refine else None
        origin = None if beyond is None else self._origin(program, prepared, beyond)
        found, nearer = self._pass(program, prepared, given, origin, request)
        for left in reversed(range(_PASSES)):  # 3
            if nearer is None or request.deadline.passed:
                break
            active, status = nearer.active(found.point.s), found.settled.status
            amiss = active.any(-1) | (status != SOLVED)
            if not any(some(amiss)):
                break
            without = ((status == INFEASIBLE) | (status == UNBOUNDED)).unsqueeze(-1)
            further = self._origin(program, prepared, active & ~without, origin) if left else None
            if further is None:
                origin = None if origin is None else origin.but_for(amiss, program)
                found, nearer = self._pass(program, prepared, given, origin, request, amiss)
                break
            origin = further
            found, nearer = self._pass(program, prepared, given, origin, request)
        self._prepared, self._memory = prepared, found.memory
        point, scaling = found.point, found.scaling  # 4
        x, s, y = scaling.original(point.x, point.s, point.y)
        q, b = (program.values.q, program.right_hand_side) if origin is None else (origin.q, origin.b)
        x, y = prepared.reduced.lift(x, y, q, b)
        x = x if origin is None else x + origin.x
        at = FixedPoint(found.splitting, scaling, prepared.reduced, point, x, y)
        return _solution(program, found, at, s if nearer is None else s + nearer.beyond, request.proximal)

    def _pass(
        self,
        program: Program,
        prepared: Prepared,
        given: tuple[ConeProgram, Scaling],
        origin: Origin | None,
        request: SolveRequest,
        but_for: Tensor | None = None,
    ) -> tuple[Found, BroughtNear | None]:
        """One pass over a batch, with far bounds brought near.

        Args:
            given: the reduced and equilibrated program about zero. origin: of x; None for zero.
            but_for: instances whose bounds are left as they are, ``(B,)``; None for none.
        """
        cone_program, scaling = given
        if origin is not None:
            cone_program, scaling = prepared.program(origin.q, origin.b, program.batch)
        start = request.start
        if start is not None:
            start = prepared.reduced.start(start if origin is None else origin.start(start))
        rescue = _rescue(program, prepared, origin) if request.rescue and why_no_rescue() is None else None
        settings, nearer = request.settings, None
        if settings.refine:
            nearer = bring_near(cone_program, scaling, prepared.bounds, but_for)
        if nearer is not None:
            cone_program, scaling = nearer.program, nearer.scaling
            start = None if start is None else nearer.start(start)
            rescue = None if rescue is None else _lowered(rescue, nearer)
            settings = replace(settings, patience=ForwardSettings().patience)  # nobody has iterated on that
        memory = self._memory
        return solve(cone_program, scaling, settings, memory, start, rescue, request.deadline), nearer

    def _origin(
        self, program: Program, prepared: Prepared, rows: Tensor, before: Origin | None = None
    ) -> Origin | None:
        """At the bounds in ``rows`` ``(B, m')`` of what presolve left, and else as ``before``."""
        if self._origins is None:
            self._origins = Origins(self._structure)
        spread = prepared.reduced.spread_rows(rows.to(torch.float64)) > 0
        return self._origins.at(program, spread, before)

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


def _rescue(program: Program, prepared: Prepared, origin: Origin | None) -> Rescue:
    """An interior-point method for what our own does not reach."""

    def rescue(index: Tensor, deadline: Deadline) -> Start:
        found = rescued(program.take(index), deadline)
        return prepared.reduced.start(found if origin is None else origin.take(index).start(found))

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
