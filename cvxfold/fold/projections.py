"""Projections onto sets in closed form, differentiable wherever a projection is, for use inside of an update.

Points are ``(…, n)``; what describes a set is a number or a tensor that may itself require a gradient. Each
projection finds out, without a gradient, which constraints are active, and then is one differentiable
formula.
"""

import torch
from torch import Tensor

_CORRECTIONS = 4  # of the active set, from the threshold that the last one gives; two are enough but for ties

Real = float | Tensor
"""A number, or a tensor that broadcasts."""


def box(x: Tensor, low: Real, high: Real) -> Tensor:
    """Onto {low ≤ x ≤ high}.

    Args:
        x: ``(…, n)``. low, high: numbers or ``(…, n)``; infinite for no bound.

    Raises:
        ValueError: a lower bound lies above the upper one.
    """
    low, high = _like(low, x), _like(high, x)
    if bool((low > high).any()):
        raise ValueError("box: expected low ≤ high, got a lower bound above an upper one")
    return torch.where(x < low, low, torch.where(x > high, high, x))


def capped_simplex(x: Tensor, total: Real = 1.0, cap: Real = 1.0) -> Tensor:
    """Onto {0 ≤ x ≤ cap, Σx = total}: x = min(max(v − τ, 0), cap), τ such that the sum is right.

    Args:
        x: ``(…, n)``. total: a number or ``(…,)``. cap: a number or ``(…, n)``.

    Raises:
        ValueError: the set is empty: total < 0 or total > Σcap.
    """
    total, cap = _like(total, x), _like(cap, x)
    caps = cap.detach().expand_as(x)
    if bool((total < 0).any()) or bool((total > caps.sum(-1) * (1 + 1e-12)).any()):
        raise ValueError("capped_simplex: expected 0 ≤ total ≤ the sum of the caps, got another total")
    with torch.no_grad():
        tau = _threshold(x.detach(), total.detach(), caps)
        for _ in range(_CORRECTIONS):
            free, full = _active(x.detach(), tau, caps)
            tau = torch.where(free.any(-1), _shift(x.detach(), total.detach(), caps, free, full), tau)
        free, full = _active(x.detach(), tau, caps)
    exact = torch.where(free.any(-1), _shift(x, total, cap, free, full), tau)
    return torch.where(free, x - exact.unsqueeze(-1), torch.where(full, cap, 0.0))


def simplex(x: Tensor, total: Real = 1.0) -> Tensor:
    """Onto {x ≥ 0, Σx = total}.

    Args:
        x: ``(…, n)``. total: a number or ``(…,)``, nonnegative.
    """
    # No entry is more than the total.
    cap = _like(total, x).detach().unsqueeze(-1) + 1
    return capped_simplex(x, total, cap)


def l2_ball(x: Tensor, radius: Real = 1.0, center: Real = 0.0) -> Tensor:
    """Onto {‖x − center‖₂ ≤ radius}.

    Args:
        x: ``(…, n)``. radius: a number or ``(…,)``, positive. center: a number or ``(…, n)``.
    """
    radius, v = _radius(radius, x), x - center
    outside = v.detach().square().sum(-1) > radius.detach().square()
    norm = torch.where(outside, v.square().sum(-1), 1.0).sqrt()
    factor = torch.where(outside, radius / norm, 1.0)
    return center + factor.unsqueeze(-1) * v


def l1_ball(x: Tensor, radius: Real = 1.0) -> Tensor:
    """Onto {‖x‖₁ ≤ radius}; Duchi, Shalev-Shwartz, Singer and Chandra, 2008: by the simplex of |x|.

    Args:
        x: ``(…, n)``. radius: a number or ``(…,)``, positive.
    """
    radius = _radius(radius, x)
    outside = x.detach().abs().sum(-1) > radius.detach()
    inner = x.detach().sign() * simplex(x.abs(), radius)
    return torch.where(outside.unsqueeze(-1), inner, x)


def linf_ball(x: Tensor, radius: Real = 1.0) -> Tensor:
    """Onto {‖x‖∞ ≤ radius}.

    Args:
        x: ``(…, n)``. radius: a number or ``(…,)``, positive.
    """
    radius = _radius(radius, x).unsqueeze(-1)
    return box(x, -radius, radius)


def halfspace(x: Tensor, a: Tensor, b: Real) -> Tensor:
    """Onto {aᵀx ≤ b}.

    Args:
        x: ``(…, n)``. a: ``(…, n)``, not zero. b: a number or ``(…,)``.
    """
    excess = (a * x).sum(-1) - b
    return x - _along(a, torch.where(excess.detach() > 0, excess, 0.0))


def hyperplane(x: Tensor, a: Tensor, b: Real) -> Tensor:
    """Onto {aᵀx = b}.

    Args:
        x: ``(…, n)``. a: ``(…, n)``, not zero. b: a number or ``(…,)``.
    """
    return x - _along(a, (a * x).sum(-1) - b)


def _along(a: Tensor, amount: Tensor) -> Tensor:
    """a · amount / ‖a‖²."""
    size = a.square().sum(-1)
    if bool((size == 0).any()):
        raise ValueError("a: expected a normal vector that is not zero, got zero")
    return (amount / size).unsqueeze(-1) * a


def _radius(radius: Real, x: Tensor) -> Tensor:
    radius = _like(radius, x)
    if not bool((radius > 0).all()):
        raise ValueError("radius: expected a positive number, got others")
    return radius.expand(torch.broadcast_shapes(radius.shape, x.shape[:-1]))


def _like(value: Real, x: Tensor) -> Tensor:
    if isinstance(value, int | float):
        return x.new_full((), value)  # without a copy to the device
    return torch.as_tensor(value, dtype=x.dtype, device=x.device)


def _threshold(v: Tensor, total: Tensor, cap: Tensor) -> Tensor:
    """τ, ``(…,)``. As it falls an entry grows from τ = v on and is full at τ = v − cap.

    Between two of these ends the sum is linear, so it is found at all of them, in their order, and τ between
    the two where the total is.
    """
    ends, order = torch.cat([v, v - cap], dim=-1).sort(dim=-1, descending=True)
    growing = torch.where(order < v.shape[-1], 1.0, -1.0).to(v).cumsum(-1)  # entries, below each end
    gains = growing[..., :-1] * (ends[..., :-1] - ends[..., 1:])
    sums, total = torch.nn.functional.pad(gains.cumsum(-1), (1, 0)), total.unsqueeze(-1)
    last = ((sums < total).sum(-1, keepdim=True) - 1).clamp_min(0)
    end, slope, found = (one.expand(*last.shape[:-1], -1).gather(-1, last) for one in (ends, growing, sums))
    return (end - (total - found) / slope.clamp_min(1)).squeeze(-1)


def _active(v: Tensor, tau: Tensor, cap: Tensor) -> tuple[Tensor, Tensor]:
    """Which entries are free, and which at their cap, for a threshold."""
    shifted = v - tau.unsqueeze(-1)
    full = shifted >= cap
    return (shifted > 0) & ~full, full


def _shift(v: Tensor, total: Tensor, cap: Tensor, free: Tensor, full: Tensor) -> Tensor:
    """τ for which the free entries and the caps add up to the total, ``(…,)``."""
    fixed = torch.where(full, cap, 0.0).sum(-1)
    return (torch.where(free, v, 0.0).sum(-1) + fixed - total) / free.sum(-1).clamp_min(1)
