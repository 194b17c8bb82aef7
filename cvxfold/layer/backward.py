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
from cvxfold.fold.history import padded
from cvxfold.gradient.adjoint import Adjoint, FoldedAdjoint, fold
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
    adjoint, diagnosis = examined(engine, solution, bars, adjoint, seen, settings)  # 2
    record = BackwardRecord.of(adjoint.system, diagnosis, solution.solved, settings.tol)  # 3
    return FoldedGradient(adjoint.p, adjoint.v, record)


def examined(
    engine: Engine,
    solution: Solution,
    bars: tuple[Tensor, Tensor],
    adjoint: Adjoint,
    seen: Screen,
    settings: AdjointSettings,
) -> tuple[Adjoint, Diagnosis]:
    """What is known of every instance: from the screen, and from a diagnosis of the suspicious ones.

    Where the engine does not tell what its adjoint leaves, those are folded again, with all means.
    """
    rows = seen.suspicious.nonzero().squeeze(-1)
    if not len(rows):
        return adjoint, Diagnosis.unsuspicious(seen)
    everyone = len(rows) == len(solution.x)
    if isinstance(adjoint, FoldedAdjoint):
        phi = engine.linearize(solution)
        if everyone:
            return adjoint, diagnose(phi, bars, adjoint, seen, settings.deadline)
        phi, of_rows, again, seen_again = phi.take(rows), _of(bars, rows), adjoint.take(rows), seen.take(rows)
    else:
        phi = engine.linearize(solution if everyone else solution.take(rows))
        of_rows = _of(bars, rows)
        again = fold(phi, *of_rows, Auto(), settings)
        seen_again = screen(phi, again, *of_rows)
        adjoint = _folded_again(adjoint, rows, again)
    part = diagnose(phi, of_rows, again, seen_again, settings.deadline)
    return adjoint, overwritten(Diagnosis.unsuspicious(seen), rows, part)


def _folded_again(adjoint: Adjoint, rows: Tensor, part: Adjoint) -> Adjoint:
    """An adjoint with that of the instances ``rows`` ``(b,)`` in its place."""
    longest = max(len(adjoint.system.history), len(part.system.history))
    whole, of_rows = (
        replace(one.system, history=padded(one.system.history, longest)) for one in (adjoint, part)
    )
    methods = "; ".join(dict.fromkeys((whole.method, of_rows.method)))
    changed = {
        name: getattr(whole, name).index_copy(0, rows, getattr(of_rows, name))
        for name in ("iterations", "residual", "rate", "converged", "exhausted")
    }
    history = whole.history.index_copy(1, rows, of_rows.history)
    system = replace(whole, method=methods, history=history, **changed)
    return replace(
        adjoint,
        p=adjoint.p.index_copy(0, rows, part.p),
        v=adjoint.v.index_copy(0, rows, part.v),
        system=system,
    )


def _of(bars: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    return bars[0][rows], bars[1][rows]
