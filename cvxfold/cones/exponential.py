"""The exponential cone cl{(x, y, z) : y > 0, y exp(x/y) ≤ z}, many at a time.

A point u = (r, s, t) between K and its polar is the sum of two orthogonal points of their boundaries
(Friberg, "Projection onto the exponential cone: a univariate root-finding problem", 2023),

    p = y (ρ, 1, e^ρ)            d = μ (e^ρ, (1 − ρ) e^ρ, −1)            y, μ > 0

with y = ((ρ − 1) r + s) / (ρ² − ρ + 1) and μe^ρ = (r − ρs) / (ρ² − ρ + 1) from the first two coordinates;
ρ is the one root of the third, y e^ρ − μ = t, where both are positive. With v and w the vectors in
parentheses, the derivative has between the eigenvalues 1 (along p) and 0 (along d)

    λ = y ‖w‖² / (y ‖w‖² + μ e^ρ ‖v‖²)

which follows from u̇ = ṗ + ḋ along v × w: v'·(v × w) = −‖w‖² and w'·(v × w) = −e^ρ ‖v‖².
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.cones.frame import FrameDerivative, frame_derivative
from cvxfold.cones.root import bracketed_newton

_FAR = 100.0  # beyond this |ρ| the root is an end of its interval, to e⁻¹⁰⁰
_FARTHEST = 1e100  # beyond this |ρ| nothing changes any more, and squares would overflow


@dataclass(frozen=True)
class Exponential:
    """A product of ``cones`` exponential cones, three rows each.

    Roots are found in float64, whatever the dtype of the points.
    """

    cones: int

    @property
    def dim(self) -> int:
        """Rows of the product."""
        return 3 * self.cones

    def project(self, u: Tensor) -> Tensor:
        """The projection of ``u`` ``(B, 3·cones)``, accurate to rounding."""
        split = _Split.of(u.reshape(len(u), self.cones, 3).double())
        s = torch.where(split.flat.unsqueeze(-1), split.flat_eigenvalues() * split.u, split.p)
        return (split.size * s).reshape(u.shape).to(u.dtype)

    def derivative(self, u: Tensor) -> FrameDerivative:
        """DΠ_K(u); on a boundary between branches, one of theirs."""
        split = _Split.of(u.reshape(len(u), self.cones, 3).double())
        return frame_derivative(split.v, split.w, split.curved, split.flat, split.flat_eigenvalues(), u.dtype)


@dataclass(frozen=True)
class _Split:
    """A point over its size, in its branch.

    Args:
        size: max |uᵢ|, ``(B, cones, 1)``. u: divided by it, ``(B, cones, 3)``.
        inside, polar, face: branches, ``(B, cones)``: in K, in K°, projected onto {x ≤ 0, y = 0, z ≥ 0}.
        p: the projection in the branch that is left. v, w: directions of p and d, orthogonal.
        curved: λ.
    """

    size: Tensor
    u: Tensor
    inside: Tensor
    polar: Tensor
    face: Tensor
    p: Tensor
    v: Tensor
    w: Tensor
    curved: Tensor

    @property
    def flat(self) -> Tensor:
        return self.inside | self.polar | self.face

    def flat_eigenvalues(self) -> Tensor:
        """D's diagonal in the branches where it is diagonal; Π(u) = D u there."""
        on_face = torch.stack(
            [torch.ones_like(self.face), torch.zeros_like(self.face), self.u[..., 2] > 0], dim=-1
        )
        diagonal = torch.where(self.face.unsqueeze(-1), on_face, self.inside.unsqueeze(-1))
        return diagonal.to(self.u.dtype)

    @classmethod
    def of(cls, u: Tensor) -> "_Split":
        size = u.abs().amax(-1, keepdim=True)
        u = u / torch.where(size > 0, size, torch.ones_like(size))
        r, s, t = u.unbind(-1)
        inside = ((s > 0) & (s * (r / s).exp() <= t)) | ((r <= 0) & (s == 0) & (t >= 0))
        polar = ((r > 0) & (r * (s / r - 1).exp() <= -t)) | ((r == 0) & (s <= 0) & (t <= 0))
        inside = inside & ~polar  # the origin is in both; D = 0 there
        face = (r <= 0) & (s <= 0) & ~inside & ~polar
        between = u.isfinite().all(-1) & ~(inside | polar | face)
        one = torch.ones_like(r)
        # Elsewhere any point that is between.
        safe = torch.where(between, r, one), torch.where(between, s, one), torch.where(between, t, 0 * one)
        rho = _root(*safe)
        p, v, w, curved = _boundary(rho, *safe)
        return cls(size, u, inside, polar, face, torch.where(u.isfinite(), p, u), v, w, curved)


