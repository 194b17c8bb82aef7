"""The penalties of a batch: shared while the batch is together, each instance's own later."""

import torch
from torch import Tensor

from cvxfold.engines.outcome import SOLVED
from cvxfold.engines.settings import FIRST_ROUND
from cvxfold.engines.tensors.batch import Batch
from cvxfold.engines.tensors.penalty import BALANCED, Balance, first_penalty
from cvxfold.engines.tensors.splitting import Iterate

_ROUNDS = 4


def balance(batch: Batch) -> None:
    """The first rounds, in which the penalty comes to balance the residuals.

    One penalty for all where they share P and A, and so a factor; else each instance's own.
    """
    if batch.splitting.program.shared:
        _balance_together(batch)
    else:
        _balance_each(batch)


def _balance_together(batch: Batch) -> None:
    """One penalty, moved while the batch's median is out of balance."""
    for _ in range(_ROUNDS):
        if not len(batch) or not batch.iterate(FIRST_ROUND):
            return
        point, found = _balance_of(batch, "balance")
        ratio = float(found.factor.median())
        if batch.settings.penalty is not None or 1 / BALANCED < ratio < BALANCED:
            return
        _set_penalty(batch, found.moved(batch.splitting.penalty).median().reshape(1))
        batch.u = batch.splitting.state(point.s, point.y)


def _balance_each(batch: Batch) -> None:
    """Each instance's own, moved while it is out of balance; those that are not wait for the others."""
    rows = batch.everyone()
    for _ in range(_ROUNDS):
        some = None if len(rows) == len(batch) else rows
        if not len(rows) or not batch.iterate(FIRST_ROUND, some):
            return
        point, found = _balance_of(batch, "balance")
        rows = rows[found.out[rows]]
        if batch.settings.penalty is not None or not len(rows):
            return
        penalty = batch.splitting.penalty.expand(len(batch)).clone()
        penalty[rows] = found.moved(penalty)[rows]
        _set_penalty(batch, penalty)
        batch.u = batch.u.index_copy(0, rows, batch.splitting.state(point.s, point.y)[rows])


def begin_again(batch: Batch) -> None:
    """From nothing, as a layer without a memory would."""
    _set_penalty(batch, first_penalty(batch.splitting.program))
    batch.u = torch.zeros_like(batch.u)
    balance(batch)


def adapt(batch: Batch) -> None:
    """Move the penalties of instances whose primal and dual residuals are out of balance."""
    point, found = _balance_of(batch, "adapt")
    if not bool(found.out.any()):
        return
    penalty = batch.splitting.penalty
    batch.splitting = batch.splitting.with_penalty(torch.where(found.out, found.moved(penalty), penalty))
    batch.u = batch.splitting.state(point.s, point.y)


def _set_penalty(batch: Batch, penalty: Tensor) -> None:
    """Penalties ``(1|b,)`` for all at work; for the whole batch while none is solved under another."""
    batch.splitting = batch.splitting.with_penalty(penalty)
    settled = batch.settled
    everyone = len(batch) == len(settled.status)
    if everyone:
        batch.whole = batch.splitting
    elif len(penalty) == 1 and not bool((settled.status == SOLVED).any()):
        batch.whole = batch.whole.with_penalty(penalty)
    else:
        return
    settled.penalty = penalty.expand_as(settled.penalty).clone()


def _balance_of(batch: Batch, stage: str) -> tuple[Iterate, Balance]:
    """The points of the instances at work and what they say about the penalty; a line in the log."""
    point, _ = batch.check(stage)
    return point, Balance.at(batch.splitting.program, point.x, point.s, point.y)
