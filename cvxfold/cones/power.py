"""The 3-d power cone {(x, y, z) : x^α y^(1−α) ≥ |z|, x, y ≥ 0}, many at a time, each with its own α.

A point u = (a, b, c) between K and its polar is p + d with p = (x, y, ±r) on the boundary of K and
d = (|c| − r) (−αr/x, −(1−α)r/y, ±1) on that of K° (Hien, "Differential properties of Euclidean projection
onto power cone", 2015), where for 0 < r < |c|

    x = ½ (a + √(a² + 4αr(|c| − r)))         y = ½ (b + √(b² + 4(1 − α)r(|c| − r)))

and r is the one root of r = x^α y^(1−α). It is found in logarithms, with r = |c| / (1 + e^−τ), so that an r
close to either end is as exact as any other. Between the eigenvalues 1 (along p) and 0 (along d) the
derivative has

    λ = S / (S + α(1 − α) r (|c| − r) ‖p‖²),      S = x²y² + α²r²y² + (1 − α)²r²x²

from the derivatives of p and d along the boundary, as for the exponential cone. With q = r/x, s = r/y and
h = y/x, ṗ = λê (ê along p × d) gives ẋ/x and ẏ/y in proportion to h + βqs and −(1/h + αqs), where β = 1 − α,
r and |c| − r follow, and the logarithmic derivative of λ/(1 − λ) comes to

    κ = λ̇ = λ²(1 − λ) / (‖p‖ √W) · ((1 + β)(h + βqs) − (1 + α)(1/h + αqs) − 3αβ (h + 1/h + qs)(αq² − βs²)/W)

with W = 1 + α²q² + β²s².
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.cones.frame import FrameDerivative, frame_derivative, frame_second_derivative
from cvxfold.cones.margin import lowest
from cvxfold.cones.root import bracketed_newton

_FARTHEST = 150.0  # |τ|: e⁻¹⁵⁰ is nothing beside any other length, and its powers do not underflow
_NOTHING = 1e-40  # stands for c = 0, relative to the size of the point
_PLANES = 25.0  # beyond this |τ| a supporting plane is x = 0 or y = 0, to e⁻²⁵


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

    def project(self, u: Tensor, rough: bool = False) -> Tensor:
        """The projection of ``u`` ``(B, 3·cones)``, accurate to rounding unless ``rough``."""
        split = self._split(u, rough)
        flat = (split.inside | split.polar).unsqueeze(-1)
        s = torch.where(flat, split.inside.unsqueeze(-1) * split.u, split.p)
        return (split.size * s).reshape(u.shape).to(u.dtype)

    def interior(self, u: Tensor) -> Tensor:
        """(1, 1, 0)."""
        return torch.cat([u.new_ones(2), u.new_zeros(1)]).repeat(len(self.alphas))

    def derivative(self, u: Tensor, rough: bool = False) -> FrameDerivative:
        """DΠ_K(u); on a boundary between branches, one of theirs."""
        split = self._split(u, rough)
        diagonal = split.inside.unsqueeze(-1).expand_as(split.u)
        flat = split.inside | split.polar
        return frame_derivative(split.p, split.d, 1 / (1 + split.ratio), flat, diagonal, u.dtype)

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """D²Π_K(u)[v, w] for ``(B, 3·cones)`` each; zero in K and its polar."""
        split = self._split(u)
        return frame_second_derivative(split.p, split.d, split.second(_on(self.alphas, u.device)), v, w)

    def margin(self, u: Tensor) -> Tensor:
        """The distance to the nearer of the boundaries of K and its polar, ``(B, 3·cones)``."""
        split, alpha = self._split(u), _on(self.alphas, u.device)
        nearest = torch.minimum(split.p.norm(dim=-1), split.rest * split.d.norm(dim=-1))
        one = torch.ones_like(alpha)
        on_x, on_y = torch.where(split.polar, one, alpha), torch.where(split.polar, one, 1 - alpha)
        flat = split.inside | split.polar
        if not is_near(flat) or bool(flat.any()):  # a search that is worth a look where that costs nothing
            nearest = torch.where(flat, _to_boundary(split.u, split.slack, alpha, on_x, on_y), nearest)
        nearest = (split.size.squeeze(-1) * nearest).unsqueeze(-1)
        nearest = torch.where(split.u.isfinite().all(-1, keepdim=True), nearest, torch.nan)
        return nearest.expand_as(split.u).reshape(u.shape).to(u.dtype)

    def _split(self, u: Tensor, rough: bool = False) -> "_Split":
        points = u.reshape(len(u), len(self.alphas), 3).double()
        return _Split.of(points, _on(self.alphas, u.device), rough)


@dataclass(frozen=True)
class _Split:
    """A point over its size, in its branch.

    Args:
        size: max |uᵢ|, ``(B, cones, 1)``. u: divided by it, ``(B, cones, 3)``.
        inside, polar: branches, ``(B, cones)``: in K, in K°. slack: by how much their inequality holds.
        p: the projection in the branch that is left. d: the direction of u − p there.
        rest: the length |c| − r of u − p along d. ratio: (1 − λ)/λ.
    """

    size: Tensor
    u: Tensor
    inside: Tensor
    polar: Tensor
    slack: Tensor
    p: Tensor
    d: Tensor
    rest: Tensor
    ratio: Tensor

    def second(self, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """λ(1 − λ)/‖p‖, λ(1 − λ)/‖d‖ and κ, for the point itself and not over its size."""
        beta = 1 - alpha
        x, y, r = self.p.abs().unbind(-1)
        q, s, h = r / x, r / y, y / x
        W, length = self.d.square().sum(-1), self.p.norm(dim=-1)
        one, other = 1 / (1 + self.ratio), 1 / (1 + 1 / self.ratio)
        at_p = one * other / length
        at_d = one * other / (self.rest * W.sqrt())
        along = (1 + beta) * (h + beta * q * s) - (1 + alpha) * (1 / h + alpha * q * s)
        along = along - 3 * alpha * beta * (h + 1 / h + q * s) * ((alpha * q * q - beta * s * s) / W)
        # The mirror image of a cone has its ê reversed, and a point on the mirror no κ.
        kappa = self.u[..., 2].sign() * (one * at_p / W.sqrt() * along)
        scale = torch.where(self.inside | self.polar, torch.inf, self.size.squeeze(-1))
        return at_p / scale, at_d / scale, kappa / scale

    @classmethod
    def of(cls, u: Tensor, alpha: Tensor, rough: bool) -> "_Split":
        size = u.abs().amax(-1, keepdim=True)
        u = u / torch.where(size > 0, size, torch.ones_like(size))
        a, b, c = u.unbind(-1)
        length = c.abs().clamp_min(_NOTHING)
        mean = (a.clamp_min(0) ** alpha) * (b.clamp_min(0) ** (1 - alpha))
        polar_mean = ((-a).clamp_min(0) / alpha) ** alpha * ((-b).clamp_min(0) / (1 - alpha)) ** (1 - alpha)
        polar = (a <= 0) & (b <= 0) & (polar_mean >= c.abs())
        inside = (a >= 0) & (b >= 0) & (mean >= c.abs()) & ~polar  # the origin is in both; D = 0 there
        between = u.isfinite().all(-1) & ~(inside | polar)
        slack = torch.where(polar, polar_mean, mean) - c.abs()
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        # Elsewhere any point that is between.
        safe_a, safe_b = torch.where(between, a, zero), torch.where(between, b, zero)
        p, d, rest, ratio = _boundary(alpha, safe_a, safe_b, torch.where(between, length, one), rough)
        sign = torch.stack([one, one, torch.where(c < 0, -one, one)], dim=-1)
        p = torch.where(u.isfinite(), sign * p, u)
        return cls(size, u, inside, polar, slack, p, sign * d, rest, ratio)


@lru_cache(maxsize=64)
def _on(alphas: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made under it it could not serve a backward pass later
        return torch.tensor(alphas, dtype=torch.float64, device="cpu").to(device)


def _boundary(
    alpha: Tensor, a: Tensor, b: Tensor, c: Tensor, rough: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p, d over |c| − r, that length, and (1 − λ)/λ for points between K and K° with c > 0."""
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
    nowhere = torch.zeros_like(a, dtype=torch.bool)
    tau = bracketed_newton(balance, torch.zeros_like(a), -ends, ends, nowhere, rough)
    x, y, r, rest = point(tau)
    p = torch.stack([x, y, r], dim=-1)
    d = torch.stack([-alpha * r / x, -beta * r / y, torch.ones_like(r)], dim=-1)
    # λ with S and the rest divided by x²y², so that nothing underflows.
    bends_w = d.square().sum(-1)
    bends_v = alpha * beta * (r / x) * (rest / y) * (x / y + y / x + (r / x) * (r / y))
    return p, d, rest, bends_v / bends_w


