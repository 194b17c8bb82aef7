"""The exponential cone cl{(x, y, z) : y > 0, y exp(x/y) ≤ z}, many at a time.

A point u = (r, s, t) between K and its polar is the sum of two orthogonal points of their boundaries
(Friberg, "Projection onto the exponential cone: a univariate root-finding problem", 2023),

    p = y (ρ, 1, e^ρ)            d = μ (e^ρ, (1 − ρ) e^ρ, −1)            y, μ > 0

with y = ((ρ − 1) r + s) / (ρ² − ρ + 1) and μe^ρ = (r − ρs) / (ρ² − ρ + 1) from the first two coordinates;
ρ is the one root of the third, y e^ρ − μ = t, where both are positive. With v and w the vectors in
parentheses, the derivative has between the eigenvalues 1 (along p) and 0 (along d)

    λ = y ‖w‖² / (y ‖w‖² + μ e^ρ ‖v‖²)

which follows from u̇ = ṗ + ḋ along v × w: v'·(v × w) = −‖w‖² and w'·(v × w) = −e^ρ ‖v‖². With ê the unit
vector along v × w, ṗ = λê gives ρ̇ = −λ ‖v‖/(y ‖w‖) and ẏ/y = −ρ̇ v·v'/‖v‖², and ḋ = (1 − λ)ê likewise
μ̇/μ = −ρ̇ w·w'/‖w‖², so the logarithmic derivative of λ/(1 − λ) leads to

    κ = λ̇ = λ(1 − λ) (3 w·w'/‖w‖² − 3 v·v'/‖v‖² − 1) ρ̇,      v·v' = ρ + e^2ρ,      w·w' = e^2ρ (ρ² − ρ + 1)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.cones.frame import FrameDerivative, frame_derivative, frame_second_derivative
from cvxfold.cones.margin import lowest
from cvxfold.cones.root import bracketed_newton

_FAR = 100.0  # beyond this |ρ| the root is an end of its interval, to e⁻¹⁰⁰
_FARTHEST = 1e100  # beyond this |ρ| nothing changes any more, and squares would overflow
_PLANES = 50.0  # beyond this |ρ| the boundary is flat, to e⁻⁵⁰
_LARGEST = 700.0  # e^ρ overflows beyond it


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

    def project(self, u: Tensor, rough: bool = False) -> Tensor:
        """The projection of ``u`` ``(B, 3·cones)``, accurate to rounding unless ``rough``."""
        split = self._split(u, rough)
        s = torch.where(split.flat.unsqueeze(-1), split.flat_eigenvalues() * split.u, split.p)
        return (split.size * s).reshape(u.shape).to(u.dtype)

    def interior(self, u: Tensor) -> Tensor:
        """(−1, 1, 1): e⁻¹ < 1 in K, and e⁻¹ < e in K*."""
        return torch.cat([u.new_full((1,), -1.0), u.new_ones(2)]).repeat(self.cones)

    def derivative(self, u: Tensor, rough: bool = False) -> FrameDerivative:
        """DΠ_K(u); on a boundary between branches, one of theirs."""
        split = self._split(u, rough)
        on_w, on_v = split.bends()
        return frame_derivative(
            split.v, split.w, on_w / (on_w + on_v), split.flat, split.flat_eigenvalues(), u.dtype
        )

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """D²Π_K(u)[v, w] for ``(B, 3·cones)`` each; zero in K, its polar and the face's branch."""
        split = self._split(u)
        return frame_second_derivative(split.v, split.w, split.second(), v, w)

    def margin(self, u: Tensor) -> Tensor:
        """The distance to the nearest boundary between branches, ``(B, 3·cones)``."""
        split = self._split(u)
        r, s, _ = split.u.unbind(-1)
        octant = split.u.abs().amin(-1)  # on the face's branch t = 0 is a kink as well
        lengths = torch.minimum(split.on_v * split.v.norm(dim=-1), split.on_w * split.w.norm(dim=-1))
        between = torch.minimum(lengths, torch.hypot(r.clamp_min(0), s.clamp_min(0)))
        nearest = torch.where(split.face, octant, between)
        flat = split.inside | split.polar
        if not is_near(flat) or bool(flat.any()):  # a search that is worth a look where that costs nothing
            nearest = torch.where(flat, _to_boundary(split.u, split.inside, split.polar), nearest)
        nearest = (split.size.squeeze(-1) * nearest).unsqueeze(-1)
        nearest = torch.where(split.u.isfinite().all(-1, keepdim=True), nearest, torch.nan)
        return nearest.expand_as(split.u).reshape(u.shape).to(u.dtype)

    def _split(self, u: Tensor, rough: bool = False) -> "_Split":
        return _Split.of(u.reshape(len(u), self.cones, 3).double(), rough)


