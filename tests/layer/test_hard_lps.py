"""Small linear programs with the traits of real ones: right, or flagged; never silently wrong.

Each is built around a known vertex and known multipliers, so the trait is there by construction: a batch of
four of one structure, whose costs and right-hand sides vary. Measured: the objective against HiGHS and the
largest violation, both to 1e-7; and the gradient of a random linear loss in x with respect to costs and
right-hand sides against the truth of :mod:`problems.hard`; that one is itself held against 0 and B⁻ᵀc where
exactly n rows B are active.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.optimize as so
import scipy.sparse as sp

from cvxfold.torch import CvxpyLayer
from problems.hard import QP, Array, Found, Gradient, Kind, ask, gradient, problem
from problems.marks import long, sliced

BATCH, SIZES = 4, (5, 12, 30)
TOL = 1e-7
Draw = np.random.Generator


@dataclass(frozen=True)
class Draft:
    """Rows a with aᵀx at, above or below a bound (side 0, 1, −1), around B vertices.

    Args:
        A: ``(m, n)``. side: ``(m,)``.
        x: the vertices, ``(B, n)``. slack: ``(B, m)``, zero where active. y: multipliers' sizes, ``(B, m)``.
    """

    A: Array
    side: Array
    x: Array
    slack: Array
    y: Array

    def plus(self, A: Array, side: float | Array, slack: float | Array, y: float | Array = 0.0) -> Draft:
        """With further rows."""
        wide = (BATCH, len(A))
        return Draft(
            np.vstack([self.A, A]),
            np.append(self.side, np.broadcast_to(side, len(A))),
            self.x,
            np.hstack([self.slack, np.broadcast_to(slack, wide)]),
            np.hstack([self.y, np.broadcast_to(y, wide)]),
        )

    def programs(self, rows: Array | float = 1.0, columns: Array | float = 1.0) -> list[QP]:
        """With rows and columns scaled, which leaves the objective as it is."""
        A = np.ones((len(self.A), 1)) * np.reshape(rows, (-1, 1)) * self.A * columns
        q = (np.where(self.side == 0, 1.0, self.side) * self.y) @ self.A * columns
        low = np.where(self.side < 0, -1e20, rows * (self.x @ self.A.T - self.slack))
        up = np.where(self.side > 0, 1e20, rows * (self.x @ self.A.T + self.slack))
        none, matrix = sp.csc_matrix((A.shape[1],) * 2), sp.csr_matrix(A)
        return [QP(str(i), none, q[i], matrix, low[i], up[i]) for i in range(BATCH)]

    def solution(self, i: int, rows: Array | float, columns: Array | float) -> tuple[Array, Array]:
        """The vertex and the multipliers of the rows, ordered as those of a scaled program."""
        y = np.where(self.side == 0, -1.0, -self.side) * self.y[i] / rows
        return self.x[i] / columns, np.concatenate([y[self.side == side] for side in (0, 1, -1)])


def draft(draw: Draw, n: int, equations: int = 0, rows: int | None = None) -> Draft:
    """Random rows, of which each vertex has ``equations`` and as many others active as n leaves."""
    m = 3 * n if rows is None else rows
    side = draw.choice([-1.0, 1.0], m)
    side[:equations] = 0.0
    slack, y = draw.uniform(0.5, 2.0, (2, BATCH, m))
    for i in range(BATCH):
        active = np.append(np.arange(equations), equations + draw.permutation(m - equations)[: n - equations])
        slack[i, active] = 0.0
        y[i] = np.where(slack[i] == 0, y[i], 0.0)
    return Draft(draw.standard_normal((m, n)), side, draw.standard_normal((BATCH, n)), slack, y)


def boxed(draw: Draw, n: int) -> Draft:
    """Every variable between two bounds; at n − 2 of them, different ones in each instance."""
    base = draft(draw, 2, rows=4)
    at = np.zeros((BATCH, n), dtype=bool)
    for i in range(BATCH):
        at[i, draw.permutation(n)[2:]] = True
    lower = at & (draw.random((BATCH, n)) < 0.5)
    base = replace(base, A=draw.standard_normal((4, n)), x=draw.standard_normal((BATCH, n)))
    for side, tight in ((1.0, lower), (-1.0, at & ~lower)):
        base = base.plus(np.eye(n), side, np.where(tight, 0.0, 1.5), np.where(tight, 0.7, 0.0))
    return base


def fixed(draw: Draw, n: int) -> Draft:
    """A fifth of the variables have one value only."""
    base = draft(draw, n, n // 5)
    return replace(base, A=np.vstack([np.eye(n)[: n // 5], base.A[n // 5 :]]))


def again(base: Draft, scale: Array | float = 1.0, slack: float = 0.0) -> Draft:
    """All inequalities once more, times ``scale``, with more slack."""
    rows = base.side != 0
    scale = np.broadcast_to(scale, len(base.A))[rows]
    further = (base.slack[:, rows] + slack) * scale
    return base.plus(scale[:, None] * base.A[rows], base.side[rows], further)


def sums(draw: Draw, n: int) -> Draft:
    """Every inequality and each of the next three added up: of n among 3n, two such are active."""
    base = full = draft(draw, n)
    signed = base.side[:, None] * base.A
    for i in (1, 2, 3):
        full = full.plus(signed + np.roll(signed, i, 0), 1.0, base.slack + np.roll(base.slack, i, 1))
    return full


def dependent(draw: Draw, n: int) -> Draft:
    """Equations that follow from others: repeated, scaled, combined."""
    base = draft(draw, n, n // 2)
    A = base.A[: n // 2]
    return base.plus(np.vstack([A[:1], -30 * A[1:2], draw.standard_normal((2, len(A))) @ A]), 0.0, 0.0)


def flat(draw: Draw, n: int) -> Draft:
    """Two of the active rows have no multiplier, so that a face is optimal; in a box of ±20."""
    base = draft(draw, n)
    for y in base.y:
        y[np.flatnonzero(y)[:2]] = 0.0
    for side in (1.0, -1.0):
        base = base.plus(np.eye(n), side, 20 + side * base.x)
    return base


def no_objective(draw: Draw, n: int) -> Draft:
    """Any feasible point is optimal."""
    base = draft(draw, n)
    return replace(base, y=0 * base.y)


Trait = Callable[[Draw, int], Draft]
SOUND: dict[str, Trait] = {  # there is a gradient, and it must be right and vouched for
    "plain": draft,
    "equations": lambda draw, n: draft(draw, n, n // 2),
    "boxed": boxed,
    "fixed": fixed,
    "equations only": lambda draw, n: draft(draw, n, n, n),
    "equations only, no objective": lambda draw, n: replace(d := draft(draw, n, n, n), y=0 * d.y),
    "dominated rows": lambda draw, n: again(draft(draw, n), slack=1.0),
    "dependent equations": dependent,
    "zero rows": lambda draw, n: draft(draw, n, 2).plus(np.zeros((2, n)), 1.0, 1.0),
    "zero equations": lambda draw, n: draft(draw, n, 2).plus(np.zeros((2, n)), 0.0, 0.0),
    "large": lambda draw, n: replace(d := draft(draw, n, 2), x=1e5 * d.x, slack=1e5 * d.slack, y=1e-4 * d.y),
}
UNSOUND: dict[str, Trait] = {  # there is none, and the layer must say so
    "degenerate": lambda draw, n: draft(draw, n).plus(draw.standard_normal((3, n)), 1.0, 0.0, 1.0),
    "degenerate, idle": lambda draw, n: draft(draw, n).plus(draw.standard_normal((3, n)), 1.0, 0.0, 0.0),
    "duplicates": lambda draw, n: again(draft(draw, n)),
    "scaled duplicates": lambda draw, n: again(draft(draw, n, 2), 10 ** draw.uniform(-3, 3, 3 * n)),
    "sums": sums,
    "flat": flat,
    "too few equations": lambda draw, n: draft(draw, n, n - 2, n - 2),
    "no objective": no_objective,
}
OTHER: dict[str, Trait] = {  # a kink, but one that bounds 0, so that only a layer that vouches is judged
    "zero inequalities": lambda draw, n: draft(draw, n).plus(np.zeros((2, n)), 1.0, 0.0),
}
TRAITS = SOUND | UNSOUND | OTHER
CASES = [
    pytest.param(
        name,
        n,
        bad,
        id=f"{name}-{n}{'-badly scaled' * bad}",
        marks=long if n == 30 or (bad and n == 5) else (),
    )
    for bad in (False, True)
    for name in TRAITS
    for n in SIZES
]


@dataclass(frozen=True)
class Outcome:
    """Of one program: errors, the answer, and the truth about the gradient."""

    objective: float
    violation: float
    found: Found
    truth: Gradient

    @property
    def right(self) -> bool:
        """Whether the solution is right."""
        return self.objective <= TOL and self.violation <= TOL


@cache
def outcomes(name: str, n: int, bad: bool, engine: Any) -> list[Outcome]:
    """Solve a batch once a session; badly scaled: rows and columns times 1e-4 … 1e4."""
    draw = np.random.default_rng([n, list(TRAITS).index(name)])
    drawn = TRAITS[name](draw, n)
    plain, scales = drawn.programs(), 10 ** (bad * draw.uniform(-4, 4, len(drawn.A) + n))
    programs = drawn.programs(scales[n:], scales[:n])
    # The loss is of x in the units in which the vertex was drawn.
    c = draw.standard_normal((BATCH, n)) * scales[:n]
    found = ask(CvxpyLayer(*problem(programs[0]), engine=engine), programs, c)
    out = []
    for i, (qp, easy) in enumerate(zip(programs, plain, strict=True)):
        best = highs(easy)
        off = abs(qp.objective(found[i].x) - best) / max(1.0, abs(best))
        # What is drawn may be another optimum than the one in the middle, which tells what is degenerate.
        known = drawn.solution(i, scales[n:], scales[:n]) if name in SOUND else None
        out.append(Outcome(off, qp.violation(found[i].x), found[i], gradient(qp, c[i], known)))
    return out


def highs(qp: QP) -> float:
    """The least objective by HiGHS."""
    equal = qp.side == 0
    sign = -qp.side[~equal]
    inequalities = sp.diags(sign) @ qp.G[~equal], sign * qp.h[~equal]
    equations = (qp.G[equal], qp.h[equal]) if equal.any() else (None, None)
    found = so.linprog(qp.q, *inequalities, *equations, bounds=(None, None), method="highs")
    assert found.status == 0, found.message
    return float(found.fun)


@pytest.mark.parametrize(("name", "n", "bad"), CASES)
def test_right_or_flagged(name: str, n: int, bad: bool, engine: str) -> None:
    for each in outcomes(name, n, bad, engine):
        assert each.right or not each.found.solved, (each.objective, each.violation)
        assert each.truth.fault(each.found) == ""


@pytest.mark.parametrize(
    ("bad", "sizes"),
    [
        pytest.param(False, SIZES[:-1], id="plain"),
        pytest.param(False, SIZES[-1:], id="plain, large", marks=long),
        pytest.param(True, SIZES, id="badly scaled", marks=long),
    ],
)
def test_solutions_of_nearly_all_are_right(bad: bool, sizes: tuple[int, ...], engine: str) -> None:
    """Of all where the scale is plain."""
    right = [
        each.right and each.found.solved
        for name in TRAITS
        for n in sizes
        for each in outcomes(name, n, bad, engine)
    ]
    assert np.mean(right) >= (0.98 if bad else 1.0)


@long
def test_badly_scaled_gradients_of_nearly_all_that_have_one(engine: str) -> None:
    sound = [each for name in SOUND for n in SIZES for each in outcomes(name, n, True, engine)]
    judged = [each for each in sound if each.truth.q_kind is each.truth.h_kind is Kind.UNIQUE]
    assert len(judged) >= 0.9 * len(sound)
    assert np.mean([each.found.trusted for each in judged]) >= 0.9


@pytest.mark.parametrize("n", sliced(SIZES, lambda n: n == 30))
@pytest.mark.parametrize("name", SOUND)
def test_sound_ones_are_not_accused(name: str, n: int, engine: str) -> None:
    for each in outcomes(name, n, False, engine):
        assert (each.truth.q_kind, each.truth.h_kind) == (Kind.UNIQUE, Kind.UNIQUE)
        assert each.found.trusted


@pytest.mark.parametrize("n", sliced(SIZES, lambda n: n == 30))
@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_ones_are_told(name: str, n: int, engine: str) -> None:
    for each in outcomes(name, n, False, engine):
        assert Kind.NONE in (each.truth.q_kind, each.truth.h_kind)
        assert not each.found.trusted
        assert each.found.warned


@pytest.mark.parametrize("n", SIZES)
def test_the_truth_at_a_vertex(n: int) -> None:
    """The reference by another way: B x = h, so that the gradient of cᵀx for h is B⁻ᵀc."""
    draw = np.random.default_rng(n)
    drawn = draft(draw, n, 2)
    for qp, slack in zip(drawn.programs(), drawn.slack, strict=True):
        c = draw.standard_normal(n)
        order = np.argsort(np.select([drawn.side == 0, drawn.side == 1], [0, 1], 2), kind="stable")
        tight = slack[order] == 0
        truth = gradient(qp, c)
        assert truth.q_kind is truth.h_kind is Kind.UNIQUE
        np.testing.assert_allclose(truth.h[tight], np.linalg.solve(qp.G[tight].toarray().T, c), rtol=1e-9)
        assert not truth.q.any()
        assert not truth.h[~tight].any()