def _positive_root(a: Tensor, k: Tensor) -> Tensor:
    """The positive root of x² − ax = k, without cancellation."""
    root = (a * a + 4 * k).sqrt()
    return torch.where(a >= 0, 0.5 * (a + root), 2 * k / (root - a))


def _to_boundary(u: Tensor, slack: Tensor, alpha: Tensor, on_x: Tensor, on_y: Tensor) -> Tensor:
    """The distance from points ``(B, cones, 3)`` of K or K° to the boundary.

    The supporting planes have the normals (k₁ e^−βθ, k₂ e^αθ, 1) in |a|, |b| and −|c|; (k₁, k₂) is (α, β) for
    K and (1, 1) for K°. At the ends of the curve are the planes a = 0 and b = 0.

    Args:
        u: the points.
        slack: by how much their inequality holds, which is the lowest ⟨normal, u⟩; zero on the boundary.
        alpha: α, ``(cones,)``.
        on_x, on_y: k₁ and k₂, ``(B, cones)``.
    """
    a, b, c = u.abs().unbind(-1)
    beta = 1 - alpha
    theta = ((on_x * beta) * a.clamp_min(1e-290)).log() - ((on_y * alpha) * b.clamp_min(1e-290)).log()
    normal = torch.hypot(on_x * (-beta * theta).exp(), on_y * (alpha * theta).exp())
    first = slack.clamp_min(0) / torch.hypot(normal, torch.ones_like(normal))
    point, wide = (a.unsqueeze(-1), b.unsqueeze(-1), c.unsqueeze(-1)), alpha.unsqueeze(-1)

    def height(tau: Tensor) -> Tensor:
        """Of the plane at θ = τ/β or τ/α, before or beyond 0, with its normal divided by e^|τ|."""
        shrink, back = (-tau.abs()).exp(), tau < 0
        other = torch.where(back, wide / (1 - wide), (1 - wide) / wide)
        other = (-tau.abs() * (1 + other)).exp()
        one = torch.ones_like(other)
        x = on_x.unsqueeze(-1) * torch.where(back, one, other)
        y = on_y.unsqueeze(-1) * torch.where(back, other, one)
        on_plane = x * point[0] + y * point[1] - shrink * point[2]
        return on_plane / (x * x + y * y + shrink * shrink).sqrt()

    end = torch.full_like(a, _PLANES)
    found = torch.minimum(first, lowest(height, -end, 0 * end, end).clamp_min(0))
    return torch.minimum(found, torch.minimum(a, b))
