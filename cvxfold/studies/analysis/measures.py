"""What is measured of a solved batch: forward rates, singular values, the forward accuracy that is needed."""

from collections.abc import Callable

import torch
from torch import Tensor

from cvxfold.gradient.adjoint import Adjoint
from cvxfold.gradient.error import error_of_step
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import KINK
from cvxfold.methods import Linearization
from cvxfold.methods.history import estimate_rate

_MOST = 5_000  # iterations that are measured
_FLOOR = 1e-13  # below it rounding excites modes that have no part in what is measured
_LOOK_EVERY = 50
_DENSE = 300  # rows up to which singular values are computed from the dense matrix
_SMALL_STEP = 1e-7


def backward_history(phi: Linearization, u_bar: Tensor) -> Tensor:
    """The residuals of LFPI, relative to ‖ū‖, down to rounding, ``(K, B)``: they obey r ← Φᵀ r."""
    r, found = u_bar, []
    size = u_bar.norm(dim=-1)
    size = torch.where(size > 0, size, torch.ones_like(size))
    for k in range(_MOST):
        found.append(r.norm(dim=-1) / size)
        if k % _LOOK_EVERY == _LOOK_EVERY - 1 and bool((found[-1] <= _FLOOR).all()):
            break
        r = phi.vjp(r)
    history = torch.stack(found)
    return torch.where(history > _FLOOR, history, torch.nan)


def forward_rate(phi: ProgramLinearization) -> Tensor:
    """The rate of ‖uₖ₊₁ − uₖ‖ from a cold start, ``(B,)``."""
    return rate_of(phi.image, torch.zeros_like(phi.u), phi.u)


def rate_of(image: Callable[[Tensor], Tensor], u: Tensor, to: Tensor) -> Tensor:
    """The rate of ‖uₖ₊₁ − uₖ‖ of u ← F(u) from ``u`` ``(B, k)``, whose fixed point is ``to``; ``(B,)``."""
    steps: list[Tensor] = []
    size = to.norm(dim=-1).clamp_min(torch.finfo(u.dtype).tiny)
    for k in range(_MOST):
        following = image(u)
        steps.append((following - u).norm(dim=-1) / size)
        u = following
        if k % _LOOK_EVERY == _LOOK_EVERY - 1 and bool((steps[-1] <= _FLOOR).all()):
            break
    history = torch.stack(steps)
    first = history[:1].clamp_min(torch.finfo(u.dtype).tiny)
    return estimate_rate(torch.where(history > _FLOOR, history / first, torch.nan))


def smallest_singular_value(phi: ProgramLinearization, bound: Tensor) -> Tensor:
    """Of I − Φ, ``(B,)``: of the dense matrix where it is small, else the bound by inverse iteration."""
    batch, m = phi.u.shape
    if not 0 < m <= _DENSE:
        return phi.relaxation * bound
    eye = torch.eye(m, dtype=phi.u.dtype, device=phi.u.device)
    columns = [row - phi.jvp(row.expand(batch, m)) for row in eye]
    return torch.linalg.svdvals(torch.stack(columns, dim=-1)).amin(-1)


def distance_to_kinks(phi: ProgramLinearization) -> Tensor:
    """How far u is from the nearest point where the projection has no derivative, ``(B,)``.

    Relative to the largest of u, A x, b and what q moves A x by; infinite where there is no such point. (The
    screen's margin is relative to the terms of one row each, which tells rounding from what is not: a bound
    x ≥ 0 that is not active has ½ there, however near it is to being active.)
    """
    if not phi.u.shape[-1]:
        return torch.full_like(phi.penalty, torch.inf)
    kinks = phi.kinks()
    return kinks.margin.amin(-1) / kinks.size


def forward_tolerance(
    phi: ProgramLinearization, bars: tuple[Tensor, Tensor], adjoint: Adjoint, tol: float
) -> Tensor:
    """The relative forward residual that costs the gradient no more than ``tol`` to first order, ``(B,)``.

    A residual in a generic direction moves u by δu = J⁻¹g: its size is limited by what it does to the
    gradient and by the kinks that it must not reach. Those that u is on already do no harm, or else the
    instance is degenerate, and there is no such tolerance.
    """
    u, tiny = phi.u, torch.finfo(phi.u.dtype).tiny
    if not u.shape[1]:
        return u.new_full((len(u),), tol)
    size = u.norm(dim=-1, keepdim=True).clamp_min(tiny)
    places = torch.arange(1, u.shape[1] + 1, device=u.device, dtype=u.dtype)
    direction = torch.cos(2.3 * places.square() + places)
    # For a relative residual of one.
    du = phi.relaxation * phi.inverse(size * direction / direction.norm())
    kinks = phi.kinks()
    margin = torch.where(kinks.margin > KINK * kinks.terms, kinks.margin, torch.inf)
    reach = (margin / du.abs().clamp_min(tiny)).amin(-1)
    step = torch.minimum(0.1 * reach, torch.full_like(reach, _SMALL_STEP))
    error = error_of_step(phi, step.unsqueeze(-1) * du, bars, adjoint)
    return torch.minimum(tol * step / error.clamp_min(tiny), 0.5 * reach)
