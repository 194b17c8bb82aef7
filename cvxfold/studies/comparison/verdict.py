"""What a comparison found in words: who differs from whom, what speaks for each, and who is right."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from cvxfold.studies.comparison.findings import Findings, Row


def words(comparison: Findings) -> str:
    """The verdict, a few sentences."""
    said = [
        *_differences(comparison),
        *_judgement(comparison),
        *_failures(comparison),
        *comparison.notes,
    ]
    return " ".join(said)


def _differences(comparison: Findings) -> Iterator[str]:
    """How far the answers are apart."""
    reference, differing = comparison.reference, comparison.differing
    others = [row for row in comparison.rows[1:] if row.error is None]
    if reference.error is not None:
        yield "There is nothing to compare with."
        return
    for row in differing:
        yield (
            f"{row.name} differs from {reference.name} by {row.solution_difference:.1e} in the solution and "
            f"{row.gradient_difference:.1e} in the gradient{row.worst_parameter}."
        )
    if others and not differing:
        solution = max(row.solution_difference or 0.0 for row in others)
        gradient = max(row.gradient_difference or 0.0 for row in others)
        yield (
            f"{_listing([reference, *others])} agree to {comparison.rtol:.0e}: the largest difference is "
            f"{solution:.1e} in the solutions and {gradient:.1e} in the gradients."
        )
    if all(row.folded for row in others):
        yield "There is no answer of cvxpylayers to compare with."


def _judgement(comparison: Findings) -> Iterator[str]:
    """What speaks for the answers that matter, and who is right."""
    answers = [row for row in comparison.rows if row.error is None]
    differing, unique = comparison.differing, comparison.differentiable(comparison.batch)
    if comparison.unsolvable:
        yield f"Instances {comparison.unsolvable} have no solution."
    if comparison.degenerate:
        others = "" if bool(unique.any()) else ", and there are no others to tell who is right"
        yield (
            f"Instances {comparison.degenerate} have no unique derivative, so that differences there tell "
            f"nothing{others}."
        )
    if comparison.flat:
        yield (
            f"Gradients of instances {comparison.flat} are zero to rounding: the solutions do not move with "
            "the parameters there (documentation: 'Training that goes wrong', section 'Flat gradients')."
        )
    if not answers or not bool(unique.any()):
        return
    asked = comparison.finite_differences is not None
    one_package = len({row.folded for row in answers}) == 1
    if differing or asked or one_package:
        first = answers[:1]
        yield _evidence(comparison, [*first, *(row for row in differing if row not in first)])
    if differing or comparison.judged is not None:
        yield _conclusion(comparison, [row for row in answers if row.name in comparison.right])


def _evidence(comparison: Findings, rows: Sequence[Row]) -> str:
    """What speaks for each of the rows."""
    judged, differences = comparison.judged, comparison.finite_differences
    if judged is None or differences is None:
        doubt = ""
        if differences is not None:
            own = differences.own_error[comparison.differentiable(len(differences.own_error))]
            doubt = f"Finite differences cannot tell: their own error is up to {float(own.max()):.1e}. "
        counted = comparison.differentiable(comparison.batch)
        known = [_figure(row, row.residual[counted]) for row in rows if row.residual is not None]
        return f"{doubt}Adjoint residuals: {', '.join(known)}."
    own = float(differences.own_error[judged].max())
    errors = [
        _figure(row, row.finite_difference_error[judged])
        for row in rows
        if row.finite_difference_error is not None
    ]
    return f"Off the finite differences (good to {own:.1e}{_where(judged, comparison)}): {', '.join(errors)}."


def _where(judged: Tensor, comparison: Findings) -> str:
    """In which part of the batch finite differences judge."""
    if bool(judged.all()):
        return ""
    instances, shared = judged[: comparison.batch], judged[comparison.batch :]
    without = "" if bool(shared.all()) else ", without what these share"
    return f", in {int(instances.sum())} of {comparison.batch} instances{without}"


def _conclusion(comparison: Findings, right: Sequence[Row]) -> str:
    """Who is right; solving one's own linear system is not enough for that where such answers differ."""
    among = "" if bool(comparison.differentiable(comparison.batch).all()) else " in the others"
    if not right:
        return f"None of them is right to {comparison.rtol:.0e}{among}."
    if comparison.judged is None and len(right) > 1 and any(_apart(row, comparison) for row in right):
        return (
            f"{_listing(right)} each solve their adjoint system, at solutions of different accuracy: finite "
            "differences would tell."
        )
    return f"Right to {comparison.rtol:.0e}{among}: {_listing(right)}."


def _apart(row: Row, comparison: Findings) -> bool:
    """Whether an answer is another one than the reference's where there is a unique derivative."""
    if row.solution is None or row.gradients is None:  # there is no reference
        return True
    unique = comparison.differentiable(comparison.batch)
    parts = [row.solution, *row.gradients.values()]
    known = [part[unique if len(part) == len(unique) else unique.all().reshape(1)] for part in parts]
    return not all(bool((part <= comparison.rtol).all()) for part in known)


def _failures(comparison: Findings) -> list[str]:
    """Who failed, and why; a reason that several share once."""
    reasons: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.error is not None:
            reasons.setdefault(row.error, []).append(row)
    return [f"{_listing(rows)} failed: {reason.rstrip('.')}." for reason, rows in reasons.items()]


def _figure(row: Row, measure: Tensor) -> str:
    return f"{float(measure.max()):.1e} ({row.name})"


def _listing(rows: Sequence[Row]) -> str:
    names = [row.name for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
