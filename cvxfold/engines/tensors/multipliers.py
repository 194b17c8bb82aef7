"""A proximal method of multipliers: globally convergent Newton steps for what the plain ones do not reach.

For multipliers y, a penalty κR and a proximal centre z the augmented Lagrangian

    φ(x) = ½ xᵀP x + qᵀx + ½ ‖Π_K*(y + κR(Ax − b))‖²_(κR)⁻¹ + (ε/2) ‖x − z‖²

is convex with a semismooth gradient (Rockafellar, "Augmented Lagrangians and applications of the proximal
point algorithm in convex programming", 1976). One loop does both levels for every instance:

1. v = b − Ax − (κR)⁻¹y,  s = Π_K(v),  ŷ = κR (s − v),  ∇φ = Px + q + Aᵀŷ + ε(x − z).
2. Where ∇φ is small enough: y ← ŷ, z ← x; a larger κ where Ax + s − b did not fall to a tenth.
3. Newton: d = −(P + AᵀκR(I − DΠ_K(v))A + εI)⁻¹ ∇φ.
4. A line search along d: φ' is increasing, so regula falsi finds its zero.
5. An instance is given up where many steps have not halved the least residual that it had: it goes as slowly
   as that, or nowhere, and would come to no tolerance within the steps that are left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.deadline import Deadline
from cvxfold.engines.linear.cholesky import Cholesky
from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import residuals
from cvxfold.engines.tensors.splitting import ZERO_CONE_PENALTY, Iterate, Splitting, penalty_pattern

_GROWTH, _CEILING = 30.0, 1e5
_PROXIMAL, _SMALLEST_PROXIMAL = 1e-3, 1e-5
_INNER, _SMALLEST_INNER = 1e-1, 1e-11
_DOUBLINGS, _NARROWINGS = 6, 20
_LONG_ENOUGH = 0.5  # a step at whose end φ' is this fraction of what it is at its beginning
_FLAT, _NARROW = 0.1, 1e-6  # a line search ends at this fraction, or at a bracket that is this narrow
_PATIENCE = 30  # steps that an instance may take without halving its residual


@dataclass
class _MultiplierState(Batched):
    """Per-instance state of the method, all rows of one batch."""

    x: Tensor
    Ax: Tensor
    y: Tensor
    centre: Tensor
    kappa: Tensor
    ceiling: Tensor
    epsilon: Tensor
    inner: Tensor
    violation: Tensor
    least: Tensor
    resting: Tensor

    def is_hopeful(self, residual: Tensor) -> Tensor:
        """Step 5, after a step that came to a residual ``(b,)``."""
        halved = residual <= 0.5 * self.least
        self.resting = torch.where(halved, 0, self.resting + 1)
        self.least = torch.where(halved, residual, self.least)
        return self.resting < _PATIENCE


@dataclass(frozen=True)
class _AugmentedPoint(Batched):
    """What a state implies: R̂ = κR, v, s, ŷ and ∇φ."""

    R: Tensor
    v: Tensor
    s: Tensor
    y: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Multiplied:
    """Where the method came to.

    Args:
        s, y: ``(B, m)``.
        dx, dy: the last proximal steps, ``(B, n)`` and ``(B, m)``; where there is no solution they tend to
            certificates of that.
        steps: Newton steps, ``(B,)``.
    """

    s: Tensor
    y: Tensor
    dx: Tensor
    dy: Tensor
    steps: Tensor


def multipliers(
    splitting: Splitting,
    scaling: Scaling,
    point: Iterate,
    penalty: Tensor,
    tolerance: float,
    max_steps: int,
    deadline: Deadline,
) -> Multiplied:
    """Run the method from a point, each instance until its relative residual is below ``tolerance``.

    Args:
        splitting: of the equilibrated program. scaling: how that was equilibrated.
        point: where to begin, by its x and y.
        penalty: κ to start with, ``(B,)``.
        tolerance: on :meth:`Residuals.worst`.
        max_steps: Newton steps at most.
        deadline: of the pass.

    Returns:
        Where each instance came to.
    """
    x, y = point.x, point.y
    ones = x.new_ones(len(x))
    state = _MultiplierState(
        x.clone(), splitting.program.A.mv(x), y.clone(), x.clone(), penalty.clone(),
        _CEILING * penalty, _PROXIMAL * ones, _INNER * ones, torch.inf * ones,
        torch.inf * ones, torch.zeros_like(ones, dtype=torch.long),
    )  # fmt: skip
    steps = torch.zeros_like(state.resting)
    out = Multiplied(torch.zeros_like(y), y.clone(), torch.zeros_like(x), torch.zeros_like(y), steps)
    index = torch.arange(len(x), device=x.device)
    for step in range(max_steps + 1):
        now = _point(splitting.program, state)
        residual = residuals(splitting.program, scaling, state.x, now.s, now.y)
        out.s[index], out.y[index] = now.s, now.y
        out.steps.index_fill_(0, index, step)
        out.dx[index], out.dy[index] = state.x - state.centre, now.y - state.y
        worst = residual.worst()
        going = (worst > tolerance) & state.is_hopeful(worst)
        if step == max_steps or not bool(going.any()) or deadline.passed:
            break
        dual_scale = residual.dual_scale / scaling.size
        if not bool(going.all()):
            keep = going.nonzero().squeeze(-1)
            index, dual_scale = index[keep], dual_scale[keep]
            splitting, scaling, state = splitting.take(keep), scaling.take(keep), state.take(keep)
            now = now.take(keep)
        now = _update_multipliers(splitting.program, state, now, 1 + dual_scale)
        _newton_step(splitting, state, now)
    return out


def _point(program: ConeProgram, state: _MultiplierState) -> _AugmentedPoint:
    R = state.kappa.unsqueeze(-1) * penalty_pattern(program)
    v = program.b - state.Ax - state.y / R
    s = program.cone.project(v)
    y = R * (s - v)
    proximal = state.epsilon.unsqueeze(-1) * (state.x - state.centre)
    return _AugmentedPoint(R, v, s, y, program.P.mv(state.x) + program.q + program.A.rmv(y) + proximal)


def _update_multipliers(
    program: ConeProgram, state: _MultiplierState, point: _AugmentedPoint, scale: Tensor
) -> _AugmentedPoint:
    """Step 2, in place on ``state``; returns the point that the new state implies."""
    solved = _amax(point.gradient) <= state.inner * scale
    if not bool(solved.any()):
        return point
    violation = _amax(state.Ax + point.s - program.b)
    ratio = (violation / state.violation).clamp(0.1, 1.0)
    grown = torch.minimum(_GROWTH * ratio * state.kappa, state.ceiling)
    state.kappa = torch.where(solved & (ratio > 0.1), grown, state.kappa)
    state.violation = torch.where(solved, violation, state.violation)
    state.y = torch.where(solved.unsqueeze(-1), point.y, state.y)
    state.centre = torch.where(solved.unsqueeze(-1), state.x, state.centre)
    state.epsilon = torch.where(solved, (0.1 * state.epsilon).clamp_min(_SMALLEST_PROXIMAL), state.epsilon)
    state.inner = torch.where(solved, (0.1 * state.inner).clamp_min(_SMALLEST_INNER), state.inner)
    return _point(program, state)


def _newton_step(splitting: Splitting, state: _MultiplierState, point: _AugmentedPoint) -> None:
    """Steps 3 and 4, in place on ``state``."""
    program = splitting.program
    D = program.cone.derivative(point.v)
    inequalities = program.gram(program.A.values, D, lambda d: (1 - d).clamp_min(0.0))
    gram = ZERO_CONE_PENALTY * splitting.equality_gram + inequalities
    H = program.P.values + state.kappa.view(-1, 1, 1) * gram
    H.diagonal(dim1=-2, dim2=-1).add_(state.epsilon.unsqueeze(-1))
    d = -Cholesky.factor(H).solve(point.gradient)
    Ad, Pd = program.A.mv(d), program.P.mv(d)
    curvature = (d * Pd).sum(-1) + state.epsilon * (d * d).sum(-1)
    slope = (d * (point.gradient - program.A.rmv(point.y))).sum(-1)

    def directional(t: Tensor) -> Tensor:
        """φ'(t) along d."""
        v = point.v - t.unsqueeze(-1) * Ad
        return slope + t * curvature + (Ad * (point.R * (program.cone.project(v) - v))).sum(-1)

    t = _zero_of_increasing(directional, torch.ones_like(slope))
    state.x = state.x + t.unsqueeze(-1) * d
    state.Ax = state.Ax + t.unsqueeze(-1) * Ad


