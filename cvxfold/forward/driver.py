"""The forward pass: rounds of the splitting iteration, each followed by the finish where it is wanted.

1. Apply F a few times to every instance, from the penalty that worked last time to one that balances
   the residuals of the batch.
2. Finish (Newton, then the method of multipliers for what Newton did not reach).
3. What is left runs on alone, in longer rounds: each instance's penalty follows its own residuals, its
   steps are tested as certificates, and the finish is tried again from time to time.
"""

import torch
from torch import Tensor

from cvxfold.forward.certificates import certifies_infeasibility, certifies_unboundedness
from cvxfold.forward.finish import newton_finish
from cvxfold.forward.memory import Memory, Start
from cvxfold.forward.multipliers import multipliers
from cvxfold.forward.penalty import BALANCED, RANGE, first_penalty, imbalance
from cvxfold.forward.residuals import Residuals, residuals
from cvxfold.forward.scaling import Scaling
from cvxfold.forward.solution import CODES, FIRST_ROUND, ForwardSettings, Solution
from cvxfold.forward.splitting import Iterate, Splitting
from cvxfold.monitor.log import IterationLog
from cvxfold.program import ConeProgram

_ROUND = 50
_NEWTON_STEPS, _MULTIPLIER_STEPS = 8, 200
_MULTIPLIER_START, _MULTIPLIER_TOLERANCE = 10.0, 0.1  # the latter times eps_rel
_BALANCING_ROUNDS = 4
_FINISH_GROWTH = 4  # the finish is tried again after 4 times as many iterations

_SOLVED, _UNCONVERGED, _INFEASIBLE, _UNBOUNDED = range(len(CODES))


def solve(
    program: ConeProgram,
    scaling: Scaling,
    settings: ForwardSettings,
    memory: Memory | None = None,
    start: Start | None = None,
) -> tuple[Solution, Memory]:
    """Solve a batch of cone programs.

    Args:
        program: B instances, B ≥ 1, equilibrated. scaling: how.
        settings: tolerances and limits.
        memory: of the previous call, if any.
        start: a point to start from. Where it is another solver's solution it is finished, and iterated
            on only where that fails; without ``settings.refine`` it is taken as it is.

    Returns:
        The solution, with a status for every instance, and the memory for the next call.
    """
    splitting = _operator(program, settings, memory)
    run = _Run(splitting, scaling, settings)
    if start is not None:
        run.u = splitting.state(*scaling.equilibrated(start.s, start.y))
    if start is None or start.status is None:
        run.certify_freely()
        run.balance()
        run.go()
    else:
        run.judge(start)
        run.go(finish_first=True)
    solution = run.solution()
    point = solution.point
    _, s, y = scaling.original(point.x, point.s, point.y)
    return solution, Memory(run.all, run.penalty_for_next_call(), s, y)


def _operator(program: ConeProgram, settings: ForwardSettings, memory: Memory | None) -> Splitting:
    """F under the penalty that was asked for, or else what worked before, or else a guess."""
    penalty = settings.penalty
    if penalty is None and memory is None:
        return Splitting(program, first_penalty(program), settings.relaxation)
    if memory is None:
        return Splitting(program, program.q.new_tensor([penalty]), settings.relaxation)
    return memory.operator(program, memory.penalty if penalty is None else penalty, settings.relaxation)


