"""Reports and monitors in notebooks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cvxfold.display.html import Level, Markup, badge, block, folded_away, joined, line, table, title
from cvxfold.engines.outcome import Status
from cvxfold.gradient.verdict import Verdict
from cvxfold.report.pass_summary import PassSummary

_LEVELS: dict[Status | Verdict, Level] = {
    Status.SOLVED: "good",
    Verdict.CONVERGED: "good",
    Verdict.SLOW: "doubtful",
    Verdict.APPROXIMATE: "doubtful",
    Verdict.ILL_CONDITIONED: "doubtful",
}
"""How much each kind stands out; those that are not here the most."""

_MANY = 12  # instances that are listed


def report_shown(
    passes: Sequence[PassSummary],
    ended: bool,
    why_unrescued: str | None,
    complaints: Mapping[str, str],
) -> Markup:
    """A report as HTML.

    Args:
        passes: one or two. ended: whether the backward pass was run.
        why_unrescued: instances, if any were. complaints: in full, by kind.
    """
    if not passes[0].kinds and not ended:
        return block(line("no instance: nothing was solved yet, or the batch was empty"))
    parts: list[str] = []
    for one in passes:
        parts += [title(joined((f"{one.name} ", badges(one.counts), one.tail), ""))]
        parts += [table(("", "median", "worst"), one.rows), *_listed(one)]
        if one.name == "forward" and why_unrescued is not None:
            parts.append(line(f"no rescue: {why_unrescued}"))
    if not ended:
        parts.append(line("backward: not run"))
    return block(*parts, *complaints_shown(complaints.items()))


_Passes = tuple[int, Counter[Any], float]


def monitor_shown(
    forward: _Passes,
    backward: _Passes,
    flat: int,
    figures: Mapping[str, str],
    complaints: Mapping[str, tuple[int, str]],
) -> str:
    """A monitor as HTML.

    Args:
        forward, backward: calls, instances by kind, seconds.
        flat: gradients that are. figures: by name. complaints: the passes of each kind, and the last one.
    """
    rows = [
        _passes("forward", "instances", forward, Status, ""),
        _passes("backward", "gradients", backward, Verdict, f", {flat:,} flat" if flat else ""),
    ]
    told = {f"{kind} in {count:,} calls": text for kind, (count, text) in complaints.items()}
    return block(*rows, table((), list(figures.items())), *complaints_shown(told.items()))


def _passes(name: str, what: str, passes: _Passes, kinds: Iterable[Any], also: str) -> Markup:
    calls, counted, seconds = passes
    counts = badges((kind, counted[kind]) for kind in kinds if counted[kind])
    head = f"{name}  {calls:,} calls, {sum(counted.values()):,} {what}: "
    return title(joined((head, counts, f"{also} in {seconds:.3g} s"), ""))


def badges(counts: Iterable[tuple[Status | Verdict, int]]) -> Markup:
    """How many of each kind there are; what is not as it should be stands out."""
    return joined(badge(f"{count:,} {kind}", _LEVELS.get(kind, "bad")) for kind, count in counts)


def complaints_shown(complaints: Iterable[tuple[str, str]]) -> list[Markup]:
    """Complaints in full, each behind its kind."""
    return [folded_away(kind, text) for kind, text in complaints]


def _listed(one: PassSummary) -> list[Markup]:
    """Which instances did not end well."""
    bad = [kind for kind, _ in one.counts if _LEVELS.get(kind) != "good"]
    return [
        line(joined((badge(str(kind), _LEVELS.get(kind, "bad")), _some(one.instances(kind))))) for kind in bad
    ]


def _some(instances: Sequence[int]) -> str:
    more = f", … ({len(instances):,} in all)" if len(instances) > _MANY else ""
    return f"instance{'s' * (len(instances) > 1)} {', '.join(map(str, instances[:_MANY]))}{more}"
