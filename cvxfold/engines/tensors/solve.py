"""The forward pass: rounds of the splitting iteration, each followed by the finish where it is wanted.

1. Apply F a few times to every instance, from the penalty that worked last time to one that balances
   the residuals of the batch.
2. Finish by Newton steps. What these do not reach: test the steps of F as certificates. Where the penalty
   of the last call leaves more than it did then, the rest begins again as without a memory.
3. Give what is left, if it is not too much, to another solver, an interior-point method on the CPU, and
   finish its points by Newton steps.
4. Finish by the method of multipliers, from the better of what there is.
5. What is still left runs on alone, in longer, accelerated rounds: each instance's penalty follows its
   own residuals, its steps are tested as certificates, and the finish is tried again from time to time,
   until it stalls.
"""

import torch
from torch import Tensor

from cvxfold.deadline import NEVER, Deadline
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.batch import INFEASIBLE, SOLVED, UNBOUNDED, UNCONVERGED
from cvxfold.engines.tensors.memory import Memory, Start
from cvxfold.engines.tensors.multipliers import multipliers
from cvxfold.engines.tensors.penalty import BALANCED, Balance, first_penalty
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.rescue import Rescue, WithRescue
from cvxfold.engines.tensors.solution import FIRST_ROUND, ForwardSettings, Solution
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_ROUND = 50
_ALONE, _BESIDE_RESCUE = 200, 60  # steps of the method of multipliers
_FEW = 256  # instances that another solver is asked for before the method of multipliers, not after it
_MULTIPLIER_START, _MULTIPLIER_TOLERANCE = 10.0, 0.1  # the latter times eps_rel
_BALANCING_ROUNDS = 4
_FINISH_GROWTH = 4  # the finish is tried again after 4 times as many iterations
_MORE = 1.25  # the remembered penalty misleads where it leaves this many times what it left in the last call
_STALLED = 0.5  # an instance whose residual a finish and the iterations before it did not reduce by this …
_PATIENCE = 1_000  # … after this many iterations, is given up


def solve(
    program: ConeProgram,
    scaling: Scaling,
    settings: ForwardSettings,
    memory: Memory | None = None,
    start: Start | None = None,
    rescue: Rescue | None = None,
    deadline: Deadline = NEVER,
) -> tuple[Solution, Memory]:
    """Solve a batch of cone programs.

    Args:
        program: B instances, B ≥ 1, equilibrated. scaling: how.
        settings: tolerances and limits.
        memory: of the previous call, if any.
        start: a point to start from. Where it is another solver's solution it is finished, and iterated
            on only where that fails; without ``settings.refine`` it is taken as it is.
        rescue: for the instances that the first finish does not reach.
        deadline: of the pass.

    Returns:
        The solution, with a status for every instance, and the memory for the next call.
    """
    run = _Run(_operator(program, settings, memory), scaling, settings, deadline, rescue)
    if start is not None:
        run.u = run.splitting.state(*scaling.equilibrated(start.s, start.y))
    if start is None or start.status is None:
        if memory is not None and memory.penalty is not None and settings.penalty is None:
            run.expected = memory.late
        run.certify_freely()
        run.balance()
        run.go()
    else:
        run.judge(start)
        run.go(finish_first=True)
    solution = run.solution()
    point = solution.point
    _, s, y = scaling.original(point.x, point.s, point.y)
    return solution, Memory(run.all, run.penalty_for_next_call(), run.late, s.nan_to_num(), y.nan_to_num())


def _operator(program: ConeProgram, settings: ForwardSettings, memory: Memory | None) -> Splitting:
    """F under the penalty that was asked for, or else what worked before, or else a guess."""
    penalty = settings.penalty
    if penalty is None and memory is not None:
        penalty = memory.penalty
    if penalty is None:
        return Splitting(program, first_penalty(program), settings.relaxation)
    if memory is None:
        return Splitting(program, program.q.new_tensor([penalty]), settings.relaxation)
    return memory.operator(program, penalty, settings.relaxation)


