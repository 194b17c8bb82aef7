"""How a folded gradient moves with the data and the loss gradients: second derivatives by the same factor.

In the notation of :mod:`cvxfold.layer.tangent` the gradient is made of x, y and the adjoint (p, v) of x̄, ȳ,

    P p + Aᵀ v = x̄        (D − I) R A p + D v = (D − I) R ȳ.

Its derivative along tangents of the data and of x̄ and ȳ is made of (ẋ, ẏ) and of (ṗ, v̇), which obey

    P ṗ + Aᵀ v̇ = x̄˙ − (Ṗ p + Ȧᵀ v)        (D − I) R A ṗ + D v̇ = (D − I) R (ȳ˙ − Ȧ p) + c,

    c = D²Π_K(u)[u̇, R (ȳ − A p) − v],

since D²Π_K(u)[u̇, ·] is symmetric. With c = (D − I) R (−R⁻¹ c) + D c, v̇ − c is part of an adjoint again, of
x̄˙ − (Ṗ p + Ȧᵀ v) − Aᵀ c and ȳ˙ − Ȧ p − R⁻¹ c. The map from tangents of the data to those of the gradient is
symmetric, a second derivative; so the same pass takes loss gradients on the gradient to the data.

R may be any multiple of the identity in each cone; the one that balances s and y is taken. Where y is nothing
but rounding, u = s may stand on the boundary of its cone, as where only a bound holds the variable of an
epigraph: a kink, on one side of which D²Π_K is zero. If the gradient feels the other side the first pass has
said so; u is moved inside. Likewise where s is nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.cones.product import ProductCone, largest_of_block
from cvxfold.layer.answer import Answer
from cvxfold.layer.session import Session
from cvxfold.layer.tangent import moved
from cvxfold.problem.gradients import DataGradients
from cvxfold.problem.program import Program
from cvxfold.problem.values import ProgramValues

_UNBALANCED = 1e6
_NOTHING = 1e-13  # of a row's terms, of s; of the largest products of these with y, of s ∘ y
_ASIDE = 1e-8  # of s, or of R⁻¹y: how far u is moved


@dataclass(frozen=True)
class MovedGradient:
    """The derivative of a gradient along tangents.

    Args:
        dx, dy: ẋ ``(B, n)`` and ẏ ``(B, m)``.
        of_adjoint: the gradients that (ṗ, v̇) makes with (x, y). of_solution: those of (p, v) with (ẋ, ẏ).
    """

    dx: Tensor
    dy: Tensor
    of_adjoint: DataGradients
    of_solution: DataGradients

    def on(self, shared: tuple[bool, bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """On the stored entries of P, q, A and b, each ``(1|B, ·)``: summed where they are shared."""
        first, second = self.of_adjoint, self.of_solution
        of_P, of_q, of_A, of_b = shared
        return (
            first.on_P(of_P) + second.on_P(of_P),
            first.on_q(of_q),
            first.on_A(of_A) + second.on_A(of_A),
            first.on_b(of_b),
        )


def moved_gradient(
    session: Session,
    answer: Answer,
    values: ProgramValues,
    tangents: ProgramValues,
    bars: tuple[Tensor, Tensor],
    bar_tangents: tuple[Tensor, Tensor],
) -> MovedGradient:
    """The derivative of the gradient on the data, zero for instances without a solution.

    1. The tangents ẋ and ẏ.
    2. The adjoint (p, v).
    3. c, from the projection's second derivative.
    4. The adjoint of what is above, with c added to its v.

    The report is that of the first pass and stays so.

    Args:
        session: of the layer. answer: of the call.
        values: the stored entries, each ``(1|B, ·)``, float64. tangents: theirs.
        bars: x̄ ``(B, n)`` and ȳ ``(B, m)``. bar_tangents: theirs.

    Raises:
        ConvergenceError, DegenerateError: as the options say.
    """
    at = _Place(session, answer, values)
    program, R_inverse = at.program, at.R_inverse
    along = at.with_data(tangents)
    dx, dy = moved(session, answer, values, tangents, report=False)  # 1
    adjoint = session.fold(answer, *bars)  # 2
    p, v = adjoint.p, adjoint.v
    c = at.curvature(at.state(along, dx, dy), (bars[1] - program.rows(p)) / R_inverse - v)  # 3
    Pp, Av = along.stationary(p, v)  # 4
    x_bar = bar_tangents[0] - (Pp + Av + program.stationary(dx, c)[1])
    y_bar = bar_tangents[1] - along.rows(p) - R_inverse * c
    again = session.fold(answer, x_bar, y_bar)
    session.judge_aside(answer, again.record)
    entries = session.entries
    return MovedGradient(
        dx, dy, DataGradients(again.p, again.v + c, at.x, at.y, entries), DataGradients(p, v, dx, dy, entries)
    )


def moved_tangent(
    session: Session,
    answer: Answer,
    values: ProgramValues,
    tangents: tuple[ProgramValues, ProgramValues],
    moving: ProgramValues,
) -> tuple[Tensor, Tensor]:
    """How the tangents of x ``(B, n)`` and y ``(B, m)`` move along other tangents: second derivatives.

    With both tangents' ẋ, ẏ and u̇ and with h = D²Π_K(u)[u̇, u̇'],

        P ẍ + Aᵀ ÿ = −(Ṗ ẋ' + Ȧᵀ ẏ') − (Ṗ' ẋ + Ȧ'ᵀ ẏ)     A ẍ + s̈ = −Ȧ ẋ' − Ȧ' ẋ     s̈ = D ü + h,

    which is the tangent system again, of right sides less Aᵀ R h and h, but for ÿ, which is R h more.

    Args:
        session, answer, values: as of :func:`moved_gradient`.
        tangents: those that move, and those along which. moving: how the former themselves move.

    Raises:
        ConvergenceError, DegenerateError: as the options say.
    """
    at = _Place(session, answer, values)
    first, second = (at.with_data(each) for each in tangents)
    (dx, dy), (ex, ey) = (moved(session, answer, values, each, report=False) for each in tangents)
    h = at.curvature(at.state(first, dx, dy), at.state(second, ex, ey))
    r, t = at.with_data(moving).sides(at.x, at.y)
    r = r - sum(first.stationary(ex, ey)) - sum(second.stationary(dx, dy))
    t = t - first.rows(ex) - second.rows(dx)
    c = h / at.R_inverse
    found = session.fold(answer, r - at.program.stationary(ex, c)[1], t - h)
    session.judge_aside(answer, found.record)
    return found.p, torch.where(answer.absent.unsqueeze(1), 0.0, found.v + c)


class _Place:
    """The solutions of a call, where the projection is differentiated twice.

    Args:
        session: of the layer. answer: of the call. values: the stored entries.

    Attributes:
        program: of the values. x, y: the solutions. R_inverse: R⁻¹ ``(B, m)``.
    """

    def __init__(self, session: Session, answer: Answer, values: ProgramValues) -> None:
        self._entries, self._answer, self._cone = session.entries, answer, session.cone
        self.program = self.with_data(values.detached())
        self.x, self.y = answer.x.nan_to_num(), answer.y.nan_to_num()
        s = _slacks(answer)
        terms = self.program.sums_of_rows(self.x) + self.program.right_hand_side.abs() + s.abs()
        self._u, self.R_inverse = _balanced(s, self.y, terms, self._cone)

    def with_data(self, values: ProgramValues) -> Program:
        """The batch of programs, or of tangents, with these stored entries."""
        return Program(self._entries, values, self._answer.request.batch)

    def state(self, along: Program, dx: Tensor, dy: Tensor) -> Tensor:
        """u̇ ``(B, m)`` for tangents of the data and ẋ and ẏ."""
        ds = along.sides(self.x, self.y)[1] - self.program.rows(dx)
        return ds - self.R_inverse * dy

    def curvature(self, du: Tensor, w: Tensor) -> Tensor:
        """D²Π_K(u)[u̇, w] ``(B, m)``, zero for instances without a solution."""
        found = self._cone.second_derivative(self._u, du, w)
        return torch.where(self._answer.absent.unsqueeze(1), 0.0, found)


def _slacks(answer: Answer) -> Tensor:
    """s ``(B, m)``, zero for instances without a solution."""
    s = torch.zeros_like(answer.y)
    for piece in answer.differentiable:
        s[piece.rows] = piece.value.s
    return s


def _balanced(s: Tensor, y: Tensor, terms: Tensor, cone: ProductCone) -> tuple[Tensor, Tensor]:
    """u and R⁻¹, ``(B, m)``: how much larger s is than y in each cone, 1 where either is nothing.

    Args:
        s, y: ``(B, m)``. terms: |A||x| + |b| + |s|, ``(B, m)``.
    """
    of_s, of_y, of_terms = (largest_of_block(value.abs(), cone) for value in (s, y, terms))
    largest = (of_terms * of_y).amax(-1, keepdim=True) if s.shape[1] else of_s
    no_s, no_y = of_s <= _NOTHING * of_terms, of_s * of_y <= _NOTHING * largest
    R_inverse = torch.where(no_s | no_y, 1.0, of_s / of_y).clamp(1 / _UNBALANCED, _UNBALANCED)
    inside = _ASIDE * (torch.where(no_y & ~no_s, of_s, 0.0) - torch.where(no_s & ~no_y, of_y, 0.0))
    u = torch.where(no_y & ~no_s, 0.0, -R_inverse * y) + torch.where(no_s & ~no_y, 0.0, s)
    return u + inside * cone.interior(u), R_inverse
