"""The forward pass: rounds of the splitting iteration, each followed by the finish where it is wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from torch import Tensor

from cvxfold.batches.near import is_near, some
from cvxfold.deadline import NEVER, Deadline
from cvxfold.engines.outcome import INFEASIBLE, SOLVED, UNBOUNDED, UNCONVERGED, Start
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.settings import FIRST_ROUND, ForwardSettings
from cvxfold.engines.tensors.at_rest import in_doubt, lost, moving
from cvxfold.engines.tensors.balancing import adapt, balance, begin_again
from cvxfold.engines.tensors.batch import Batch, Settled
from cvxfold.engines.tensors.certify import certify, certify_free_descent, certify_step
from cvxfold.engines.tensors.detail import held_against, where_lacking
from cvxfold.engines.tensors.finish import (
    Rescue,
    directions,
    finish_by_multipliers,
    finish_by_newton,
    finish_by_rescue,
)
from cvxfold.engines.tensors.memory import Memory, first_operator
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import MeasuredResiduals, residuals
from cvxfold.engines.tensors.settle import give_up, polish_and_retire, retire_solved
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_ROUND = 50
_ALONE, _BESIDE_RESCUE = 200, 60  # steps of the method of multipliers
_FEW = 256  # instances that another solver is asked for before the method of multipliers, not after it
_FINISH_GROWTH = 4  # the finish is tried again after 4 times as many iterations
_MORE = 1.25  # the remembered penalty misleads where it leaves this many times what it left in the last call


@dataclass(frozen=True)
class Found:
    """Where a pass came to, in the units of the equilibrated program.

    Args:
        splitting: the operator that the fixed points belong to. scaling: of its program.
        point: the fixed points.
        settled: what is known of each instance.
        residuals: in original units.
        tested: what was held against the tolerance, ``(B,)``.
        memory: for the next call; None where there is nothing to remember.
    """

    splitting: Splitting
    scaling: Scaling
    point: Iterate
    settled: Settled
    residuals: MeasuredResiduals
    tested: Tensor
    memory: Memory | None


@dataclass(frozen=True)
class _Plan:
    """What it means whether a pass is to be refined.

    Args:
        first_finish_at: applications of F before the first finish.
        settle: takes out the instances within tolerance.
        claims_are_final: whether another solver's solutions are taken as they are.
    """

    first_finish_at: float
    settle: Callable[[Batch, str], Tensor]
    claims_are_final: bool

    @classmethod
    def of(cls, refine: bool, claimed: bool) -> "_Plan":
        """With or without a finish, from another solver's solutions or from anything else."""
        if not refine:
            return cls(inf, retire_solved, True)
        return cls(0 if claimed else FIRST_ROUND, polish_and_retire, False)


def solve(
    program: ConeProgram,
    scaling: Scaling,
    settings: ForwardSettings,
    memory: Memory | None = None,
    start: Start | None = None,
    rescue: Rescue | None = None,
    deadline: Deadline = NEVER,
) -> Found:
    """Solve a batch of cone programs.

    1. Begin with F under the penalty that worked last time, from a given point or from zero. What another
       solver claims of its point, or what falls along a direction that nothing constrains, is settled at
       once.
    2. Apply F a few times to every instance, while the penalty comes to balance the residuals.
    3. Finish by Newton steps. Where a remembered penalty leaves more than it did then, what is left begins
       again as without a memory.
    4. Give what is left, if it is not too much, to another solver, and finish its points by Newton steps;
       then to the method of multipliers, from the better of what there is.
    5. What is still left runs on alone, in longer, accelerated rounds: its steps are tested as certificates,
       each instance's penalty follows its own residuals, and the finish is tried again from time to time,
       until it stalls.

    Without ``settings.refine`` 3 and 4 are left out.

    Args:
        program: B instances, B ≥ 1, equilibrated. scaling: how.
        settings: tolerances and limits.
        memory: of the previous call, if any.
        start: a point to start from. Where it is another solver's solution it is finished, and iterated
            on only where that fails; without ``settings.refine`` it is taken as it is.
        rescue: for the instances that the first finish does not reach.
        deadline: of the pass.

    Returns:
        The points, a status for every instance, and the memory for the next call.
    """
    claimed = start is not None and start.status is not None
    look = claimed or is_near(program.q)
    batch = Batch(first_operator(program, settings, memory, look), scaling, settings, deadline)  # 1
    if start is not None:
        batch.u = batch.splitting.state(*scaling.equilibrated(start.s, start.y))
        if start.status is None:
            batch.u = batch.u.nan_to_num()  # instances without a point
    plan = _Plan.of(settings.refine, claimed)
    if start is not None and claimed:
        _settle_claims(batch, start, plan.claims_are_final)
    else:
        certify_free_descent(batch)
        balance(batch)  # 2
    early, late, rounds = None, 0.0, _Rounds(plan.first_finish_at)
    if len(batch) and batch.done >= rounds.finish_at:
        if batch.done >= settings.patience:  # another engine's iterations have not come near
            batch.reached = batch.check("F")[1].worst()
        finish_by_newton(batch)  # 3
        _begin_again_if_misled(batch, settings, None if claimed else memory)
        early, late = batch.settled.status == SOLVED, len(batch) / len(batch.settled.status)
        _finish_rest(batch, rescue)  # 4
        rounds.finish_again_later(batch)
    elif len(batch):
        plan.settle(batch, "F")
    while rounds.go_on(batch):  # 5
        if batch.done >= rounds.finish_at:
            finish_by_newton(batch)
            _finish_rest(batch, None)
            rounds.finish_again_later(batch)
        else:
            plan.settle(batch, "F")
    return _found(batch, scaling, early, late)


