"""The product of the cones of one problem: slices of one m-vector."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones.base import Cone, Derivative, SpectralFunction
from cvxfold.cones.dims import ConeDims
from cvxfold.cones.exponential import Exponential
from cvxfold.cones.orthant import DiagonalDerivative, Nonnegative, Zero
from cvxfold.cones.power import Power
from cvxfold.cones.second_order import SecondOrder, SecondOrderDerivative
from cvxfold.cones.semidefinite import Semidefinite

_HOST = torch.device("cpu")


@dataclass(frozen=True)
class ProductDerivative(Batched):
    """Block-diagonal D: one derivative for each slice of rows."""

    parts: tuple[tuple[slice, Derivative], ...]

    def apply(self, f: SpectralFunction, v: Tensor) -> Tensor:
        """f(D) v, block by block, for ``v`` of shape ``(B, m)`` or ``(B, m, k)``."""
        if not self.parts:
            return v
        if self._diagonal is not None:
            return self._diagonal.apply(f, v)
        return torch.cat([part.apply(f, v[:, rows]) for rows, part in self.parts], dim=1)

    def spread(self, f: SpectralFunction, terms: Tensor, signs: Tensor) -> Tensor:
        """f(D) v of a v that is as large as its ``terms`` ``(B, m)``, block by block; signs: ``(m,)``."""
        if not self.parts:
            return terms
        parts = [part.spread(f, terms[:, rows], signs[rows]) for rows, part in self.parts]
        return torch.cat(parts, dim=1)

    def change(self, other: "ProductDerivative", v: Tensor) -> Tensor:
        """(D' − D) v for another D' and ``v`` ``(B, m)``."""
        if not self.parts:
            return v
        pairs = zip(self.parts, other.parts, strict=True)
        return torch.cat([_changed(D, then, v[:, rows]) for (rows, D), (_, then) in pairs], dim=1)

    def violation(self, z: Tensor, v: Tensor) -> Tensor:
        """(I − D) z − D v for ``z`` and ``v`` ``(B, m)``, which is zero of an adjoint."""
        if not self.parts:
            return v
        return torch.cat([_violated(D, z[:, rows], v[:, rows]) for rows, D in self.parts], dim=1)

    @cached_property
    def _diagonal(self) -> DiagonalDerivative | None:
        """All of it where all parts are diagonal."""
        diagonals = [part.d for _, part in self.parts if isinstance(part, DiagonalDerivative)]
        if len(diagonals) < len(self.parts):
            return None
        return DiagonalDerivative(diagonals[0] if len(diagonals) == 1 else torch.cat(diagonals, dim=1))


class ProductCone:
    """K = K₁ × K₂ × …, each factor on its own slice of rows.

    Neighbouring cones of one kind and size are one factor, projected in one call.

    Args:
        dims: the sizes of the cones.
    """

    def __init__(self, dims: ConeDims) -> None:
        self.dims = dims
        self.dim = dims.rows
        self.parts = tuple(_slices(_factors(dims)))
        self._blocks: dict[torch.device, Tensor] = {}
        self._pairs: dict[torch.device, Tensor] = {}
        self._intervals: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def project(self, u: Tensor, rough: bool = False) -> Tensor:
        """Π_K(u) for ``u`` of shape ``(B, m)``; ``rough``: on curved cones by a few steps, without a look."""
        if not self.parts:
            return u
        if not self.dims.blocks and self.dims.zero:
            return u.clamp(*self._interval(u))
        return torch.cat([_projected(cone, u[:, rows], rough) for rows, cone in self.parts], dim=1)

    def _interval(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What separable cones are: the least and the largest of each row, ``(m,)``; kept by device."""
        key = (like.device, like.dtype)
        if key not in self._intervals:
            with torch.inference_mode(False):
                low = torch.zeros(self.dim, dtype=like.dtype, device=like.device)
                high = torch.full_like(low, torch.inf)
                high[: self.dims.zero] = 0.0
            self._intervals[key] = low, high
        return self._intervals[key]

    def interior(self, u: Tensor) -> Tensor:
        """A vector inside both K and K*, ``(m,)``."""
        return torch.cat([cone.interior(u) for _, cone in self.parts]) if self.parts else u[0]

    def derivative(self, u: Tensor, rough: bool = False) -> ProductDerivative:
        """DΠ_K(u) for ``u`` of shape ``(B, m)``; ``rough`` as for the projection."""
        parts = ((rows, _differentiated(cone, u[:, rows], rough)) for rows, cone in self.parts)
        return ProductDerivative(tuple(parts))

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """D²Π_K(u)[v, w], factor by factor; all ``(B, m)``."""
        if not self.parts:
            return u
        parts = [cone.second_derivative(u[:, rows], v[:, rows], w[:, rows]) for rows, cone in self.parts]
        return torch.cat(parts, dim=1)

    def margin(self, u: Tensor) -> Tensor:
        """Each block's own distance to a kink, on its rows; ``(B, m)``."""
        if not self.parts:
            return u
        return torch.cat([cone.margin(u[:, rows]) for rows, cone in self.parts], dim=1)

    def blocks(self, device: torch.device = _HOST) -> Tensor:
        """For each row the number of the block it belongs to, ``(m,)``; copied to a device once.

        Rows of one non-separable cone share a block; every other row is a block of its own. A positive
        diagonal scaling that is constant on blocks maps K onto itself.
        """
        if device not in self._blocks:
            with torch.inference_mode(False):  # made under it they could not serve a backward pass later
                self._blocks[device] = self._numbers().to(device)
        return self._blocks[device]

    def pairs(self, device: torch.device = _HOST) -> Tensor:
        """The first row of each second-order cone that has two, int64; copied to a device once."""
        if device not in self._pairs:
            first = (
                row
                for rows, cone in self.parts
                if isinstance(cone, SecondOrder) and cone.size > 1
                for row in range(rows.start, rows.stop, cone.size)
            )
            with torch.inference_mode(False):
                self._pairs[device] = torch.tensor(list(first), dtype=torch.long, device="cpu").to(device)
        return self._pairs[device]

    def _numbers(self) -> Tensor:
        separable = self.dims.separable
        sizes = torch.tensor(self.dims.blocks, dtype=torch.long, device="cpu")
        cones = separable + torch.arange(len(sizes), device="cpu")
        return torch.cat([torch.arange(separable, device="cpu"), cones.repeat_interleave(sizes)])


def _projected(cone: Cone, u: Tensor, rough: bool) -> Tensor:
    return cone.project(u, rough) if isinstance(cone, Exponential | Power) else cone.project(u)


def _differentiated(cone: Cone, u: Tensor, rough: bool) -> Derivative:
    return cone.derivative(u, rough) if isinstance(cone, Exponential | Power) else cone.derivative(u)


def _changed(D: Derivative, then: Derivative, v: Tensor) -> Tensor:
    if isinstance(D, SecondOrderDerivative) and isinstance(then, SecondOrderDerivative):
        return D.change(then, v)
    return then.apply(_itself, v) - D.apply(_itself, v)


def _violated(D: Derivative, z: Tensor, v: Tensor) -> Tensor:
    if isinstance(D, SecondOrderDerivative):
        return D.violation(z, v)
    return D.apply(lambda d: 1 - d, z) - D.apply(_itself, v)


def _itself(d: Tensor) -> Tensor:
    return d


def _factors(dims: ConeDims) -> list[Cone]:
    factors: list[Cone] = []
    if dims.zero:
        factors.append(Zero(dims.zero))
    if dims.nonnegative:
        factors.append(Nonnegative(dims.nonnegative))
    for size, count in _runs(dims.second_order):
        factors.append(SecondOrder(count, size))
    for order, count in _runs(dims.semidefinite):
        factors.append(Semidefinite(count, order))
    if dims.exponential:
        factors.append(Exponential(dims.exponential))
    if dims.power:
        factors.append(Power(dims.power))
    return factors


def _runs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Lengths of the runs of equal values: (3, 3, 5) gives [(3, 2), (5, 1)]."""
    runs: list[tuple[int, int]] = []
    for size in sizes:
        if runs and runs[-1][0] == size:
            runs[-1] = (size, runs[-1][1] + 1)
        else:
            runs.append((size, 1))
    return runs


def _slices(factors: Sequence[Cone]) -> list[tuple[slice, Cone]]:
    placed, start = [], 0
    for cone in factors:
        placed.append((slice(start, start + cone.dim), cone))
        start += cone.dim
    return placed


def largest_of_block(v: Tensor, cone: ProductCone) -> Tensor:
    """v ≥ 0 ``(B, m)`` with the largest entry of each row's block in its place."""
    if not cone.dim or len(cone.dims.blocks) == 0:
        return v
    blocks, found = cone.blocks(v.device), torch.zeros_like(v)  # there are as many rows as blocks, or more
    return found.scatter_reduce(1, blocks.expand_as(v), v, "amax").index_select(1, blocks)
