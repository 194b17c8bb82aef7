"""Another solver's points for the instances that our own method does not reach, finished by Newton steps."""

from collections.abc import Callable

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.batch import Working
from cvxfold.engines.tensors.memory import Start
from cvxfold.engines.tensors.penalty import balance_of, natural_penalty
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.solution import ForwardSettings
from cvxfold.engines.tensors.splitting import Splitting

Rescue = Callable[[Tensor, Deadline], Start]
"""Another solver's points for the instances of an index ``(b,)``, before a deadline."""


class WithRescue(Working):
    """A batch at work that may ask another solver, once.

    Args:
        splitting, scaling, settings, deadline: as in :class:`Working`.
        rescue: the solver; None for nobody.
    """

    def __init__(
        self,
        splitting: Splitting,
        scaling: Scaling,
        settings: ForwardSettings,
        deadline: Deadline,
        rescue: Rescue | None,
    ) -> None:
        super().__init__(splitting, scaling, settings, deadline)
        self.rescuer = rescue if settings.refine else None

    def rescue(self) -> None:
        """Another solver's points, or certificates, for the instances at work; then Newton."""
        rescuer, self.rescuer = self.rescuer, None
        if rescuer is None or self.deadline.passed:
            return
        start = rescuer(self.index, self.deadline)
        self.rescued[self.index] = True
        dx, dy = self.directions(start)
        left = self.certify(dx, dy)
        if not len(left):
            return
        assert start.x is not None
        x = start.x[left] / self.scaling.columns / self.scaling.size.unsqueeze(-1)
        s, y = self.scaling.equilibrated(start.s[left], start.y[left])
        kept = self._finish_from(x, s, y, balance_of)
        if len(kept) and self.settings.penalty is None:
            u, penalty = self.u, self.splitting.penalty
            again = self._finish_from(x[kept], s[kept], y[kept], natural_penalty, accept=False)
            if len(again):
                self.u, self.splitting = u[again], self.splitting.with_penalty(penalty[again])
            kept = kept[again]
        if len(kept):
            self.certify_polished(dx[left[kept]], dy[left[kept]])

    def _finish_from(
        self,
        x: Tensor,
        s: Tensor,
        y: Tensor,
        rule: Callable[[ConeProgram, Tensor, Tensor, Tensor], Tensor],
        accept: bool = True,
    ) -> Tensor:
        """Newton steps from another solver's points, under the penalties that a rule gives them.

        Args:
            x, s, y: the points, equilibrated, ``(b, n)`` and ``(b, m)``.
            rule: for the penalty, of a program and x, s and y.
            accept: as in :meth:`settle`.

        Returns:
            Positions of the instances that were at work and remain.
        """
        point, before = self.check("rescue")
        if self.settings.penalty is None:
            self.splitting = self.splitting.with_penalty(rule(self.splitting.program, x, s, y))
        fallback = self.splitting.state(point.s, point.y)
        self.u = self.splitting.state(s, y)
        self.u = self.newton(self.everyone())
        _, after = self.check("newton")
        self.keep_better(fallback, before.worst(), after.worst())
        return self.settle("rescued", polished=True, accept=accept)

    def directions(self, start: Start) -> tuple[Tensor, Tensor]:
        """A start as directions dx and dy, in the units of the equilibrated program."""
        assert start.x is not None
        return start.x / self.scaling.columns, start.y / self.scaling.rows

    def keep_better(self, fallback: Tensor, before: Tensor, after: Tensor) -> None:
        """Go back to ``fallback`` where the state is not better."""
        worse = ~(after < before)
        self.u = torch.where(worse.unsqueeze(-1), fallback, self.u)