@dataclass
class _Rounds:
    """The later rounds, and when what is due, in applications of F.

    Args:
        finish_at: of the next finish.
        adapt_at: of the next look at the penalties.
    """

    finish_at: float
    adapt_at: int = 2 * _ROUND

    def finish_again_later(self, batch: Batch) -> None:
        """After a finish: give up what it did not move, and put the next one off."""
        self.finish_at = max(_FINISH_GROWTH * batch.done, FIRST_ROUND)
        give_up(batch)

    def go_on(self, batch: Batch) -> bool:
        """One round of what is left: certificates, penalties, accelerated iterations; False at the end."""
        done = batch.done
        if len(batch) and batch.deadline.passed:
            batch.store(batch.point(), batch.everyone())
            return False
        if len(batch) and done > FIRST_ROUND:
            certify_step(batch, batch.u)
        if len(batch) and done >= self.adapt_at and batch.settings.penalty is None:
            self.adapt_at = int(1.5 * done) + _ROUND
            adapt(batch)
        if len(batch) and not batch.iterate_accelerated(_ROUND):
            batch.store(batch.point(), batch.everyone())
            return False
        return len(batch) > 0


def _found(batch: Batch, scaling: Scaling, early: Tensor | None, late: float) -> Found:
    """The points of the whole batch.

    Args:
        early: instances that were solved before the costly stages, ``(B,)``; None: all that were solved.
        late: the share that came to those.
    """
    settled, splitting = batch.settled, batch.operator_of_all()
    point = splitting.evaluate(splitting.state(settled.s, settled.y))
    residual = residuals(splitting.program, scaling, point.x, point.s, point.y)
    kept = batch.whole if splitting.program.shared else splitting
    memory = Memory.of(batch, kept, settled.status == SOLVED if early is None else early, late)
    number, lacking = held_against(splitting, scaling, point, residual, batch.settings)
    if is_near(number) or any(some(lacking | in_doubt(number, batch.settings))):
        point, residual, number = where_lacking(
            splitting, scaling, point, residual, batch.settings, number, lacking
        )
        far_off = moving(splitting, point, number, batch.settings)
        settled.status = settled.status.masked_fill(far_off & (settled.status == SOLVED), UNCONVERGED)
    far_off = lost(splitting, point, batch.settings)
    settled.status = settled.status.masked_fill(far_off & (settled.status == SOLVED), UNCONVERGED)
    return Found(splitting, scaling, point, settled, residual, number, memory)


def _settle_claims(batch: Batch, start: Start, final: bool) -> None:
    """Retire the instances that another solver settled: those without a solution; all, if ``final``."""
    assert start.status is not None
    if start.iterations is not None:
        batch.settled.iterations = start.iterations.clone()
    if start.x is not None:  # it may be a certificate; then we can tell how good it is
        certify(batch, *directions(batch, start), claimed=start.status[batch.index])
    given = start.status[batch.index]
    settled = (given == INFEASIBLE) | (given == UNBOUNDED) | final
    batch.retire(batch.point(), settled, given)


def _begin_again_if_misled(batch: Batch, settings: ForwardSettings, memory: Memory | None) -> None:
    """Where the penalty of the last call misleads more instances than it did then: as without a memory.

    That costs what it costs a fresh layer; the stages that follow cost more.
    """
    if memory is None or memory.penalty is None or settings.penalty is not None:
        return
    misled = len(batch) > _MORE * memory.late * len(batch.settled.status)
    if misled and not batch.deadline.passed and settings.max_iters - batch.done >= FIRST_ROUND:
        begin_again(batch)
        if len(batch):
            finish_by_newton(batch)


def _finish_rest(batch: Batch, rescue: Rescue | None) -> None:
    """Another solver, once, and the method of multipliers for what Newton steps did not reach."""
    asked = rescue is None
    if rescue is not None and 0 < len(batch) <= _FEW:
        finish_by_rescue(batch, rescue)
        asked = True
    if batch.may_go_on:
        finish_by_multipliers(batch, _ALONE if rescue is None else _BESIDE_RESCUE)
    if rescue is not None and not asked:
        finish_by_rescue(batch, rescue)
    if len(batch):
        retire_solved(batch, "finished")
