"""Hard quadratic programs, what is true of them, and what cvxfold says.

    minimize  ½ xᵀP x + qᵀx   subject to  l ≤ A x ≤ u

are written as G x = h and G x ≥ h and G x ≤ h, with q and h as parameters. The truth needs no cvxfold:
Clarabel solves; slacks and multipliers, where there is a clear gap between the two, tell the active rows B;
the solution is polished on them; and the gradient (−p, v) of the loss cᵀx with respect to (q, h) solves

    P p + Bᵀv = c,   B p = 0

on a basis of B's null space, after equilibration. Interior-point multipliers are strictly complementary where
any are, so dependent active rows leave p, the gradient with respect to q, as unique as x is, but not v.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.io
import scipy.linalg as sl
import scipy.sparse as sp
import torch

clarabel: Any = __import__("clarabel")  # its types are compiled and unknown to pyright

Array = np.ndarray
_INFINITE = 1e19
_size = np.linalg.norm
_HERE = Path(__file__).resolve().parents[3] / "shared" / "data" / "maros_meszaros"
FOLDER = Path(os.environ.get("CVXFOLD_MAROS_MESZAROS", _HERE))
FILES = sorted(FOLDER.glob("*.mat"), key=lambda file: (file.stat().st_size, file.name))


@dataclass(frozen=True)
class QP:
    """½ xᵀP x + qᵀx over l ≤ A x ≤ u. The constant of the objective is left out."""

    name: str
    P: Any
    q: Array
    A: Any
    l: Array  # noqa: E741
    u: Array

    @cached_property
    def masks(self) -> tuple[Array, Array, Array]:
        """Which rows of A are equations, which have a lower bound, which an upper one."""
        equal = self.u - self.l == 0
        return equal, (self.l > -_INFINITE) & ~equal, (self.u < _INFINITE) & ~equal

    @cached_property
    def G(self) -> Any:
        """The rows: equations, those with a lower bound, those with an upper one."""
        return sp.vstack([self.A[mask] for mask in self.masks]).tocsr()

    @cached_property
    def h(self) -> Array:
        """The right-hand sides of G's rows."""
        return np.concatenate([b[mask] for b, mask in zip((self.u, self.l, self.u), self.masks, strict=True)])

    @cached_property
    def side(self) -> Array:
        """0 for an equation, 1 for G x ≥ h and −1 for G x ≤ h."""
        return np.repeat([0.0, 1.0, -1.0], [mask.sum() for mask in self.masks])

    def objective(self, x: Array) -> float:
        """½ xᵀP x + qᵀx."""
        return float(0.5 * x @ (self.P @ x) + self.q @ x)

    def violation(self, x: Array) -> float:
        """The largest violation, relative to max(1, finite bounds, |A x|)."""
        Ax = self.A @ x
        size = max(1.0, np.abs(self.h).max(initial=0), np.abs(Ax).max(initial=0))
        return float(np.maximum(self.l - Ax, Ax - self.u).max(initial=0)) / size


def load(file: Path) -> QP:
    """A file in the MATLAB form of the Maros–Mészáros set; 1e20 stands for no bound."""
    data = scipy.io.loadmat(file)
    P, A = (sp.csc_matrix(data[key], dtype=float) for key in "PA")
    q, low, up = (data[key].ravel().astype(float) for key in "qlu")
    return QP(file.stem, sp.csc_matrix(0.5 * (P + P.T)), q, sp.csr_matrix(A), low, up)


def problem(qp: QP, alone: bool = False) -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """The program in CVXPY with q as a parameter, and the right-hand sides too unless ``alone``."""
    x, q = cp.Variable(len(qp.q)), cp.Parameter(len(qp.q))
    parameters, constraints = [q], []
    for side in (0, 1, -1):
        rows, right = qp.G[qp.side == side], qp.h[qp.side == side]
        if rows.shape[0]:
            if not alone:
                right = cp.Parameter(rows.shape[0])
                parameters.append(right)
            left = rows @ x
            constraints.append({0: left == right, 1: left >= right, -1: left <= right}[side])
    quadratic = 0.5 * cp.quad_form(x, cp.psd_wrap(qp.P)) if qp.P.nnz else 0.0
    return cp.Problem(cp.Minimize(quadratic + q @ x), constraints), parameters, [x]


@dataclass(frozen=True)
class Found:
    """What a layer answers: x, gradients of cᵀx, whether it vouches for the two, whether it warned."""

    x: Array
    q: Array
    h: Array
    solved: bool
    trusted: bool
    warned: bool