def _root(r: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """ρ for points between K and K°.

    Newton's method on the logarithms of both sides of y e^ρ + t⁻ = μ + t⁺, which are almost linear in ρ
    and cannot overflow.
    """
    infinity = torch.full_like(r, torch.inf)
    low = torch.where(r > 0, 1 - s / r, -infinity)
    high = torch.where(s > 0, r / s, infinity)
    log_above, log_below = t.clamp_min(0).log(), (-t).clamp_min(0).log()

    s_less_r, one = s - r, torch.ones_like(r)

    def balance(rho: Tensor) -> tuple[Tensor, Tensor]:
        y, mu = torch.addcmul(s_less_r, rho, r), torch.addcmul(r, rho, s, value=-1)
        scale = torch.addcmul(one, rho, rho - 1)
        common, log_scale = (2 * rho - 1) / scale, scale.log()
        log_a, log_mu = y.log() - log_scale + rho, mu.log() - log_scale - rho
        left, right = torch.logaddexp(log_a, log_below), torch.logaddexp(log_mu, log_above)
        slope = (log_a - left).exp() * (1 - common + r / y)
        return left - right, torch.addcmul(slope, (log_mu - right).exp(), 1 + common + s / mu)

    end = torch.where(low > _FAR, low, torch.where(high < -_FAR, high, torch.nan))
    end = end.clamp(-_FARTHEST, _FARTHEST)
    start = torch.minimum(torch.maximum(torch.full_like(r, 0.5), low + 0.3), high - 0.3)
    start = torch.where(end.isnan(), start, 0.5)
    return torch.where(end.isnan(), bracketed_newton(balance, start, low, high, ~end.isnan()), end)


def _boundary(rho: Tensor, r: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p, the directions v and w, and λ; v and w divided by e^ρ where ρ > 0, so that nothing overflows."""
    positive = rho > 0
    e, one = (-rho.abs()).exp(), torch.ones_like(rho)
    scale = rho * (rho - 1) + 1
    first, second = ((rho - 1) * r + s) / scale, (r - rho * s) / scale
    v = torch.stack([rho, one, e], dim=-1)
    w = torch.stack([e, (1 - rho) * e, -one], dim=-1)
    v = torch.where(positive.unsqueeze(-1), torch.stack([rho * e, e, one], dim=-1), v)
    w = torch.where(positive.unsqueeze(-1), torch.stack([one, 1 - rho, -e], dim=-1), w)
    # Of two formulas for each coefficient the one that does not cancel.
    on_v = torch.where(positive, t + e * second, first).clamp_min(0)
    on_w = torch.where(positive, second, torch.where(t < 0, e * first - t, second / e)).clamp_min(0)
    bends_w, bends_v = on_v * w.square().sum(-1), on_w * v.square().sum(-1)
    bends_w, bends_v = (
        torch.where(positive, e * bends_w, bends_w),
        torch.where(positive, bends_v, e * bends_v),
    )
    total = (bends_w + bends_v).clamp_min(torch.finfo(rho.dtype).tiny)
    # Where ρ ≤ 0, x and y are u's but for a small part.
    p = torch.stack([r - on_w * e, s - on_w * (1 - rho) * e, first * e], dim=-1)
    p = torch.where(positive.unsqueeze(-1), on_v.unsqueeze(-1) * v, p)
    return p, v, w, bends_w / total
