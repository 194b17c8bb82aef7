"""The finish: Newton steps from an iterate of F to machine precision, safeguarded per instance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.near import fetched, is_near, places
from cvxfold.batches.records import Batched
from cvxfold.deadline import Deadline
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.residuals import MeasuredResiduals, residuals
from cvxfold.engines.tensors.splitting import Splitting

_FLOOR = 1e-14  # nothing to gain below this relative residual
POLISHED = 1e-11  # at a relative residual below this a step that does not halve it is the last
_PATIENCE = 2  # steps without progress before an instance is given up
_DIVERGED = 1e3
_FIRST_LOOK = 2  # steps before the first look at a device that is far; fewer are seldom enough


def newton_steps(
    splitting: Splitting,
    scaling: Scaling,
    u: Tensor,
    settings: ForwardSettings,
    max_steps: int,
    deadline: Deadline,
    rough: bool = False,
) -> tuple[Tensor, Tensor]:
    """Newton steps on g(u) = 0 for each instance, as long as they help.

    1. Steps. Far from the CPU the shapes stay, and nobody looks for singular matrices: those instances stop.
    2. For these the same again, with all looks.

    Full steps, without a line search: near a solution they converge superlinearly, and away from one the
    caller has better means. The best state met is returned, so the finish never makes an instance worse.

    Args:
        splitting: the operator, for the instances of ``u``.
        scaling: of its program.
        u: states, ``(B, m)``.
        settings: tolerances.
        max_steps: at most.
        deadline: of the pass.
        rough: whether projections may be so, far from the CPU: where what comes out is measured again.

    Returns:
        The best states ``(B, m)`` and the steps taken ``(B,)``.
    """
    steps = _Steps(settings, max_steps, deadline, rough)
    found, some_stuck = steps.run(splitting, scaling, u, careful=is_near(u))  # 1
    if some_stuck:
        rows = places(found.stuck)  # 2
        again, _ = steps.run(splitting.take(rows), scaling.take(rows), u[rows], careful=True)
        found = again.written_to(found, rows)
    return found.best, found.taken


@dataclass
class _Progress(Batched):
    """Where each instance has come to.

    Args:
        u: its state, ``(b, m)``. best: the best state that it has met, ``(b, m)``.
        least: the error of that, ``(b,)``. previous: that of the last state, ``(b,)``.
        stalls: steps in a row that did not halve the error, ``(b,)``. taken: steps, ``(b,)``.
        done: whether it takes no more steps, ``(b,)``. stuck: whether that is for want of a look, ``(b,)``.
    """

    u: Tensor
    best: Tensor
    least: Tensor
    previous: Tensor
    stalls: Tensor
    taken: Tensor
    done: Tensor
    stuck: Tensor

    @classmethod
    def at(cls, u: Tensor) -> "_Progress":
        """Before the first step."""
        none, far = torch.zeros(len(u), dtype=torch.long, device=u.device), u.new_full((len(u),), torch.inf)
        return cls(u, u.clone(), far, far, none, none.clone(), none > 0, none > 0)

    def written_to(self, whole: "_Progress | None", index: Tensor) -> "_Progress":
        """A whole with what these, its instances ``index`` ``(b,)``, came to; without one, these."""
        if whole is None:
            return self
        whole.best[index], whole.taken[index] = self.best, self.taken
        return whole

    def looked(self) -> tuple[bool, bool, bool]:
        """Whether all are done, whether any is, and whether any is stuck, after one look."""
        if is_near(self.u):
            return bool(self.done.all()), bool(self.done.any()), bool(self.stuck.any())
        flags = torch.stack([self.done.all(), self.done.any(), self.stuck.any()])
        every, some, stuck = fetched(flags)[0].tolist()
        return every, some, stuck


@dataclass(frozen=True)
class _Steps:
    """Newton steps of a batch; the arguments are those of :func:`newton_steps`."""

    settings: ForwardSettings
    max_steps: int
    deadline: Deadline
    rough: bool

    def run(self, splitting: Splitting, scaling: Scaling, u: Tensor, careful: bool) -> tuple[_Progress, bool]:
        """Where the instances come to, and whether any is stuck.

        Args:
            splitting, scaling, u: of the instances.
            careful: whether to look at each step, for singular matrices too.
        """
        near, some_stuck = is_near(u), False
        whole, now = None, _Progress.at(u)
        index = torch.arange(len(u), device=u.device)
        for step in range(self.max_steps + 1):
            point = splitting.evaluate(now.u, rough=self.rough and not careful)
            self._judge(residuals(splitting.program, scaling, point.x, point.s, point.y), now, step)
            g = point.g
            last = step == self.max_steps or self.deadline.passed
            if careful or last or step >= _FIRST_LOOK:
                all_done, some_done, some_stuck = now.looked()
                if last or all_done:
                    break
                if near and some_done:
                    whole = now.written_to(whole, index)
                    keep = places(~now.done)
                    index, g, now = index[keep], g[keep], now.take(keep)
                    splitting, scaling = splitting.take(keep), scaling.take(keep)
            self._step(splitting, now, g, careful)
        return now.written_to(whole, index), some_stuck

    def _judge(self, residual: MeasuredResiduals, now: _Progress, step: int) -> None:
        """Note who has come nearer and who is done."""
        error = residual.worst()
        better = error < now.least
        now.best = torch.where(better.unsqueeze(-1), now.u, now.best)
        now.least = torch.where(better, error, now.least)
        good = residual.within(self.settings.eps_abs, self.settings.eps_rel)
        halved = error < 0.5 * now.previous
        now.stalls = torch.where(halved, 0, now.stalls + 1)
        enough = good & ~halved & ((error <= POLISHED) | (now.stalls >= _PATIENCE))
        lost = ~(error < _DIVERGED * now.least)
        done = (error <= _FLOOR) | enough | lost
        if step >= _PATIENCE:
            done |= ~good & ~halved & (error > now.least)
        now.done, now.previous = now.done | done, error

    @staticmethod
    def _step(splitting: Splitting, now: _Progress, g: Tensor, careful: bool) -> None:
        """A step of those that are not done."""
        jacobian = FactoredJacobian.at(splitting, now.u, look=careful)
        if not careful:
            now.stuck = now.stuck | (jacobian.factor.unsettled & ~now.done)
            now.done = now.done | now.stuck
        moved = now.u + jacobian.inverse(g)
        now.u = moved if is_near(g) else torch.where(now.done.unsqueeze(-1), now.u, moved)
        now.taken = now.taken + ~now.done