def ask(layer: Any, qps: Sequence[QP], c: Array, alone: bool = False) -> list[Found]:
    """Solve and differentiate a batch of one structure; c is ``(B, n)``; alone: q is the only parameter."""
    sides = [] if alone else [side for side in (0, 1, -1) if side in qps[0].side]
    groups = [np.stack([qp.q for qp in qps])]
    groups += [np.stack([qp.h[qp.side == side] for qp in qps]) for side in sides]
    inputs = [torch.tensor(group, requires_grad=True) for group in groups]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (x,) = layer(*inputs)
        gradients = torch.autograd.grad((x * torch.from_numpy(c)).sum(), inputs)
    warned = "ConvergenceWarning" in {warning.category.__name__ for warning in caught}
    solved = trusted = [True] * len(qps)
    if report := getattr(layer, "report", None):  # other layers vouch for all they return
        solved = [str(status) == "solved" for status in report.forward.status]
        trusted = [str(verdict) == "converged" for verdict in report.backward.verdict]
    q, h = gradients[0].numpy(), torch.cat([torch.zeros(len(qps), 0), *gradients[1:]], 1).numpy()
    return [Found(x[i].detach().numpy(), q[i], h[i], solved[i], trusted[i], warned) for i in range(len(qps))]


def optimum(qp: QP) -> tuple[Array, Array]:
    """Clarabel's x, and z with P x + q + Gᵀz = 0, as tight as it gets (1e-9 is 1e-6 off on QBEACONF)."""
    equal = int((qp.side == 0).sum())
    cones = [clarabel.ZeroConeT(equal), clarabel.NonnegativeConeT(len(qp.h) - equal)]
    sign = np.where(qp.side == 1, -1.0, 1.0)
    P, rows = sp.csc_matrix(sp.triu(qp.P)), sp.csc_matrix(sp.diags(sign) @ qp.G)
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_iter, settings.max_threads = False, 500, 1
    for tol in (1e-12, 1e-11, 1e-10, 1e-9):
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tol
        found = clarabel.DefaultSolver(P, qp.q, rows, sign * qp.h, cones, settings).solve()
        if str(found.status) == "Solved":
            break
    return np.array(found.x), sign * np.array(found.z)  # at worst "AlmostSolved", to 1e-5


class Kind(Enum):
    """Whether a gradient exists."""

    UNIQUE = "unique"
    NONE = "none"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Gradient:
    """Of cᵀx, with respect to q and h.

    Args:
        q_kind, h_kind: whether there is one. q, h: what it is, where there is.
        free: a basis ``(·, k)`` of the directions in which the equations' right-hand sides cannot move.
        unit: the size of c times those of x over q and x over h, beside which a gradient counts as zero.
    """

    q_kind: Kind
    h_kind: Kind
    q: Array
    h: Array
    free: Array
    unit: tuple[float, float] = (0.0, 0.0)

    def errors(self, found: Found) -> tuple[float, float]:
        """Relative errors of the gradients for q and for h; the latter zero where h is no parameter."""
        gap = found.h - self.h if found.h.size else 0 * self.h
        if self.free.size:
            gap = gap - self.free @ np.linalg.lstsq(self.free, gap)[0]
        off = [_size(found.q - self.q), _size(gap)]
        sizes = [max(_size(g), 1e-3 * u, 1e-300) for g, u in zip((self.q, self.h), self.unit, strict=True)]
        return float(off[0] / sizes[0]), float(off[1] / sizes[1])

    def fault(self, found: Found, tol: float = 1e-5) -> str:
        """What is silently wrong with a gradient: nothing where the layer does not vouch for it."""
        if not found.trusted:
            return ""
        kinds = [self.q_kind, self.h_kind][: 2 if found.h.size else 1]
        if Kind.NONE in kinds:
            return "vouched for, but there is none"
        wrong = [e for e, kind in zip(self.errors(found), kinds, strict=False) if kind is Kind.UNIQUE]
        return f"wrong by {max(wrong):.0e}" if wrong and not max(wrong) <= tol else ""


def gradient(qp: QP, c: Array, known: tuple[Array, Array] | None = None) -> Gradient:
    """The truth about the gradient of cᵀx, by Clarabel or known x and z; unclear unless margins are wide."""
    x, z = known or optimum(qp)
    E, D, P, G = _equilibrated(qp.P.toarray(), qp.G.toarray())
    q, h, x, z = E * qp.q, D * qp.h, x / E, z / D
    x_size, z_size = (np.abs(np.concatenate(v)).max() or 1.0 for v in ((x, h), (q, P @ x)))
    active = (qp.side == 0) | (np.abs(z) / z_size > np.abs(G @ x - h) / x_size)
    space = _Space(P, G[active])
    for _ in range(3):
        x = x + space.onto(h[active] - G[active] @ x)
        x = x - space.reduced(P @ x + q)
        z = np.where(active, z, 0.0)
        z[active] -= space.multipliers(P @ x + q + G.T @ z)
    slack, dual = (G @ x - h) / x_size, -z / z_size
    solved = max(np.abs(slack[active]).max(initial=0), np.abs(P @ x + q + G.T @ z).max() / z_size) < 1e-9
    inequality = qp.side != 0
    margin = (qp.side * np.where(active, dual, slack))[inequality]  # −z: ≥ 0 where G x ≥ h
    move, force = _size(c) * _size(E * x), _size(qp.q) + _size(qp.P @ (E * x))
    unit = float(move / (force or 1.0)), float(move / max(1.0, _size(qp.h)))
    answer = replace(_at(space, qp, E, D, active, c), unit=unit)
    if not solved or margin.min(initial=1) < -1e-9:
        return replace(answer, q_kind=Kind.UNCLEAR, h_kind=Kind.UNCLEAR)
    if margin.min(initial=1) > 1e-7 or answer.q_kind is Kind.NONE:
        return answer
    weak = np.zeros(len(h), dtype=bool)
    weak[inequality] = margin < 1e-7
    sides = [_at(_Space(P, G[rows]), qp, E, D, rows, c) for rows in (active | weak, active & ~weak)]
    apart = _size(sides[0].q - sides[1].q) > 1e-3 * max(*(_size(side.q) for side in sides), 1e-3 * unit[0])
    sure = margin[margin < 1e-7].max() < 1e-10 and {side.q_kind for side in sides} == {Kind.UNIQUE}
    kind = Kind.NONE if sure and apart else Kind.UNCLEAR
    return replace(answer, q_kind=kind, h_kind=kind)