def _zero_of_increasing(slope: Callable[[Tensor], Tensor], unit: Tensor) -> Tensor:
    """Where an increasing function, negative at 0, crosses zero; the unit step where that nearly does.

    1. Double the step until the function is positive there.
    2. Regula falsi, in the Illinois form: an end of the bracket that stays a second time counts half as much
       (Dowell and Jarratt, "A modified regula falsi method for computing the root of an equation", 1971).
    """
    low, high, found = torch.zeros_like(unit), unit, unit
    at_low, at_high = slope(low), slope(high)
    flat = _FLAT * at_low.abs()
    done = at_high.abs() <= _LONG_ENOUGH * at_low.abs()
    for _ in range(_DOUBLINGS):  # 1
        short = ~done & (at_high < 0)
        if not bool(short.any()):
            break
        low, at_low = torch.where(short, high, low), torch.where(short, at_high, at_low)
        high = torch.where(short, 2 * high, high)
        at_high = torch.where(short, slope(high), at_high)
    found = torch.where(done, found, high)
    done, side = done | ~(at_high > 0), torch.zeros_like(unit)
    for _ in range(_NARROWINGS):  # 2
        if bool(done.all()):
            break
        t = (low * at_high - high * at_low) / (at_high - at_low)
        t = torch.where((t > low) & (t < high), t, 0.5 * (low + high))
        at_t = slope(t)
        found = torch.where(done, found, t)
        done = done | (at_t.abs() <= flat) | (high - low <= _NARROW * high)
        below = at_t < 0
        at_low = torch.where(below, at_t, torch.where(side < 0, 0.5 * at_low, at_low))
        at_high = torch.where(below, torch.where(side > 0, 0.5 * at_high, at_high), at_t)
        low, high = torch.where(below, t, low), torch.where(below, high, t)
        side = torch.where(below, 1.0, -1.0)
    return found


def _amax(v: Tensor) -> Tensor:
    return v.abs().amax(-1) if v.shape[-1] else v.new_zeros(v.shape[0])