@dataclass(frozen=True)
class _Split:
    """A point over its size, in its branch.

    Args:
        size: max |uᵢ|, ``(B, cones, 1)``. u: divided by it, ``(B, cones, 3)``.
        inside, polar, face: branches, ``(B, cones)``: in K, in K°, projected onto {x ≤ 0, y = 0, z ≥ 0}.
        rho: ρ in the branch that is left, between K and K°. p: the projection there.
        v, w: directions of p and d, orthogonal. on_v, on_w: the coefficients of p and d on them.
    """

    size: Tensor
    u: Tensor
    inside: Tensor
    polar: Tensor
    face: Tensor
    rho: Tensor
    p: Tensor
    v: Tensor
    w: Tensor
    on_v: Tensor
    on_w: Tensor

    @property
    def flat(self) -> Tensor:
        return self.inside | self.polar | self.face

    def bends(self) -> tuple[Tensor, Tensor]:
        """y ‖w‖² and μ e^ρ ‖v‖², as λ to 1 − λ, in the scale of v and w; the first is positive."""
        e, positive = (-self.rho.abs()).exp(), self.rho > 0
        on_w, on_v = self.on_v * self.w.square().sum(-1), self.on_w * self.v.square().sum(-1)
        on_w = torch.where(positive, e * on_w, on_w).clamp_min(torch.finfo(e.dtype).tiny)
        return on_w, torch.where(positive, on_v, e * on_v)

    def second(self) -> tuple[Tensor, Tensor, Tensor]:
        """λ(1 − λ)/‖p‖, λ(1 − λ)/‖d‖ and κ, for the point itself and not over its size."""
        e, positive, rho = (-self.rho.abs()).exp(), self.rho > 0, self.rho
        V, W = self.v.square().sum(-1), self.w.square().sum(-1)
        on_w, on_v = self.bends()
        total = on_w + on_v
        one, other = on_w / total, on_v / total
        # λ/‖p‖ and (1 − λ)/‖d‖ with ‖p‖ and ‖d‖, which may be tiny, divided out; e is where V or W has it.
        steep, shallow = W / V.sqrt(), V / W.sqrt()
        at_p = other * torch.where(positive, e * steep, steep) / total
        at_d = one * torch.where(positive, shallow, e * shallow) / total
        turn = -torch.where(positive, other * at_d * steep, one * at_p * shallow)
        on_v = torch.where(positive, rho * e * e + 1, rho + e * e) / V
        on_w = (rho * (rho - 1) + 1) * torch.where(positive, torch.ones_like(e), e * e) / W
        bend = (at_p, at_d, turn * (3 * (on_w - on_v) - 1))
        scale = torch.where(self.flat, torch.inf, self.size.squeeze(-1))
        return bend[0] / scale, bend[1] / scale, bend[2] / scale

    def flat_eigenvalues(self) -> Tensor:
        """D's diagonal in the branches where it is diagonal; Π(u) = D u there."""
        on_face = torch.stack(
            [torch.ones_like(self.face), torch.zeros_like(self.face), self.u[..., 2] > 0], dim=-1
        )
        diagonal = torch.where(self.face.unsqueeze(-1), on_face, self.inside.unsqueeze(-1))
        return diagonal.to(self.u.dtype)

    @classmethod
    def of(cls, u: Tensor, rough: bool) -> "_Split":
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
        rho = _root(*safe, rough)
        p, v, w, on_v, on_w = _boundary(rho, *safe)
        p = torch.where(u.isfinite(), p, u)
        return cls(size, u, inside, polar, face, rho, p, v, w, on_v, on_w)


def _root(r: Tensor, s: Tensor, t: Tensor, rough: bool) -> Tensor:
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
    found = bracketed_newton(balance, start, low, high, ~end.isnan(), rough)
    return torch.where(end.isnan(), found, end)


