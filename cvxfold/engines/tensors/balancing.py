"""The penalties of a batch: shared while the batch is together, each instance's own later."""

import torch

from cvxfold.batches.near import fetched, is_near, places_and
from cvxfold.engines.settings import FIRST_ROUND
from cvxfold.engines.tensors.batch import Batch
from cvxfold.engines.tensors.certify import certify_free_descent
from cvxfold.engines.tensors.penalty import BALANCED, Balance, first_penalty
from cvxfold.engines.tensors.splitting import Iterate

_ROUNDS = 4


def balance(batch: Batch) -> None:
    """The first rounds, in which the penalty comes to balance the residuals.

    One penalty for all where they share P and A, and so a factor; else each instance's own. Far from the CPU
    a look at the balance tells as well whether the factors are sound; where one is not, all begins again,
    with every look.
    """
    rounds = _balance_together if batch.splitting.program.shared else _balance_each
    penalty, u = batch.splitting.penalty, batch.u
    if not rounds(batch, is_near(u)):
        batch.move_together(penalty)
        batch.u = u
        certify_free_descent(batch)
        rounds(batch, True)


def _balance_together(batch: Batch, look: bool) -> bool:
    """One penalty, moved while the batch's median is out of balance; False where a factor is not sound."""
    for _ in range(_ROUNDS):
        if not len(batch) or not batch.iterate(FIRST_ROUND):
            break
        point, found = _balance_of(batch, "balance")
        ratio, unsound = (
            float(one) for one in fetched(found.factor.median(), batch.splitting.some_unsettled)
        )
        if unsound:
            return False
        batch.splitting.looked = True
        if batch.settings.penalty is not None or 1 / BALANCED < ratio < BALANCED:
            break
        batch.move_together(found.moved(batch.splitting.penalty).median().reshape(1), look)
        batch.u = batch.splitting.state(point.s, point.y)
    return _is_sound(batch)


def _balance_each(batch: Batch, look: bool) -> bool:
    """Each instance's own, moved while it is out of balance; those that are not wait for the others.

    False where a factor is not sound.
    """
    rows, waiting = batch.everyone(), torch.ones_like(batch.index, dtype=torch.bool)
    for _ in range(_ROUNDS):
        some = None if len(rows) == len(batch) else rows
        if not len(rows) or not batch.iterate(FIRST_ROUND, some):
            break
        point, found = _balance_of(batch, "balance")
        waiting = waiting & found.out
        rows, unsound = places_and(waiting, batch.splitting.some_unsettled)
        if unsound:
            return False
        batch.splitting.looked = True
        if batch.settings.penalty is not None or not len(rows):
            break
        penalty = batch.splitting.penalty.expand(len(batch)).clone()
        penalty[rows] = found.moved(penalty)[rows]
        batch.move_together(penalty, look)
        batch.u = batch.u.index_copy(0, rows, batch.splitting.state(point.s, point.y)[rows])
    return _is_sound(batch)


def _is_sound(batch: Batch) -> bool:
    """Whether all factors are."""
    return batch.splitting.looked or not bool(batch.splitting.some_unsettled)


def begin_again(batch: Batch) -> None:
    """From nothing, as a layer without a memory would."""
    batch.move_together(first_penalty(batch.splitting.program), is_near(batch.u))
    batch.u = torch.zeros_like(batch.u)
    balance(batch)


def adapt(batch: Batch) -> None:
    """Move the penalties of instances whose primal and dual residuals are out of balance."""
    point, found = _balance_of(batch, "adapt")
    if not bool(found.out.any()):
        return
    penalty = batch.splitting.penalty
    batch.move_penalty(torch.where(found.out, found.moved(penalty), penalty))
    batch.u = batch.splitting.state(point.s, point.y)


def _balance_of(batch: Batch, stage: str) -> tuple[Iterate, Balance]:
    """The points of the instances at work and what they say about the penalty; a line in the log."""
    point, _ = batch.check(stage)
    return point, Balance.at(batch.splitting.program, point.x, point.s, point.y)