class _Run(WithRescue):
    """One forward pass."""

    def certify_freely(self) -> None:
        """Retire the instances whose objective falls along a direction that nothing constrains."""
        direction = self.splitting.free_descent()
        if direction is not None:
            self.certify(direction, torch.zeros_like(self.u))

    def judge(self, start: Start) -> None:
        """Retire the instances that another solver settled: without a solution, or not to be refined."""
        assert start.status is not None
        if start.iterations is not None:
            self.iterations = start.iterations.clone()
        if start.x is not None:  # it may be a certificate; then we can tell how good it is
            self.certify(*self.directions(start))
        given = start.status[self.index]
        settled = (given == INFEASIBLE) | (given == UNBOUNDED)
        if not self.settings.refine:
            settled = torch.ones_like(settled)
        self.retire(self.splitting.evaluate(self.u), settled, given)

    def balance(self) -> None:
        """The first rounds: one penalty for the batch, moved while its median is out of balance."""
        for _ in range(_BALANCING_ROUNDS):
            if not len(self.index) or not self.advance(FIRST_ROUND):
                return
            point, balance = self._balance("balance")
            ratio = float(balance.factor.median())
            if self.settings.penalty is not None or 1 / BALANCED < ratio < BALANCED:
                return
            self._share(balance.moved(self.splitting.penalty).median().reshape(1))
            self.u = self.splitting.state(point.s, point.y)

    def go(self, finish_first: bool = False) -> None:
        """Rounds until every instance is settled or a limit is reached."""
        next_finish, next_adaptation = 0 if finish_first else FIRST_ROUND, 2 * _ROUND
        while len(self.index):
            done = self.done
            if self.settings.refine and done >= next_finish:
                self._finish()
                next_finish = max(_FINISH_GROWTH * self.done, FIRST_ROUND)
                self._give_up()
            else:
                self.settle("F")
            if len(self.index) and done > FIRST_ROUND:
                self._certify_steps(self.u)
            if len(self.index) and done >= next_adaptation and self.settings.penalty is None:
                next_adaptation = int(1.5 * done) + _ROUND
                self._adapt()
            if len(self.index) and not self.advance(_ROUND, fast=True):
                self.store(self.splitting.evaluate(self.u), self.everyone())
                return

    def _finish(self) -> None:
        """All that is not the iteration: Newton, another solver once, the method of multipliers."""
        self._newton()
        self._begin_again()
        if self.early:
            self.late = len(self.index) / len(self.status)
            self.early = False
        alone = self.rescuer is None
        if 0 < len(self.index) <= _FEW:
            self.rescue()
        if len(self.index) and not self.deadline.passed:
            self._multipliers(_ALONE if alone else _BESIDE_RESCUE)
        if len(self.index):
            self.rescue()
        if len(self.index):
            self.settle("finished", polished=True)

    def _newton(self) -> None:
        """Newton steps; where they fail, the last step of F as a certificate."""
        before = self.u
        self.u = self.newton(self.everyone())
        left = self.settle("newton", polished=True, accept=False)
        if len(self.index):
            self._certify_steps(before[left])

    def _begin_again(self) -> None:
        """Where the penalty of the last call misleads more instances than it did then: as without a memory.

        That costs what it costs a fresh layer; the stages that follow cost more.
        """
        misled = len(self.index) > _MORE * self.expected * len(self.status)
        if not misled or self.deadline.passed or self.settings.max_iters - self.done < FIRST_ROUND:
            return
        self.expected = 1.0
        self._share(first_penalty(self.splitting.program))
        self.u = torch.zeros_like(self.u)
        self.balance()
        if len(self.index):
            self._newton()

    def _multipliers(self, steps: int) -> None:
        """The method of multipliers, then Newton."""
        fallback = self.u
        point, before = self.check("multipliers")
        came_to = multipliers(
            self.splitting,
            self.scaling,
            point.x,
            point.y,
            _MULTIPLIER_START * self.splitting.penalty.expand(len(self.index)),
            _MULTIPLIER_TOLERANCE * self.settings.eps_rel,
            steps,
            self.deadline,
        )
        self.newton_steps[self.index] += came_to.steps
        self.u = self.splitting.state(came_to.s, came_to.y)
        self.u = self.newton(self.everyone())
        _, after = self.check("newton")
        self.keep_better(fallback, before.worst(), after.worst())
        left = self.settle("finished", polished=True, accept=False)
        if len(self.index):
            again = self.certify(came_to.dx[left], came_to.dy[left])
            if len(again):
                self.certify_polished(came_to.dx[left][again], came_to.dy[left][again])

    def _certify_steps(self, u: Tensor) -> None:
        """Test the step of F from ``u`` ``(b, m)`` as a certificate."""
        now = self.splitting.evaluate(u)
        ahead = self.splitting.evaluate(u + self.splitting.alpha * now.g)
        self.certify(ahead.x - now.x, ahead.y - now.y)

    def _give_up(self) -> None:
        """Retire the instances that are broken, or that neither iterations nor finishes move any more."""
        if not len(self.index):
            return
        point = self.splitting.evaluate(self.u)
        worst = self.residuals_of(self.splitting.program, self.scaling, point).worst()
        hopeless = ~worst.isfinite()
        if self.done >= _PATIENCE:
            hopeless |= worst > _STALLED * self.reached
        self.reached = torch.minimum(self.reached, worst)
        self.retire(point, hopeless, torch.full_like(self.index, UNCONVERGED))

    def _adapt(self) -> None:
        """Move the penalties of instances whose primal and dual residuals are out of balance."""
        point, balance = self._balance("adapt")
        move = (balance.factor > BALANCED) | (balance.factor < 1 / BALANCED)
        if not bool(move.any()):
            return
        penalty = self.splitting.penalty
        self.splitting = self.splitting.with_penalty(torch.where(move, balance.moved(penalty), penalty))
        self.u = self.splitting.state(point.s, point.y)

    def _share(self, penalty: Tensor) -> None:
        """One penalty ``(1,)`` for all at work; for the whole batch while none is solved under another."""
        self.splitting = self.splitting.with_penalty(penalty)
        if not bool((self.status == SOLVED).any()):
            everyone = len(self.index) == len(self.status)
            self.all = self.splitting if everyone else self.all.with_penalty(penalty)
            self.penalty = penalty.expand_as(self.penalty).clone()

    def _balance(self, stage: str) -> tuple[Iterate, Balance]:
        """The points of the instances at work and what they say about the penalty; a line in the log."""
        point, _ = self.check(stage)
        return point, Balance.at(self.splitting.program, point.x, point.s, point.y)