def _rays(rho: Tensor) -> tuple[Tensor, Tensor]:
    """v and w, divided by e^ρ where ρ > 0, so that nothing overflows; ``(..., 3)`` each for ρ ``(...)``."""
    positive = rho > 0
    e, one = (-rho.abs()).exp(), torch.ones_like(rho)
    v = torch.stack([rho, one, e], dim=-1)
    w = torch.stack([e, (1 - rho) * e, -one], dim=-1)
    v = torch.where(positive.unsqueeze(-1), torch.stack([rho * e, e, one], dim=-1), v)
    w = torch.where(positive.unsqueeze(-1), torch.stack([one, 1 - rho, -e], dim=-1), w)
    return v, w


def _boundary(rho: Tensor, r: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """p, the directions v and w as `_rays` has them, and the coefficients of p and d on them."""
    positive = rho > 0
    e = (-rho.abs()).exp()
    scale = rho * (rho - 1) + 1
    first, second = ((rho - 1) * r + s) / scale, (r - rho * s) / scale
    v, w = _rays(rho)
    # Of two formulas for each coefficient the one that does not cancel.
    on_v = torch.where(positive, t + e * second, first).clamp_min(0)
    on_w = torch.where(positive, second, torch.where(t < 0, e * first - t, second / e)).clamp_min(0)
    # Where ρ ≤ 0, x and y are u's but for a small part.
    p = torch.stack([r - on_w * e, s - on_w * (1 - rho) * e, first * e], dim=-1)
    p = torch.where(positive.unsqueeze(-1), on_v.unsqueeze(-1) * v, p)
    return p, v, w, on_v, on_w


def _to_boundary(u: Tensor, inside: Tensor, polar: Tensor) -> Tensor:
    """The distance from points ``(B, cones, 3)`` of K or K° to the boundary.

    The supporting planes have the normals w(ρ) and v(ρ). In K, ⟨−w(ρ), u⟩ has its minimum t − s e^(r/s) at
    ρ = r/s; as ‖w‖ rises the quotient's minimum is beyond. In K°, ⟨−v(ρ), u⟩ e^−ρ has its own, which is
    −t − r e^(s/r − 1), at ρ = 1 − s/r; as ‖v‖ e^−ρ falls the quotient's is before. At the ends of the curves
    are the planes s = 0 and t = 0, and r = 0 and t = 0.
    """
    proper = (inside & (u[..., 1] > 0)) | (polar & (u[..., 0] > 0))
    r, s, t = torch.where(proper.unsqueeze(-1), u, u.new_ones(3)).unbind(-1)  # any that keeps NaN away
    slope = torch.where(polar, s / r - 1, r / s)
    # By the formulas that decide the branch, so that it is zero on the boundary.
    slack = torch.where(polar, -t - r * slope.exp(), t - s * slope.exp()).clamp_min(0)
    rho = torch.where(polar, -slope, slope).clamp(-_LARGEST, _LARGEST)

    def normal(rho: Tensor, polar: Tensor) -> Tensor:
        v, w = _rays(rho)
        return torch.where(polar.unsqueeze(-1), v, w)

    def height(rho: Tensor) -> Tensor:
        n = normal(rho, polar.unsqueeze(-1))
        return -(torch.stack([r, s, t], dim=-1).unsqueeze(-2) * n).sum(-1) / n.norm(dim=-1)

    # The slack of K is ⟨−w, u⟩ and that of K° ⟨−v, u⟩ e^−ρ; the normals are divided by e^ρ where ρ > 0.
    scale = torch.where(polar, rho.clamp_max(0), -rho.clamp_min(0)).exp()
    first = slack * scale / normal(rho, polar).norm(dim=-1)
    centre = torch.where(polar, rho.clamp_max(_PLANES), rho.clamp_min(-_PLANES))
    low = torch.where(polar, centre.clamp_max(-_PLANES), centre)
    high = torch.where(polar, centre, centre.clamp_min(_PLANES))
    found = torch.minimum(first, lowest(height, low, centre, high).clamp_min(0))
    ends = torch.where(polar, u[..., 0], u[..., 1])
    return torch.minimum(found, torch.minimum(ends, u[..., 2].abs()))
