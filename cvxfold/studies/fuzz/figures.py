"""The figures of a run: counts, shares, and how well the error estimate is calibrated."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from cvxfold.studies.fuzz.judge import RESULTS, Judgement

FLOOR = 1e-14  # errors below it are rounding
PESSIMISM = 100.0


def counts(outcomes: Iterable[Judgement]) -> dict[str, dict[str, dict[str, int]]]:
    """Results by truth and kind."""
    by: dict[str, dict[str, dict[str, int]]] = {}
    for one in sorted(outcomes, key=lambda one: (_ORDER.index(one.truth), one.kind)):
        row = by.setdefault(one.truth, {}).setdefault(one.kind, dict.fromkeys(RESULTS, 0))
        row[one.result] += 1
    return by


_ORDER = ("nondegenerate", "degenerate", "solution", "infeasible", "unbounded", "bad value")


def figures(outcomes: list[Judgement]) -> dict[str, Any]:
    """All numbers of a run, for JSON; shares are None where there is nothing to share."""
    clear = [one for one in outcomes if one.truth == "nondegenerate"]
    unsolvable = [one for one in outcomes if one.truth in ("infeasible", "unbounded")]
    unclear = [one for one in outcomes if one.truth == "degenerate"]
    measured = [one for one in clear if one.backward < float("inf") and one.estimate == one.estimate]
    total = Counter(one.result for one in outcomes)
    return {
        "instances": len(outcomes),
        "results": {result: total[result] for result in RESULTS},
        "kinds": counts(outcomes),
        "nondegenerate_solved_well": _share(one.well and one.result == "solved" for one in clear),
        "nondegenerate_right_but_flagged": _share(one.well and one.result == "flagged" for one in clear),
        "degenerate_flagged": _share(one.result == "flagged" for one in unclear),
        "unsolvable_certified": _share(one.result == "certified" for one in unsolvable),
        "estimate_covers_error": _share(max(one.estimate, FLOOR) >= one.backward for one in measured),
        "estimate_within_100": _share(
            one.estimate <= PESSIMISM * max(one.backward, FLOOR) for one in measured
        ),
        "wrong": [reproduction(one) for one in wrong(outcomes)],
    }  # fmt: skip


def wrong(outcomes: Iterable[Judgement]) -> list[Judgement]:
    """What is silently wrong, or crashed."""
    return [one for one in outcomes if one.result in ("silently wrong", "crashed")]


def reproduction(one: Judgement) -> str:
    """A line that says what is wrong and how to see it again."""
    return (
        f"seed {one.seed} structure {one.structure} instance {one.instance}: {one.truth}, {one.kind}: "
        f"{one.what or one.result} (forward {one.forward:.1e}, gradient {one.backward:.1e})"
    )


def table(outcomes: list[Judgement]) -> Table:
    """Counts by truth and kind."""
    shape = Table(title=f"{len(outcomes)} random cone programs", title_justify="left")
    shape.add_column("", no_wrap=True)
    for name in ("all", "solved", "certified", "flagged", "wrong", "crashed"):
        shape.add_column(name, justify="right")
    for truth, rows in counts(outcomes).items():
        alone = list(rows) == [truth]
        if not alone:
            shape.add_row(truth)
        for kind, row in rows.items():
            shape.add_row(kind if alone else f"  {kind}", str(sum(row.values())), *map(str, row.values()))
        shape.add_section()
    total = figures(outcomes)["results"]
    shape.add_row("all", str(len(outcomes)), *map(str, total.values()))
    return shape


def notes(outcomes: list[Judgement]) -> str:
    """The shares, a line each."""
    numbers = figures(outcomes)
    lines = (
        ("nondegenerate: solved to 1e-8, gradient to 1e-6", "nondegenerate_solved_well"),
        ("nondegenerate: as accurate, but flagged", "nondegenerate_right_but_flagged"),
        ("degenerate: flagged", "degenerate_flagged"),
        ("infeasible or unbounded: certified", "unsolvable_certified"),
        ("error estimate: no less than the gradient's error", "estimate_covers_error"),
        (f"error estimate: no more than {PESSIMISM:.0f} times it", "estimate_within_100"),
    )
    return "\n".join(
        f"{words:<52} {'-' if (share := numbers[key]) is None else f'{100 * share:.1f} %':>8}"
        for words, key in lines
    )


def _share(hits: Iterable[bool]) -> float | None:
    known = list(hits)
    return sum(known) / len(known) if known else None