def _at(space: _Space, qp: QP, E: Array, D: Array, rows: Array, c: Array) -> Gradient:
    """The gradient for these active rows, in the original units."""
    p = space.reduced(E * c)
    h, free = np.zeros(len(rows)), np.zeros((len(rows), space.null.shape[1]))
    h[rows] = space.multipliers(E * c - space.P @ p)
    free[rows] = space.null
    free = np.where(np.abs(free) > 1e-9, free, 0.0)
    tied = free[qp.side != 0].any(0)
    # Rows that hang together with an inequality can move apart; it matters if the loss feels one of them.
    torn = _size(h[(free[:, tied] != 0).any(1)]) > 1e-6 * _size(h)
    h_kind = space.kind
    if h_kind is Kind.UNIQUE and tied.any():
        h_kind = Kind.NONE if torn else Kind.UNCLEAR
    return Gradient(space.kind, h_kind, -E * p, D * h, D[:, None] * free)


class _Space:
    """The active rows B and the null space of B, by a pivoted QR of Bᵀ."""

    def __init__(self, P: Array, B: Array) -> None:
        self.P = P
        factors: Any = sl.qr(B.T, pivoting=True)
        self.Q, R, self.pivots = factors
        diagonal = np.abs(np.diag(R)) if B.size else np.zeros(0)
        relative = diagonal / max(diagonal.max(initial=0), 1e-300)
        self.rank = rank = int((relative > 1e-10).sum())
        self.R = R[:rank, :rank]
        self.null = np.zeros((B.shape[0], B.shape[0] - rank))  # of Bᵀ
        self.null[self.pivots] = np.vstack([-self._solve(R[:rank, rank:]), np.eye(B.shape[0] - rank)])
        Z = self.Q[:, rank:]
        self.curvatures, axes = np.linalg.eigh(Z.T @ P @ Z)
        self.basis = Z @ axes
        flat = self.curvatures.min(initial=1) / max(np.abs(P).max(), 1e-300)
        near = ((relative > 1e-12) & (relative < 1e-8)).any() or 1e-12 <= flat <= 1e-8
        self.kind = Kind.UNCLEAR if near else Kind.UNIQUE if flat > 1e-8 else Kind.NONE

    def _solve(self, right: Array, trans: int = 0) -> Array:
        return sl.solve_triangular(self.R, right, trans=trans) if self.rank else np.zeros_like(right)

    def onto(self, gap: Array) -> Array:
        """The least d with B d = gap."""
        return self.Q[:, : self.rank] @ self._solve(gap[self.pivots[: self.rank]], 1)

    def reduced(self, right: Array) -> Array:
        """The p with B p = 0 and P p = right + Bᵀ(something); of least norm."""
        steep = self.curvatures > 1e-11 * max(np.abs(self.P).max(), 1e-300)
        return self.basis[:, steep] @ ((self.basis[:, steep].T @ right) / self.curvatures[steep])

    def multipliers(self, right: Array) -> Array:
        """A v with Bᵀv = right."""
        v = np.zeros(len(self.pivots))
        v[self.pivots[: self.rank]] = self._solve(self.Q[:, : self.rank].T @ right)
        return v


def _equilibrated(P: Array, G: Array) -> tuple[Array, Array, Array, Array]:
    """E, D, E P E and D G E, whose rows and columns together have largest entries near one (Ruiz)."""
    E, D = np.ones(P.shape[0]), np.ones(G.shape[0])
    for _ in range(15):
        sizes = np.maximum(np.abs(P).max(0), np.abs(G).max(0, initial=0)), np.abs(G).max(1)
        e, d = (1 / np.sqrt(np.where(size > 0, size, 1.0)) for size in sizes)
        E, D, P, G = E * e, D * d, e[:, None] * P * e, d[:, None] * G * e
    return E, D, P, G
