"""The finish of a batch: Newton steps from where the iteration came to, or from better points.

1. Newton steps; where they fail, the last step of F is tested as a certificate.
2. Another solver's points, or certificates, then Newton steps from those.
3. The method of multipliers, then Newton steps; its last proximal steps are tested as certificates.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.engines.outcome import Start
from cvxfold.engines.tensors.batch import Batch
from cvxfold.engines.tensors.certify import certify, certify_polished, certify_step
from cvxfold.engines.tensors.multipliers import multipliers
from cvxfold.engines.tensors.penalty import balance_of, natural_penalty
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.settle import finished_states, retire_exact, retire_solved

_MULTIPLIER_START, _MULTIPLIER_TOLERANCE = 10.0, 0.1  # the latter times eps_rel

Rescue = Callable[[Tensor, Deadline], Start]
"""Another solver's points for the instances of an index ``(b,)``, before a deadline."""

PenaltyRule = Callable[[ConeProgram, Tensor, Tensor, Tensor], Tensor]
"""The penalty that x, s and y of a program ask for, ``(b,)``."""


def finish_by_newton(batch: Batch) -> None:
    """Newton steps; where they fail, the last step of F as a certificate."""
    before = batch.u
    batch.u = finished_states(batch, batch.everyone())
    left = retire_exact(batch, "newton")
    if batch.may_go_on:
        certify_step(batch, before[left])


def finish_by_rescue(batch: Batch, rescue: Rescue) -> None:
    """Another solver's points, or certificates, for the instances at work; then Newton."""
    if not batch.may_go_on:
        return
    start = rescue(batch.index, batch.deadline)
    batch.settled.rescued[batch.index] = True
    dx, dy = directions(batch, start)
    left = certify(batch, dx, dy)
    if not len(left):
        return
    assert start.x is not None
    x = start.x[left] / batch.scaling.columns / batch.scaling.size.unsqueeze(-1)
    s, y = batch.scaling.equilibrated(start.s[left], start.y[left])
    _newton_from(batch, x, s, y, balance_of)
    kept = retire_solved(batch, "rescued")
    if batch.may_go_on and batch.settings.penalty is None:
        u, penalty = batch.u, batch.splitting.penalty
        _newton_from(batch, x[kept], s[kept], y[kept], natural_penalty)
        again = retire_exact(batch, "rescued")
        if len(again):
            batch.u = u[again]
            batch.move_penalty(penalty[again])
        kept = kept[again]
    if batch.may_go_on:
        certify_polished(batch, dx[left[kept]], dy[left[kept]])


def _newton_from(batch: Batch, x: Tensor, s: Tensor, y: Tensor, rule: PenaltyRule) -> None:
    """Newton steps from another solver's points, under the penalties that a rule gives them.

    Args:
        x, s, y: the points, equilibrated, ``(b, n')`` and ``(b, m')``.
        rule: for the penalty.
    """
    point, before = batch.check("rescue")
    if batch.settings.penalty is None:
        batch.move_penalty(rule(batch.splitting.program, x, s, y))
    fallback = batch.splitting.state(point.s, point.y)
    batch.u = batch.splitting.state(s, y)
    _newton_unless_worse(batch, fallback, before.worst())


def finish_by_multipliers(batch: Batch, steps: int) -> None:
    """The method of multipliers, then Newton."""
    fallback = batch.u
    point, before = batch.check("multipliers")
    came_to = multipliers(
        batch.splitting,
        batch.scaling,
        point,
        _MULTIPLIER_START * batch.splitting.penalty.expand(len(batch)),
        _MULTIPLIER_TOLERANCE * batch.settings.eps_rel,
        steps,
        batch.deadline,
    )
    batch.settled.newton_steps[batch.index] += came_to.steps
    batch.u = batch.splitting.state(came_to.s, came_to.y)
    _newton_unless_worse(batch, fallback, before.worst())
    left = retire_exact(batch, "finished")
    if len(batch):
        again = certify(batch, came_to.dx[left], came_to.dy[left])
        if batch.may_go_on:
            certify_polished(batch, came_to.dx[left][again], came_to.dy[left][again])


def _newton_unless_worse(batch: Batch, fallback: Tensor, before: Tensor) -> None:
    """Newton steps; back to the states ``fallback`` where the residual ``before`` was not reduced."""
    batch.u = finished_states(batch, batch.everyone())
    _, after = batch.check("newton")
    worse = ~(after.worst() < before)
    batch.u = torch.where(worse.unsqueeze(-1), fallback, batch.u)


def directions(batch: Batch, start: Start) -> tuple[Tensor, Tensor]:
    """A start as directions dx and dy, in the units of the equilibrated program."""
    assert start.x is not None
    return start.x / batch.scaling.columns, start.y / batch.scaling.rows
