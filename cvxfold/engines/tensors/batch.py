"""The instances of a forward pass: what is settled of all of them, and the states of those still at work."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from cvxfold.batches.near import is_near, parted
from cvxfold.deadline import Deadline
from cvxfold.engines.outcome import SOLVED, UNCONVERGED
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.acceleration import accelerated
from cvxfold.engines.tensors.log import IterationLog
from cvxfold.engines.tensors.residuals import MeasuredResiduals, residuals
from cvxfold.engines.tensors.splitting import Iterate, Splitting


@dataclass
class Settled:
    """What is known of each instance of a pass, each ``(B,)`` or ``(B, m')``, in equilibrated units.

    Args:
        penalty: under which its point was found. s, y: that point.
        status: as in a solution. iterations, newton_steps, certificate, rescued: likewise.
    """

    penalty: Tensor
    s: Tensor
    y: Tensor
    status: Tensor
    iterations: Tensor
    newton_steps: Tensor
    certificate: Tensor
    rescued: Tensor

    @classmethod
    def nothing(cls, splitting: Splitting) -> "Settled":
        """Before a pass under an operator."""
        b = splitting.program.b
        batch, none = len(b), torch.zeros(len(b), dtype=torch.long, device=b.device)
        return cls(
            penalty=splitting.penalty.expand(batch).clone(),
            s=torch.zeros_like(b),
            y=torch.zeros_like(b),
            status=torch.full((batch,), UNCONVERGED, device=b.device),
            iterations=none,
            newton_steps=none.clone(),
            certificate=b.new_full((batch,), torch.nan),
            rescued=none > 0,
        )


class Batch:
    """A batch of which instances leave as they are settled.

    Args:
        splitting: F, for the whole batch, B ≥ 1.
        scaling: of its program.
        settings: of the pass.
        deadline: of the pass.

    Attributes:
        settled: what is known of all B.
        whole: F for all of them, under the penalties that they had while they were together.
        index: which instances are at work, ``(b,)``.
        splitting, scaling, u: F, the equilibration and the states ``(b, m')`` of those.
        applied: applications of F that each has had, ``(b,)``. done: the most that one has had.
        reached: the residual that each had after the last finish, ``(b,)``.
    """

    def __init__(
        self, splitting: Splitting, scaling: Scaling, settings: ForwardSettings, deadline: Deadline
    ) -> None:
        b = splitting.program.b
        self.settings, self.deadline = settings, deadline
        self.settled = Settled.nothing(splitting)
        self.whole = splitting
        self.index = torch.arange(len(b), device=b.device)
        self.splitting, self.scaling = splitting, scaling
        self.u = torch.zeros_like(b)
        self.applied, self.done = torch.zeros_like(self.index), 0
        self.reached = b.new_full((len(b),), torch.inf)
        self.log = IterationLog(enabled=settings.verbose)
        self._pace = inf  # seconds that an application of F takes; inf as long as nobody knows
        self._together = True  # whether all have the penalties of the whole

    def __len__(self) -> int:
        """How many instances are at work."""
        return len(self.index)

    @property
    def may_go_on(self) -> bool:
        """Whether there is work, and time for it."""
        return len(self) > 0 and not self.deadline.passed

    def everyone(self) -> Tensor:
        """Positions of the instances at work, ``(b,)``."""
        return torch.arange(len(self.index), device=self.u.device)

    def point(self) -> Iterate:
        """The points of the instances at work."""
        return self.splitting.evaluate(self.u)

    def check(self, stage: str) -> tuple[Iterate, MeasuredResiduals]:
        """The points of the instances at work and their residuals; a line in the log."""
        point = self.point()
        residual = residuals(self.splitting.program, self.scaling, point.x, point.s, point.y)
        self.log.row(stage, self.done, residual, self.splitting.penalty)
        return point, residual

    def iterate(self, steps: int, rows: Tensor | None = None) -> bool:
        """Apply F to those at work, or to those at positions ``rows``; False where a limit forbids it."""
        made, rough = False, not is_near(self.u)  # who is done is measured by other projections

        def run(F: Splitting, u: Tensor, k: int) -> Tensor:
            return F.run(u, k, rough)

        while steps and self._advance(some := self._affordable(steps), run, rows):
            steps, made = steps - some, True
        return made

    def iterate_accelerated(self, steps: int) -> bool:
        """The same, with Anderson acceleration where that is wanted."""
        memory = self.settings.acceleration
        if not memory:
            return self.iterate(steps)
        return self._advance(self._affordable(steps), lambda F, u, k: accelerated(F, u, k, memory))

    def _affordable(self, steps: int) -> int:
        """As many of the steps as the time that is left allows, by the pace so far; at least one."""
        left = self.deadline.left
        return steps if left is None else max(1, min(steps, int(left / self._pace)))

    def _advance(
        self, steps: int, run: Callable[[Splitting, Tensor, int], Tensor], rows: Tensor | None = None
    ) -> bool:
        """Let those at work, or those at ``rows``, have as many of the steps as the limits leave them."""
        if self.deadline.passed:
            return False
        begun = time.monotonic()
        if self.done + steps <= self.settings.max_iters:
            self._apply(steps, run, rows)
            exact = rows is not None and is_near(rows)  # elsewhere those that have had the most are meant
            self.done = max(self.done, int(self.applied.amax())) if exact else self.done + steps
            self._pace = (time.monotonic() - begun) / steps
            return True
        rows = self.everyone() if rows is None else rows
        left = (self.settings.max_iters - self.applied[rows]).clamp_max(steps)
        for count in left[left > 0].unique().tolist():
            self._apply(count, run, rows[left == count])
        self.done = max(self.done, int(self.applied.amax()))
        self._pace = (time.monotonic() - begun) / steps
        return bool((left > 0).any())

    def _apply(
        self, steps: int, run: Callable[[Splitting, Tensor, int], Tensor], rows: Tensor | None
    ) -> None:
        """Let those at work, or those at ``rows``, have so many steps."""
        if rows is None:
            self.u = run(self.splitting, self.u, steps)
            self.applied += steps
            self.settled.iterations[self.index] += steps
            return
        self.u = self.u.index_copy(0, rows, run(self.splitting.take(rows), self.u[rows], steps))
        self.applied[rows] += steps
        self.settled.iterations[self.index[rows]] += steps

    def retire(self, point: Iterate, mask: Tensor, status: Tensor | int) -> Tensor:
        """Take out the instances ``mask`` ``(b,)`` with their ``status`` ``(b,)``, or one for all.

        Returns:
            Positions of those that remain.
        """
        rows, keep = parted(mask)
        if not len(rows):
            return keep
        self.store(point, rows)
        if isinstance(status, Tensor):
            self.settled.status[self.index[rows]] = status[rows]
        else:
            self.settled.status.index_fill_(0, self.index[rows], status)
        self.index, self.u = self.index[keep], self.u[keep]
        self.applied, self.reached = self.applied[keep], self.reached[keep]
        self.splitting, self.scaling = self.splitting.take(keep), self.scaling.take(keep)
        return keep

    def store(self, point: Iterate, rows: Tensor) -> None:
        """Note the points of the instances at positions ``rows``."""
        index, penalty = self.index[rows], self.splitting.penalty
        self.settled.s[index], self.settled.y[index] = point.s[rows], point.y[rows]
        self.settled.penalty[index] = penalty.expand(len(self.u))[rows]

    def move_penalty(self, penalty: Tensor) -> None:
        """Other penalties ``(1|b,)`` for those at work, which belong to them alone."""
        self.splitting, self._together = self.splitting.with_penalty(penalty), False

    def move_together(self, penalty: Tensor, look: bool = True) -> None:
        """Other penalties ``(1|b,)`` for all at work; for the whole batch while none is solved under another.

        ``look``: as for a splitting.
        """
        self.splitting = self.splitting.with_penalty(penalty, look)
        if len(self) == len(self.settled.status):
            self.whole = self.splitting
        elif len(penalty) == 1 and not bool((self.settled.status == SOLVED).any()):
            self.whole = self.whole.with_penalty(penalty)
        else:
            self._together = False
            return
        self.settled.penalty = penalty.expand_as(self.settled.penalty).clone()

    def operator_of_all(self) -> Splitting:
        """F for the whole batch, under one penalty where no instance moved its own."""
        penalty = self.settled.penalty
        moved = not self._together and bool((penalty != self.whole.penalty).any())
        return self.whole.with_penalty(penalty) if moved else self.whole