class _Run:
    """One forward pass: the instances still at work, and what is known of all of them."""

    def __init__(self, splitting: Splitting, scaling: Scaling, settings: ForwardSettings) -> None:
        program, q = splitting.program, splitting.program.q
        batch = program.batch
        self.settings = settings
        self.all, self.all_scaling = splitting, scaling
        self.penalty = splitting.penalty.expand(batch).clone()
        self.s, self.y = torch.zeros_like(program.b), torch.zeros_like(program.b)
        self.status = torch.full((batch,), _UNCONVERGED, device=q.device)
        self.iterations = torch.zeros(batch, dtype=torch.long, device=q.device)
        self.newton_steps = torch.zeros_like(self.iterations)
        self.index = torch.arange(batch, device=q.device)
        self.splitting, self.scaling = splitting, scaling
        self.u = torch.zeros_like(program.b)
        self._done = 0
        self.log = IterationLog(enabled=settings.verbose)

    def certify_freely(self) -> None:
        """Retire the instances whose objective falls along a direction that nothing constrains."""
        direction = self.splitting.free_descent()
        if direction is not None:
            self._certify(direction, torch.zeros_like(self.u))

    def judge(self, start: Start) -> None:
        """Retire the instances that another solver settled: without a solution, or not to be refined."""
        assert start.status is not None
        if start.iterations is not None:
            self.iterations = start.iterations.clone()
        settled = (start.status == _INFEASIBLE) | (start.status == _UNBOUNDED)
        if not self.settings.refine:
            settled = torch.ones_like(settled)
        self._retire(self.splitting.evaluate(self.u), settled, start.status)

    def balance(self) -> None:
        """The first rounds: one penalty for the batch, moved while its median is out of balance."""
        for _ in range(_BALANCING_ROUNDS):
            if not len(self.index) or not self._advance(FIRST_ROUND):
                return
            point, residual = self._check("balance")
            ratio = float(imbalance(residual).median())
            if self.settings.penalty is not None or 1 / BALANCED < ratio < BALANCED:
                return
            low, high = RANGE
            self.all = self.all.with_penalty((self.all.penalty * ratio).clamp(low, high))
            self.splitting = self.all if len(self.index) == len(self.status) else self.all.take(self.index)
            self.penalty = self.all.penalty.expand_as(self.penalty).clone()
            self.u = self.splitting.state(point.s, point.y)

    def go(self, finish_first: bool = False) -> None:
        """Rounds until every instance is settled or the iterations are spent."""
        next_finish, next_adaptation = 0 if finish_first else FIRST_ROUND, 2 * _ROUND
        while len(self.index):
            done = self._done
            if self.settings.refine and done >= next_finish:
                next_finish = max(_FINISH_GROWTH * done, FIRST_ROUND)
                self._finish()
            else:
                self._settle("F")
            if len(self.index) and done > FIRST_ROUND:
                now = self.splitting.evaluate(self.u)
                ahead = self.splitting.evaluate(self.u + self.splitting.alpha * now.g)
                self._certify(ahead.x - now.x, ahead.y - now.y)
            if len(self.index) and done >= next_adaptation and self.settings.penalty is None:
                next_adaptation = int(1.5 * done) + _ROUND
                self._adapt()
            if len(self.index) and not self._advance(_ROUND):
                self._store(self.splitting.evaluate(self.u), self._working())
                return

    def solution(self) -> Solution:
        """The solution of the whole batch, under one penalty where no instance moved its own."""
        moved = bool((self.penalty != self.all.penalty).any())
        splitting = self.all.with_penalty(self.penalty) if moved else self.all
        point = splitting.evaluate(splitting.state(self.s, self.y))
        residual = self._residuals(splitting.program, self.all_scaling, point)
        return Solution(
            splitting, self.all_scaling, point, self.status, self.iterations, self.newton_steps, residual,
        )  # fmt: skip

    def penalty_for_next_call(self) -> float:
        """The geometric middle of the penalties that solved, if it is far from the batch's own."""
        start = float(self.all.penalty[0])
        if self.settings.penalty is not None:
            return start
        solved = self.penalty[self.status == _SOLVED]
        middle = float(solved.log().median().exp()) if len(solved) else start
        return start if 0.2 < middle / start < 5.0 else middle

    def _advance(self, steps: int) -> bool:
        """Apply F to the instances at work; False where that would exceed the limit on iterations."""
        steps = min(steps, self.settings.max_iters - self._done)
        if steps <= 0:
            return False
        self.u = self.splitting.run(self.u, steps)
        self._done += steps
        self.iterations[self.index] += steps
        return True

    def _working(self) -> Tensor:
        return torch.arange(len(self.index), device=self.u.device)

    def _check(self, stage: str) -> tuple[Iterate, Residuals]:
        """The points of the instances at work and their residuals; a line in the log."""
        point = self.splitting.evaluate(self.u)
        residual = self._residuals(self.splitting.program, self.scaling, point)
        self.log.row(stage, self._done, residual, self.splitting.penalty)
        return point, residual

    @staticmethod
    def _residuals(program: ConeProgram, scaling: Scaling, point: Iterate) -> Residuals:
        return residuals(program, scaling, point.x, point.s, point.y)

    def _settle(self, stage: str, polished: bool = False) -> Tensor:
        """Retire the instances within tolerance, first polishing them if that is wanted and not yet done.

        Returns:
            Which of the instances that were at work remain.
        """
        point, residual = self._check(stage)
        solved = residual.within(self.settings.eps_abs, self.settings.eps_rel)
        if self.settings.refine and not polished and bool(solved.any()):
            rows = solved.nonzero().squeeze(-1)
            self.u[rows] = self._newton(rows)
            point = self.splitting.evaluate(self.u)
        self._retire(point, solved, torch.full_like(self.index, _SOLVED))
        return ~solved

    def _retire(self, point: Iterate, mask: Tensor, status: Tensor) -> None:
        if not bool(mask.any()):
            return
        rows = mask.nonzero().squeeze(-1)
        self._store(point, rows)
        self.status[self.index[rows]] = status[rows]
        keep = (~mask).nonzero().squeeze(-1)
        self.index, self.u = self.index[keep], self.u[keep]
        self.splitting, self.scaling = self.splitting.take(keep), self.scaling.take(keep)

    def _store(self, point: Iterate, rows: Tensor) -> None:
        index, penalty = self.index[rows], self.splitting.penalty
        self.s[index], self.y[index] = point.s[rows], point.y[rows]
        self.penalty[index] = penalty if penalty.shape[0] == 1 else penalty[rows]

    def _newton(self, rows: Tensor) -> Tensor:
        """Newton's finish for some of the instances at work; returns their states."""
        splitting, scaling = self.splitting, self.scaling
        if len(rows) < len(self.index):
            splitting, scaling = splitting.take(rows), scaling.take(rows)
        best, steps = newton_finish(splitting, scaling, self.u[rows], self.settings, _NEWTON_STEPS)
        self.newton_steps[self.index[rows]] += steps
        return best

    def _finish(self) -> None:
        """Newton from the iterates, then from the method of multipliers where that was not enough."""
        self.u = self._newton(self._working())
        self._settle("newton", polished=True)
        if not len(self.index):
            return
        fallback = self.u
        point, before = self._check("multipliers")
        came_to = multipliers(
            self.splitting,
            self.scaling,
            point.x,
            point.y,
            _MULTIPLIER_START * self.splitting.penalty.expand(len(self.index)),
            _MULTIPLIER_TOLERANCE * self.settings.eps_rel,
            _MULTIPLIER_STEPS,
        )
        self.newton_steps[self.index] += came_to.steps
        self.u = self.splitting.state(came_to.s, came_to.y)
        self.u = self._newton(self._working())
        _, after = self._check("newton")
        worse = ~(after.worst() < before.worst())
        self.u = torch.where(worse.unsqueeze(-1), fallback, self.u)
        left = self._settle("finished", polished=True)
        if len(self.index):
            self._certify(came_to.dx[left], came_to.dy[left])

    def _certify(self, dx: Tensor, dy: Tensor) -> None:
        """Retire the instances that a direction, ``(b, n)`` or ``(b, m)``, proves to have no solution."""
        program, eps = self.splitting.program, self.settings.eps_infeasible
        infeasible = certifies_infeasibility(program, self.scaling, dy, eps)
        unbounded = certifies_unboundedness(program, self.scaling, dx, eps) & ~infeasible
        kinds = torch.where(unbounded, _UNBOUNDED, _INFEASIBLE)
        self._retire(self.splitting.evaluate(self.u), infeasible | unbounded, kinds)

    def _adapt(self) -> None:
        """Move the penalties of instances whose primal and dual residuals are out of balance."""
        point, residual = self._check("adapt")
        ratio = imbalance(residual)
        move = (ratio > BALANCED) | (ratio < 1 / BALANCED)
        if not bool(move.any()):
            return
        penalty = torch.where(move, self.splitting.penalty * ratio, self.splitting.penalty)
        self.splitting = self.splitting.with_penalty(penalty.clamp(*RANGE))
        self.u = self.splitting.state(point.s, point.y)
