"""The backward pass of instances that were solved together: an adjoint, a look at each, and the record.

1. The engine's own adjoint with its screen, for the default method; any other method on the engine's
   linearization.
2. A diagnosis of those on which the screen has something.
3. The verdicts.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cvxfold.batches.records import Piece, joined, overwritten
from cvxfold.engines.protocol import Engine, Solution
from cvxfold.gradient.adjoint import Adjoint, Bars, FoldedAdjoint, bars_of, fold
from cvxfold.gradient.diagnosis import Diagnosis, diagnose
from cvxfold.gradient.screen import Screen, screen
from cvxfold.layer.answer import Answer
from cvxfold.methods import AdjointMethod, AdjointSettings, AdjointSolution, Auto
from cvxfold.methods.history import padded
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
    bars: Bars,
    method: AdjointMethod,
    settings: AdjointSettings,
    looks: Bars | None = None,
) -> FoldedGradient:
    """Differentiate solutions.

    Args:
        engine: that found them, or another.
        solution: b instances, all of which have one.
        bars: the loss gradients on x ``(b, n)`` and y ``(b, m)``.
        method: for the adjoint system.
        settings: of the method.
        looks: loss gradients that are zero where nobody looks, if ``bars`` are none (of tangents).
    """
    if method == Auto():  # 1
        adjoint, seen = engine.differentiate(solution, *bars, settings)
        if looks is not None and not isinstance(adjoint, FoldedAdjoint):
            _, of_looks = engine.differentiate(solution, *looks, settings)
            seen = seen.whatever_is_looked_at(of_looks)
    else:
        phi = engine.linearize(solution)
        adjoint = fold(phi, *bars, method, settings)
        seen = screen(phi, adjoint, *bars)
    adjoint, diagnosis = examined(engine, solution, bars, adjoint, seen, settings, looks)  # 2
    record = BackwardRecord.of(adjoint.system, diagnosis, solution.solved, settings.tol)  # 3
    return FoldedGradient(adjoint.p, adjoint.v, record)


def examined(
    engine: Engine,
    solution: Solution,
    bars: Bars,
    adjoint: Adjoint,
    seen: Screen,
    settings: AdjointSettings,
    looks: Bars | None = None,
) -> tuple[Adjoint, Diagnosis]:
    """What is known of every instance: from the screen, and from a diagnosis of the suspicious ones.

    Where the engine does not tell what its adjoint leaves, those are folded again, with all means; so are
    those of which it says that they are not accurate.
    """
    suspicious = seen.suspicious
    if not isinstance(adjoint, FoldedAdjoint):
        suspicious = suspicious | seen.ill_conditioned(settings.tol)
    rows = suspicious.nonzero().squeeze(-1)
    if not len(rows):
        return adjoint, Diagnosis.unsuspicious(seen)
    everyone = len(rows) == len(solution.x)
    if isinstance(adjoint, FoldedAdjoint):
        phi = engine.linearize(solution, thoroughly=True)
        if everyone:
            return adjoint, diagnose(phi, bars, adjoint, seen, seen.felt, settings.deadline, looks)
        of_rows, again, seen_again = bars_of(bars, rows), adjoint.take(rows), seen.take(rows)
        looks = None if looks is None else bars_of(looks, rows)
        part = diagnose(phi.take(rows), of_rows, again, seen_again, seen.felt, settings.deadline, looks)
    else:
        again, part = refolded(
            engine, solution if everyone else solution.take(rows), bars_of(bars, rows), seen.felt, settings,
            None if looks is None else bars_of(looks, rows),
        )  # fmt: skip
        taken, part = better_of(adjoint.system.take(rows), seen.take(rows), again, part)
        again, at = again.take(taken), rows[taken]
        p, v = adjoint.p.index_copy(0, at, again.p), adjoint.v.index_copy(0, at, again.v)
        adjoint = replace(adjoint, p=p, v=v, system=folded_again(adjoint.system, at, again.system))
    return adjoint, overwritten(Diagnosis.unsuspicious(seen), rows, part)


def refolded(
    engine: Engine,
    solution: Solution,
    bars: Bars,
    felt: Tensor,
    settings: AdjointSettings,
    looks: Bars | None = None,
) -> tuple[FoldedAdjoint, Diagnosis]:
    """Fold suspicious instances again, with all means, and examine them; the last as in a diagnosis."""
    phi = engine.linearize(solution, thoroughly=True)
    adjoint = fold(phi, *bars, Auto(), settings)
    seen = screen(phi, adjoint, *bars)
    return adjoint, diagnose(phi, bars, adjoint, seen, felt, settings.deadline, looks)


def better_of(
    system: AdjointSolution, seen: Screen, again: FoldedAdjoint, part: Diagnosis
) -> tuple[Tensor, Diagnosis]:
    """Where an adjoint found again is the better one, places ``(k,)``, and a diagnosis of what counts.

    It may leave more of its system than the first one did, where that is ill-conditioned. Where there is no
    unique derivative the least-norm adjoint is the one to return.

    Args:
        system, seen: of the first adjoints, ``(b,)``. again, part: the others, and their diagnosis.
    """
    first = (system.residual < again.residual) & ~part.degenerate
    error = torch.where(first, seen.adjoint_error, part.adjoint_error)
    return (~first).nonzero().squeeze(-1), replace(part, adjoint_error=error)


def folded_again(system: AdjointSolution, rows: Tensor, part: AdjointSolution) -> AdjointSolution:
    """What is known of adjoint systems, with those of ``rows`` ``(b,)`` in their place; w aside."""
    longest = max(len(system.history), len(part.history))
    whole, history = padded(system.history, longest), padded(part.history, longest)
    changed = {
        name: getattr(system, name).index_copy(0, rows, getattr(part, name))
        for name in ("iterations", "residual", "rate", "converged", "exhausted")
    }
    methods = "; ".join(dict.fromkeys((system.method, part.method)))
    return replace(system, method=methods, history=whole.index_copy(1, rows, history), **changed)


def put_together(found: list[Piece[FoldedGradient]], answer: Answer) -> FoldedGradient:
    """The gradient of a batch from those of its pieces; zero, and no more to tell, for the rest."""
    records = [piece.value.record for piece in found]
    longest = max((len(record.history) for record in records), default=0)
    methods = "; ".join(dict.fromkeys(record.method for record in records)) or "none"
    unknown = BackwardRecord.blank(answer.codes, methods, longest, answer.request.options.adjoint.tol, 0.0)
    nothing = FoldedGradient(torch.zeros_like(answer.x), torch.zeros_like(answer.y), unknown)
    padded = [Piece(piece.rows, piece.value.padded(longest)) for piece in found]
    return joined(padded, nothing, answer.request.batch)
