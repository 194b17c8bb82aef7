"""The first two rows of each second-order cone by their sum and difference, of which one may be small.

A cone 2ab ≥ ‖v‖² is one of (a + b, a − b, v) up to factors: so CVXPY states square roots and quotients. Where
b is small beside a, so is v, and u₁ = a − b is nearly all of z = (u₁, v). What depends on b alone is then the
difference of two numbers that are nearly equal, and v tells it more exactly than they do: with n = ‖z‖,

    n − |u₁| = ‖v‖²/(n + |u₁|)        1 − |u₁|/n = (n − |u₁|)/n

of which, for the sign σ of u₁ and between the branches of Π_K, there are made

    s₀ − σ s₁ = ½ (u₀ + n)(1 − |u₁|/n)        y₀ + σ y₁ = ½ R (n − u₀)(1 − |u₁|/n)

Ax + s = b on the rows' difference, with A's rows subtracted first, then fixes b to its own digits. The lanes
engine does the same (``kernels/pairs.hpp``).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones.second_order import SecondOrder
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_FLOOR = 1e-20  # of a cone's terms, where a pair has next to none


@dataclass(frozen=True)
class Pairs(Batched):
    """The pairs of rows of a batch of states, P of them in each instance.

    Args:
        splitting: the operator.
        sign: σ, ``(B, P)``. s: s₀ − σ s₁, ``(B, P)``. y: y₀ + σ y₁, ``(B, P)``.
    """

    splitting: Splitting
    sign: Tensor
    s: Tensor
    y: Tensor

    @classmethod
    def at(cls, splitting: Splitting, u: Tensor) -> "Pairs | None":
        """Of the states ``u`` ``(B, m)``; None where there is no cone with a pair."""
        signs, slacks, multipliers = [], [], []
        for rows, cone in splitting.program.cone.parts:
            if not isinstance(cone, SecondOrder) or cone.size < 2:
                continue
            t, head, rest = u[:, rows].reshape(len(u), cone.cones, cone.size).split([1, 1, cone.size - 2], -1)
            t, head, squares = t.squeeze(-1), head.squeeze(-1), rest.square().sum(-1)
            tiny, size = torch.finfo(u.dtype).tiny, head.abs()
            norm = (size.square() + squares).sqrt()
            turned = squares / ((norm + size) * norm).clamp_min(tiny)
            inside, polar = norm <= t, norm <= -t
            signs.append(torch.where(head >= 0, 1.0, -1.0).to(u.dtype))
            s = torch.where(inside, t - size, 0.5 * (t + norm) * turned)
            y = torch.where(polar, -t - size, 0.5 * (norm - t) * turned)
            slacks.append(torch.where(polar, 0.0, s))
            multipliers.append(torch.where(inside & ~polar, 0.0, y))
        if not signs:
            return None
        sign, s, y = (torch.cat(parts, -1) for parts in (signs, slacks, multipliers))
        R = splitting.R.index_select(1, splitting.program.cone.pairs(u.device))
        return cls(splitting, sign, s, y * R)

    @property
    def first(self) -> Tensor:
        """The first row of each pair, ``(P,)``."""
        return self.splitting.program.cone.pairs(self.sign.device)

    def small(self, v: Tensor) -> Tensor:
        """v₀ − σ v₁ of ``v`` ``(1|B, m)`` or ``(1|B, m, n)``; ``(B, P)`` or ``(B, P, n)``."""
        first, second, sign = self._parts(v)
        return first - sign * second

    def large(self, v: Tensor) -> Tensor:
        """v₀ + σ v₁, likewise."""
        first, second, sign = self._parts(v)
        return first + sign * second

    def _parts(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.first
        sign = self.sign.unsqueeze(-1) if v.ndim == 3 else self.sign
        return v.index_select(1, rows), v.index_select(1, rows + 1), sign

    def residual(self, x: Tensor) -> Tensor:
        """What x ``(B, n)`` leaves of Ax + s = b, ``(B, P)``."""
        program = self.splitting.program
        Ax = (self.small(program.A.values) * x.unsqueeze(1)).sum(-1)
        return Ax + (self.s - self.small(program.b))

    def terms(self, x: Tensor) -> Tensor:
        """What is added up in that, ``(B, P)``."""
        program = self.splitting.program
        Ax = (self.small(program.A.values) * x.unsqueeze(1)).abs().sum(-1)
        return Ax + self.s.abs() + self.small(program.b).abs()

    def written(self, v: Tensor, small: Tensor) -> Tensor:
        """``v`` ``(B, m)`` with v₀ − σ v₁ = ``small`` ``(B, P)``."""
        large = self.large(v)
        v = v.index_copy(1, self.first, 0.5 * (large + small))
        return v.index_copy(1, self.first + 1, 0.5 * self.sign * (large - small))

    def transposed(self, y: Tensor) -> Tensor:
        """Aᵀy for the multipliers y ``(B, m)``, ``(B, n)``."""
        return self._transposed(self.splitting.program.A.values, y, self.y, self.small(y))

    def transposed_terms(self, y: Tensor) -> Tensor:
        """What is added up in that, ``(B, n)``."""
        A, y_small, y_large = self.splitting.program.A.values, self.y.abs(), self.small(y).abs()
        with_sign, against = self.large(A).abs(), self.small(A).abs()
        by_pairs = (with_sign * y_small.unsqueeze(-1) + against * y_large.unsqueeze(-1)).sum(1)
        return self._beside(y.abs(), A.abs()) + 0.5 * by_pairs

    def _transposed(self, A: Tensor, y: Tensor, y_small: Tensor, y_large: Tensor) -> Tensor:
        with_sign, against = self.large(A), self.small(A)
        by_pairs = (with_sign * y_small.unsqueeze(-1) + against * y_large.unsqueeze(-1)).sum(1)
        return self._beside(y, A) + 0.5 * by_pairs

    def _beside(self, y: Tensor, A: Tensor) -> Tensor:
        """Aᵀy over the other rows."""
        rows = self.first
        y = y.index_fill(1, rows, 0.0).index_fill(1, rows + 1, 0.0)
        return (y.unsqueeze(-2) @ A).squeeze(-2)


def worst_pair(splitting: Splitting, point: Iterate, rows: Tensor) -> Tensor:
    """The largest residual of a pair over its own terms, ``(B,)``; ``rows`` ``(B, m)``: terms of the rows.

    At a cone's apex, where b has nothing, a pair has no terms but rounding of its rows, and nothing to tell.
    """
    pairs = Pairs.at(splitting, point.u)
    if pairs is None:
        return point.x.new_zeros(len(point.x))
    left = pairs.residual(point.x).abs()
    own, floor = pairs.terms(point.x), _FLOOR * rows.index_select(1, pairs.first)
    s, b = point.s.index_select(1, pairs.first), splitting.program.b
    idle = (s == 0) & (b.index_select(1, pairs.first) == 0) & (b.index_select(1, pairs.first + 1) == 0)
    rest = torch.where((left <= floor) | idle, 0.0, left - floor)
    return torch.where(rest == 0, rest, rest / own.clamp_min(torch.finfo(own.dtype).tiny)).amax(-1)
