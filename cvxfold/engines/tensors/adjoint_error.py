"""What the two equations of an adjoint say of its error, to first order.

With the equations of :mod:`cvxfold.engines.tensors.adjoint_equations`, z = R(Ap − ȳ) and D = DΠ_K(u), an
adjoint (p, v) is off by the step that solves for

- what it leaves of them, r₁ and r₂, and for what rounding may have left, or hidden: a part of the terms
  |x̄| + |P||p| + |A|ᵀ|v| and R(|A||p| + |ȳ|), |v|, of each entry of the first one, and along each eigenvector
  of D of the second one;
- r₂ = −(D' − D)(v + z), where the state moves and D becomes D'.

The factor is regularized: a row that is tiny beside the others, even after equilibration, is none to it, and
an adjoint may leave all of it. So r₂ is held against the terms of each row, too.
"""

import torch
from torch import Tensor

from cvxfold.cones import ProductDerivative, largest_of_block
from cvxfold.engines.tensors.adjoint_equations import ReducedAdjoint, left, step
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.residuals import terms
from cvxfold.engines.tensors.splitting import Iterate, Splitting
from cvxfold.gradient.screen import ratio

ROUNDING = 1.1e-16  # 2⁻⁵³: of one number, at most
_LOST = 1e-13  # of a row's entries times the largest of p: what sums may lose
_MAGNIFIED = 100  # times a residual, likewise: what a method may leave
_GOLDEN = 0.6180339887498949


def by_remainders(jacobian: FactoredJacobian, of: ReducedAdjoint) -> tuple[Tensor, Tensor]:
    """δp ``(B, n')`` and δv ``(B, m')`` for what is left of both equations, and rounding."""
    first, second = left(jacobian, of)
    on_first, on_second = _rounding(jacobian, of)
    return step(jacobian, first + on_first, second + on_second)


def by_turn(jacobian: FactoredJacobian, then: ProductDerivative, of: ReducedAdjoint) -> tuple[Tensor, Tensor]:
    """δp ``(B, n')`` and δv ``(B, m')`` where D becomes ``then``."""
    splitting = jacobian.splitting
    z = splitting.R * (splitting.program.A.mv(of.p) - of.on_y)
    return step(jacobian, torch.zeros_like(of.p), -jacobian.D.change(then, of.v + z))


def left_of_rows(jacobian: FactoredJacobian, of: ReducedAdjoint, residual: Tensor) -> Tensor:
    """The largest share of the terms of its own block that the second equation leaves, ``(B,)``.

    What sums over entries of p may lose counts as none, also where p itself is what is left of M⁻¹x̄; so does
    what a relative ``residual`` ``(B,)`` of the fixed-point iteration's system leaves of p.
    """
    program, R = jacobian.splitting.program, jacobian.splitting.R
    A, cone = program.A.absolute(), program.cone
    if not cone.dim or not of.p.shape[1]:
        return of.p.new_zeros(len(of.p))
    rest = largest_of_block(left(jacobian, of)[1].abs(), cone)
    largest = torch.maximum(of.p.abs(), jacobian.splitting.solve_normal(of.on_x).abs()).amax(-1, keepdim=True)
    sizes = R * A.mv(largest.expand_as(of.p))
    own = largest_of_block(_terms_of_rows(jacobian, of).abs(), cone)
    lost = (_MAGNIFIED * residual).clamp_min(_LOST).unsqueeze(-1)
    rest = torch.where(rest <= lost * largest_of_block(sizes, cone), 0.0, rest)
    return ratio(rest, own).amax(-1)


def _terms_of_rows(jacobian: FactoredJacobian, of: ReducedAdjoint) -> Tensor:
    """About (I − D) R(|A||p| + |ȳ|) and D |v|, along each eigenvector of D, ``(B, m')``."""
    program, R, D = jacobian.splitting.program, jacobian.splitting.R, jacobian.D
    v, on_rows = of.v.abs(), shares(of.v)
    on_z = R * (program.A.absolute().mv(of.p.abs()) + of.on_y.abs())
    return D.spread(lambda d: 1 - d, on_z, on_rows) + D.spread(_itself, v, on_rows)


def _rounding(jacobian: FactoredJacobian, of: ReducedAdjoint) -> tuple[Tensor, Tensor]:
    """What rounding may leave of each equation, ``(B, n')`` and ``(B, m')``."""
    program = jacobian.splitting.program
    columns = of.on_x.abs() + program.P.absolute().mv(of.p.abs()) + program.A.absolute().rmv(of.v.abs())
    return ROUNDING * shares(columns) * columns, ROUNDING * _terms_of_rows(jacobian, of)


def left_of_dual(splitting: Splitting, point: Iterate) -> tuple[Tensor, Tensor]:
    """What is left of P x + q + Aᵀy = 0, and what rounding of its terms may hide, each ``(B, n')``."""
    program = splitting.program
    _, columns = terms(program, point.x, point.s, point.y)
    rest = program.P.mv(point.x) + program.q + program.A.rmv(point.y)
    return rest, ROUNDING * shares(columns) * columns


def terms_of_differences(splitting: Splitting, point: Iterate) -> Tensor:
    """What is added up in Aᵀy where y = R(s − u) is the difference of two numbers, ``(B, n')``.

    So it is on curved cones between K and its polar, but for the pairs of
    :mod:`cvxfold.engines.tensors.pairs`.
    """
    cone, first = splitting.program.cone, splitting.program.cone.dims.separable
    terms = splitting.R * (point.s.abs() + point.u.abs())
    terms = torch.where((point.s == 0) | (point.y == 0), 0.0, terms)
    terms[:, :first] = 0.0
    pairs = cone.pairs(terms.device)
    terms = terms.index_fill(1, pairs, 0.0).index_fill(1, pairs + 1, 0.0)
    return splitting.program.A.absolute().rmv(terms)


def shares(like: Tensor) -> Tensor:
    """What stands for rounding errors over their bounds, between ½ and 3/2 and of either sign, ``(k,)``.

    Multiples of the golden ratio keep neighbours apart, so that neither the sum nor the difference of two
    whose bounds are equal, as they are in a cone's boundary, is next to nothing.
    """
    places = torch.arange(1, like.shape[-1] + 1, device=like.device, dtype=like.dtype)
    parts = (_GOLDEN * places).frac()
    return torch.where(parts < 0.5, 0.5 + 2 * parts, 0.5 - 2 * parts)


def _itself(d: Tensor) -> Tensor:
    return d
