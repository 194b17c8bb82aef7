"""The 3-d power cone {(x, y, z) : x^α y^(1−α) ≥ |z|, x, y ≥ 0}, many at a time, each with its own α.

A point u = (a, b, c) between K and its polar is p + d with p = (x, y, ±r) on the boundary of K and
d = (|c| − r) (−αr/x, −(1−α)r/y, ±1) on that of K° (Hien, "Differential properties of Euclidean projection
onto power cone", 2015), where for 0 < r < |c|

    x = ½ (a + √(a² + 4αr(|c| − r)))         y = ½ (b + √(b² + 4(1 − α)r(|c| − r)))

and r is the one root of r = x^α y^(1−α). It is found in logarithms, with r = |c| / (1 + e^−τ), so that an r
close to either end is as exact as any other. Between the eigenvalues 1 (along p) and 0 (along d) the
derivative has

    λ = S / (S + α(1 − α) r (|c| − r) ‖p‖²),      S = x²y² + α²r²y² + (1 − α)²r²x²

from the derivatives of p and d along the boundary, as for the exponential cone.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cvxfold.cones.frame import FrameDerivative, frame_derivative
from cvxfold.cones.root import bracketed_newton

_FARTHEST = 150.0  # |τ|: e⁻¹⁵⁰ is nothing beside any other length, and its powers do not underflow
_NOTHING = 1e-40  # stands for c = 0, relative to the size of the point


@dataclass(frozen=True)
class Power:
    """A product of 3-d power cones, three rows each.

    Roots are found in float64, whatever the dtype of the points.

    Args:
        alphas: α of each cone, in (0, 1).
    """

    alphas: tuple[float, ...]

    @property
    def dim(self) -> int:
        """Rows of the product."""
        return 3 * len(self.alphas)

    def project(self, u: Tensor) -> Tensor:
        """The projection of ``u`` ``(B, 3·cones)``, accurate to rounding."""
        split = self._split(u)
        flat = (split.inside | split.polar).unsqueeze(-1)
        s = torch.where(flat, split.inside.unsqueeze(-1) * split.u, split.p)
        return (split.size * s).reshape(u.shape).to(u.dtype)

    def derivative(self, u: Tensor) -> FrameDerivative:
        """DΠ_K(u); on a boundary between branches, one of theirs."""
        split = self._split(u)
        diagonal = split.inside.unsqueeze(-1).expand_as(split.u)
        flat = split.inside | split.polar
        return frame_derivative(split.p, split.d, split.curved, flat, diagonal, u.dtype)

    def _split(self, u: Tensor) -> "_Split":
        return _Split.of(u.reshape(len(u), len(self.alphas), 3).double(), _on(self.alphas, u.device))


@dataclass(frozen=True)
class _Split:
    """A point over its size, in its branch.

    Args:
        size: max |uᵢ|, ``(B, cones, 1)``. u: divided by it, ``(B, cones, 3)``.
        inside, polar: branches, ``(B, cones)``: in K, in K°.
        p: the projection in the branch that is left. d: the direction of u − p there.
        curved: λ.
    """

    size: Tensor
    u: Tensor
    inside: Tensor
    polar: Tensor
    p: Tensor
    d: Tensor
    curved: Tensor

    @classmethod
    def of(cls, u: Tensor, alpha: Tensor) -> "_Split":
        size = u.abs().amax(-1, keepdim=True)
        u = u / torch.where(size > 0, size, torch.ones_like(size))
        a, b, c = u.unbind(-1)
        length = c.abs().clamp_min(_NOTHING)
        mean = (a.clamp_min(0) ** alpha) * (b.clamp_min(0) ** (1 - alpha))
        polar_mean = ((-a).clamp_min(0) / alpha) ** alpha * ((-b).clamp_min(0) / (1 - alpha)) ** (1 - alpha)
        polar = (a <= 0) & (b <= 0) & (polar_mean >= c.abs())
        inside = (a >= 0) & (b >= 0) & (mean >= c.abs()) & ~polar  # the origin is in both; D = 0 there
        between = u.isfinite().all(-1) & ~(inside | polar)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        # Elsewhere any point that is between.
        safe_a, safe_b = torch.where(between, a, zero), torch.where(between, b, zero)
        p, d, curved = _boundary(alpha, safe_a, safe_b, torch.where(between, length, one))
        sign = torch.stack([one, one, torch.where(c < 0, -one, one)], dim=-1)
        return cls(size, u, inside, polar, torch.where(u.isfinite(), sign * p, u), sign * d, curved)


@lru_cache(maxsize=64)
def _on(alphas: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made under it it could not serve a backward pass later
        return torch.tensor(alphas, dtype=torch.float64, device=device)


def _boundary(alpha: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, a multiple of d, and λ for points between K and K° with c > 0."""
    beta = 1 - alpha

    def point(tau: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r, rest = c * tau.sigmoid(), c * (-tau).sigmoid()
        return _positive_root(a, alpha * r * rest), _positive_root(b, beta * r * rest), r, rest

    def balance(tau: Tensor) -> tuple[Tensor, Tensor]:
        x, y, r, rest = point(tau)
        # x² − ax = αr(c − r) and dr/dτ = r(c − r)/c give the logarithmic slopes of x and y.
        change = r * rest * (rest - r) / c
        along_x = alpha * alpha * change / (x * (2 * x - a))
        along_y = beta * beta * change / (y * (2 * y - b))
        return r.log() - alpha * x.log() - beta * y.log(), rest / c - along_x - along_y

    ends = torch.full_like(a, _FARTHEST)
    tau = bracketed_newton(balance, torch.zeros_like(a), -ends, ends, torch.zeros_like(a, dtype=torch.bool))
    x, y, r, rest = point(tau)
    p = torch.stack([x, y, r], dim=-1)
    d = torch.stack([-alpha * r / x, -beta * r / y, torch.ones_like(r)], dim=-1)
    # λ with S and the rest divided by x²y², so that nothing underflows.
    bends_w = d.square().sum(-1)
    bends_v = alpha * beta * (r / x) * (rest / y) * (x / y + y / x + (r / x) * (r / y))
    return p, d, bends_w / (bends_w + bends_v)


def _positive_root(a: Tensor, k: Tensor) -> Tensor:
    """The positive root of x² − ax = k, without cancellation."""
    root = (a * a + 4 * k).sqrt()
    return torch.where(a >= 0, 0.5 * (a + root), 2 * k / (root - a))
