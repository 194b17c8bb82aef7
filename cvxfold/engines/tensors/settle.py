"""Which of the instances at work are settled by what they have reached, or never will be."""

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.engines.outcome import SOLVED, UNCONVERGED
from cvxfold.engines.tensors.batch import Batch
from cvxfold.engines.tensors.detail import in_detail
from cvxfold.engines.tensors.newton import POLISHED, newton_steps
from cvxfold.engines.tensors.residuals import MeasuredResiduals, residuals
from cvxfold.engines.tensors.splitting import Iterate

_NEWTON_STEPS = 8
_STALLED = 0.5  # an instance whose residual iterations and a finish did not reduce by this stalls


def retire_solved(batch: Batch, stage: str) -> Tensor:
    """Retire the instances within tolerance; returns the positions of those that remain."""
    point, residual = batch.check(stage)
    return batch.retire(point, _solved(batch, point, residual), SOLVED)


def retire_exact(batch: Batch, stage: str) -> Tensor:
    """Retire the instances that are solved to rounding; others may have better means ahead of them."""
    point, residual = batch.check(stage)
    return batch.retire(point, _solved(batch, point, residual) & (residual.worst() <= POLISHED), SOLVED)


def polish_and_retire(batch: Batch, stage: str) -> Tensor:
    """Retire the instances within tolerance, after Newton steps."""
    point, residual = batch.check(stage)
    solved = _solved(batch, point, residual)
    if len(rows := places(solved)):
        batch.u[rows] = finished_states(batch, rows, rough=False)
        point = batch.point()
    return batch.retire(point, solved, SOLVED)


def finished_states(batch: Batch, rows: Tensor, rough: bool = True) -> Tensor:
    """The states of the instances at positions ``rows`` after Newton steps, ``(len(rows), m')``.

    ``rough``: whether they will be measured again.
    """
    splitting, scaling = batch.splitting, batch.scaling
    if len(rows) < len(batch):
        splitting, scaling = splitting.take(rows), scaling.take(rows)
    best, steps = newton_steps(
        splitting, scaling, batch.u[rows], batch.settings, _NEWTON_STEPS, batch.deadline, rough
    )
    batch.settled.newton_steps[batch.index[rows]] += steps
    return best


def give_up(batch: Batch) -> None:
    """Retire the instances that are broken, or that neither iterations nor finishes move any more."""
    if not len(batch):
        return
    point = batch.point()
    worst = residuals(batch.splitting.program, batch.scaling, point.x, point.s, point.y).worst()
    hopeless = ~worst.isfinite()
    if batch.done >= batch.settings.patience:
        hopeless |= worst > _STALLED * batch.reached
    batch.reached = torch.minimum(batch.reached, worst)
    batch.retire(point, hopeless, UNCONVERGED)


def _solved(batch: Batch, point: Iterate, residual: MeasuredResiduals) -> Tensor:
    """Which instances are solved, ``(b,)``."""
    settings = batch.settings
    return in_detail(batch.splitting, batch.scaling, point, residual, settings)[2] <= settings.eps
