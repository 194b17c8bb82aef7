"""The backward pass of instances that were solved together: an adjoint, a look at each, and the record.

1. The engine's own adjoint with its screen, for the default method; any other method on the engine's
   linearization.
2. A diagnosis of those on which the screen has something.
3. The verdicts.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from cvxfold.batches.records import overwritten
from cvxfold.engines.protocol import Engine, Solution
from cvxfold.fold import AdjointMethod, AdjointSettings, Auto
from cvxfold.gradient.adjoint import Adjoint, fold
from cvxfold.gradient.diagnosis import Diagnosis, diagnose
from cvxfold.gradient.screen import Screen, screen
from cvxfold.report.records import BackwardRecord


@dataclass(frozen=True)
class FoldedGradient:
    """The gradient of some instances.

    Args:
        p: of the adjoint, ``(b, n)``. v: of the same, ``(b, m)``.
        record: on them.
    """

    p: Tensor
    v: Tensor
    record: BackwardRecord

    def padded(self, longest: int) -> "FoldedGradient":
        """With a history of ``longest`` rows."""
        return replace(self, record=self.record.padded(longest))


def differentiate(
    engine: Engine,
    solution: Solution,
    bars: tuple[Tensor, Tensor],
    method: AdjointMethod,
    settings: AdjointSettings,
) -> FoldedGradient:
    """Differentiate solutions.

    Args:
        engine: that found them, or another.
        solution: b instances, all of which have one.
        bars: the loss gradients on x ``(b, n)`` and y ``(b, m)``.
        method: for the adjoint system.
        settings: of the method.
    """
    if method == Auto():  # 1
        adjoint, seen = engine.differentiate(solution, *bars, settings)
    else:
        phi = engine.linearize(solution)
        adjoint = fold(phi, *bars, method, settings)
        seen = screen(phi, adjoint, *bars)
    diagnosis = diagnosed(engine, solution, bars, adjoint, seen, settings)  # 2
    record = BackwardRecord.of(adjoint.system, diagnosis, solution.solved, settings.tol)  # 3
    return FoldedGradient(adjoint.p, adjoint.v, record)


def diagnosed(
    engine: Engine,
    solution: Solution,
    bars: tuple[Tensor, Tensor],
    adjoint: Adjoint,
    seen: Screen,
    settings: AdjointSettings,
) -> Diagnosis:
    """What is known of every instance: from the screen, and from a diagnosis of the suspicious ones."""
    rows = seen.suspicious.nonzero().squeeze(-1)
    if not len(rows):
        return Diagnosis.unsuspicious(seen)
    phi = engine.linearize(solution)
    if len(rows) == len(solution.x):
        return diagnose(phi, bars, adjoint, seen, settings.deadline)
    phi = phi.take(rows)
    of_rows = bars[0][rows], bars[1][rows]
    part = diagnose(phi, of_rows, adjoint.take(rows), seen.take(rows), settings.deadline)
    return overwritten(Diagnosis.unsuspicious(seen), rows, part)
