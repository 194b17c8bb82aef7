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
    """The first rounds: one penalty for the batch, moved while its median is out of balance."""
    for _ in range(_ROUNDS):
        if not len(batch) or not batch.iterate(FIRST_ROUND):
            return
        point, found = _balance_of(batch, "balance")
        ratio = float(found.factor.median())
        if batch.settings.penalty is not None or 1 / BALANCED < ratio < BALANCED:
            return
        _share(batch, found.moved(batch.splitting.penalty).median().reshape(1))
        batch.u = batch.splitting.state(point.s, point.y)


def begin_again(batch: Batch) -> None:
    """From nothing, as a layer without a memory would."""
    _share(batch, first_penalty(batch.splitting.program))
    batch.u = torch.zeros_like(batch.u)
    balance(batch)


def adapt(batch: Batch) -> None:
    """Move the penalties of instances whose primal and dual residuals are out of balance."""
    point, found = _balance_of(batch, "adapt")
    move = (found.factor > BALANCED) | (found.factor < 1 / BALANCED)
    if not bool(move.any()):
        return
    penalty = batch.splitting.penalty
    batch.splitting = batch.splitting.with_penalty(torch.where(move, found.moved(penalty), penalty))
    batch.u = batch.splitting.state(point.s, point.y)


def _share(batch: Batch, penalty: Tensor) -> None:
    """One penalty ``(1,)`` for all at work; for the whole batch while none is solved under another."""
    batch.splitting = batch.splitting.with_penalty(penalty)
    settled = batch.settled
    if not bool((settled.status == SOLVED).any()):
        everyone = len(batch) == len(settled.status)
        batch.shared = batch.splitting if everyone else batch.shared.with_penalty(penalty)
        settled.penalty = penalty.expand_as(settled.penalty).clone()


def _balance_of(batch: Batch, stage: str) -> tuple[Iterate, Balance]:
    """The points of the instances at work and what they say about the penalty; a line in the log."""
    point, _ = batch.check(stage)
    return point, Balance.at(batch.splitting.program, point.x, point.s, point.y)
