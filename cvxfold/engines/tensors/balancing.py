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
    """The first rounds: penalties are moved until the batch's median is in balance.

    One penalty for all where they share P and A, and so a factor; else each instance's own.
    """
    for _ in range(_ROUNDS):
        if not len(batch) or not batch.iterate(FIRST_ROUND):
            return
        point, found = _balance_of(batch, "balance")
        if batch.settings.penalty is not None:
            return
        penalty, moved = batch.splitting.penalty, found.moved(batch.splitting.penalty)
        balanced = 1 / BALANCED < float(found.factor.median()) < BALANCED
        if not batch.splitting.program.shared and bool(found.out.any()):
            _set_penalty(batch, torch.where(found.out, moved, penalty))
            batch.u = batch.splitting.state(point.s, point.y)
        if balanced:
            return
        if batch.splitting.program.shared:
            _set_penalty(batch, moved.median().reshape(1))
            batch.u = batch.splitting.state(point.s, point.y)


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
        batch.shared = batch.splitting
    elif len(penalty) == 1 and not bool((settled.status == SOLVED).any()):
        batch.shared = batch.shared.with_penalty(penalty)
    else:
        return
    settled.penalty = penalty.expand_as(settled.penalty).clone()


def _balance_of(batch: Batch, stage: str) -> tuple[Iterate, Balance]:
    """The points of the instances at work and what they say about the penalty; a line in the log."""
    point, _ = batch.check(stage)
    return point, Balance.at(batch.splitting.program, point.x, point.s, point.y)
