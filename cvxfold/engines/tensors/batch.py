"""The instances of a batch that are still at work, and what is known of all of them."""

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.acceleration import accelerated
from cvxfold.engines.tensors.certificate_polish import polished_multiplier, polished_ray
from cvxfold.engines.tensors.certificates import infeasibility, unboundedness
from cvxfold.engines.tensors.finish import POLISHED, newton_finish
from cvxfold.engines.tensors.log import IterationLog
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import Residuals, at_rounding, residuals
from cvxfold.engines.tensors.solution import CODES, ForwardSettings, Solution, Status
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_NEWTON_STEPS = 8
_PROMISING = 10.0  # residual of a direction that may become a certificate

SOLVED, UNCONVERGED, INFEASIBLE, UNBOUNDED = (
    CODES.index(status) for status in (Status.SOLVED, Status.UNCONVERGED, Status.INFEASIBLE, Status.UNBOUNDED)
)


class Working:
    """A batch of which instances leave as they are settled.

    Args:
        splitting: F, for the whole batch, B ≥ 1.
        scaling: of its program.
        settings: of the pass.
        deadline: of the pass.
    """

    def __init__(
        self, splitting: Splitting, scaling: Scaling, settings: ForwardSettings, deadline: Deadline
    ) -> None:
        program, q = splitting.program, splitting.program.q
        batch = program.batch
        self.settings, self.deadline = settings, deadline
        self.all, self.all_scaling = splitting, scaling
        self.penalty = splitting.penalty.expand(batch).clone()
        self.s, self.y = torch.zeros_like(program.b), torch.zeros_like(program.b)
        self.status = torch.full((batch,), UNCONVERGED, device=q.device)
        self.iterations = torch.zeros(batch, dtype=torch.long, device=q.device)
        self.newton_steps = torch.zeros_like(self.iterations)
        self.certificate = q.new_full((batch,), torch.nan)
        self.rescued = torch.zeros(batch, dtype=torch.bool, device=q.device)
        self.soon = torch.zeros_like(self.rescued)  # solved before the costly stages
        self.early, self.late = True, 0.0  # whether these are still ahead; the share that came to them
        self.expected = 1.0  # the share that a remembered penalty may leave to them
        # Of the instances at work:
        self.index = torch.arange(batch, device=q.device)
        self.splitting, self.scaling = splitting, scaling
        self.u = torch.zeros_like(program.b)
        self.reached = q.new_full((batch,), torch.inf)  # residual after the last finish
        self.done = 0
        self.log = IterationLog(enabled=settings.verbose)

    def solution(self) -> Solution:
        """The solution of the whole batch, under one penalty where no instance moved its own."""
        moved = bool((self.penalty != self.all.penalty).any())
        splitting = self.all.with_penalty(self.penalty) if moved else self.all
        point = splitting.evaluate(splitting.state(self.s, self.y))
        residual = self.residuals_of(splitting.program, self.all_scaling, point)
        return Solution(
            splitting, self.all_scaling, point, self.status, self.iterations, self.newton_steps, residual,
            self.certificate, self.rescued,
        )  # fmt: skip

    def penalty_for_next_call(self) -> float | None:
        """The geometric middle of the penalties under which instances were solved early; None if none was.

        Where that is near the one that the whole batch began with, that one: its factor is known.
        """
        known = float(self.all.penalty[0])
        if self.settings.penalty is not None:
            return known
        solved = self.penalty[self.soon]
        if not len(solved):
            return None
        middle = float(solved.log().median().exp())
        return known if 0.2 < middle / known < 5.0 else middle

    def advance(self, steps: int, *, fast: bool = False) -> bool:
        """Apply F to the instances at work, accelerated if ``fast``; False where a limit forbids it."""
        steps = min(steps, self.settings.max_iters - self.done)
        if steps <= 0 or self.deadline.passed:
            return False
        if fast and self.settings.acceleration:
            self.u = accelerated(self.splitting, self.u, steps, self.settings.acceleration)
        else:
            self.u = self.splitting.run(self.u, steps)
        self.done += steps
        self.iterations[self.index] += steps
        return True

    def everyone(self) -> Tensor:
        """Positions of the instances at work, ``(b,)``."""
        return torch.arange(len(self.index), device=self.u.device)

    def check(self, stage: str) -> tuple[Iterate, Residuals]:
        """The points of the instances at work and their residuals; a line in the log."""
        point = self.splitting.evaluate(self.u)
        residual = self.residuals_of(self.splitting.program, self.scaling, point)
        self.log.row(stage, self.done, residual, self.splitting.penalty)
        return point, residual

    @staticmethod
    def residuals_of(program: ConeProgram, scaling: Scaling, point: Iterate) -> Residuals:
        """Residuals of a point in original units."""
        return residuals(program, scaling, point.x, point.s, point.y)

    def settle(self, stage: str, polished: bool = False, accept: bool = True) -> Tensor:
        """Retire the instances within tolerance, first polishing them if that is wanted and not yet done.

        Args:
            stage: for the log.
            polished: whether Newton steps were taken already.
            accept: whether the tolerance suffices; otherwise only what is solved to rounding is retired.

        Returns:
            Positions of the instances that were at work and remain.
        """
        point, residual = self.check(stage)
        solved = self._solved(point, residual)
        if not accept:
            solved &= residual.worst() <= POLISHED
        if self.settings.refine and not polished and bool(solved.any()):
            rows = solved.nonzero().squeeze(-1)
            self.u[rows] = self.newton(rows)
            point = self.splitting.evaluate(self.u)
        return self.retire(point, solved, torch.full_like(self.index, SOLVED))

    def _solved(self, point: Iterate, residual: Residuals) -> Tensor:
        """Which instances are within tolerance, or only kept from it by rounding; ``(B,)``."""
        primal, dual, gap = residual.each_within(self.settings.eps_abs, self.settings.eps_rel)
        solved = primal & dual & gap
        if bool((~solved & gap & (residual.worst() <= POLISHED)).any()):
            floors = at_rounding(self.splitting.program, self.scaling, point.x, point.s, point.y)
            solved = gap & (primal | floors[0]) & (dual | floors[1])
        return solved

    def retire(self, point: Iterate, mask: Tensor, status: Tensor) -> Tensor:
        """Take out the instances ``mask`` ``(b,)`` with their ``status`` ``(b,)``.

        Returns:
            Positions of those that remain.
        """
        if not bool(mask.any()):
            return self.everyone()
        rows = mask.nonzero().squeeze(-1)
        self.store(point, rows)
        self.status[self.index[rows]] = status[rows]
        self.soon[self.index[rows]] = (status[rows] == SOLVED) & self.early
        keep = (~mask).nonzero().squeeze(-1)
        self.index, self.u, self.reached = self.index[keep], self.u[keep], self.reached[keep]
        self.splitting, self.scaling = self.splitting.take(keep), self.scaling.take(keep)
        return keep

    def store(self, point: Iterate, rows: Tensor) -> None:
        """Note the points of the instances at positions ``rows``."""
        index, penalty = self.index[rows], self.splitting.penalty
        self.s[index], self.y[index] = point.s[rows], point.y[rows]
        self.penalty[index] = penalty if penalty.shape[0] == 1 else penalty[rows]

    def newton(self, rows: Tensor) -> Tensor:
        """Newton's finish for the instances at positions ``rows``; returns their states."""
        splitting, scaling = self.splitting, self.scaling
        if len(rows) < len(self.index):
            splitting, scaling = splitting.take(rows), scaling.take(rows)
        best, steps = newton_finish(
            splitting, scaling, self.u[rows], self.settings, _NEWTON_STEPS, self.deadline
        )
        self.newton_steps[self.index[rows]] += steps
        return best

    def certify_polished(self, dx: Tensor, dy: Tensor) -> Tensor:
        """:meth:`certify`, after Newton steps that make approximate certificates accurate."""
        program, scaling = self.splitting.program, self.scaling
        for residual, direction, polished in (
            (unboundedness(program, scaling, dx, endless=False), dx, polished_ray),
            (infeasibility(program, scaling, dy), dy, polished_multiplier),
        ):
            rows = (residual <= _PROMISING).nonzero().squeeze(-1)
            if len(rows):
                direction[rows] = polished(program.take(rows), direction[rows])
        return self.certify(dx, dy)

    def certify(self, dx: Tensor, dy: Tensor) -> Tensor:
        """Retire the instances that a direction, ``(b, n)`` or ``(b, m)``, proves to have no solution.

        Returns:
            Positions of the instances that were at work and remain.
        """
        program, eps = self.splitting.program, self.settings.eps_infeasible
        primal = infeasibility(program, self.scaling, dy)
        dual = unboundedness(program, self.scaling, dx)
        infeasible, unbounded = primal <= eps, dual <= eps
        self.certificate[self.index] = torch.where(
            infeasible, primal, torch.where(unbounded, dual, self.certificate[self.index])
        )
        kinds = torch.where(infeasible, INFEASIBLE, UNBOUNDED)
        return self.retire(self.splitting.evaluate(self.u), infeasible | unbounded, kinds)
