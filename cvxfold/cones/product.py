"""The product of the cones of one problem: slices of one m-vector."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.cones.base import Cone, Derivative, SpectralFunction
from cvxfold.cones.dims import ConeDims
from cvxfold.cones.exponential import Exponential
from cvxfold.cones.orthant import Nonnegative, Zero
from cvxfold.cones.power import Power
from cvxfold.cones.second_order import SecondOrder
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
        return torch.cat([part.apply(f, v[:, rows]) for rows, part in self.parts], dim=1)


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

    def project(self, u: Tensor) -> Tensor:
        """Π_K(u) for ``u`` of shape ``(B, m)``."""
        if not self.parts:
            return u
        return torch.cat([cone.project(u[:, rows]) for rows, cone in self.parts], dim=1)

    def interior(self, u: Tensor) -> Tensor:
        """A vector inside both K and K*, ``(m,)``."""
        return torch.cat([cone.interior(u) for _, cone in self.parts]) if self.parts else u[0]

    def derivative(self, u: Tensor) -> ProductDerivative:
        """DΠ_K(u) for ``u`` of shape ``(B, m)``."""
        return ProductDerivative(tuple((rows, cone.derivative(u[:, rows])) for rows, cone in self.parts))

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

    def _numbers(self) -> Tensor:
        separable = self.dims.separable
        sizes = torch.tensor(self.dims.blocks, dtype=torch.long, device="cpu")
        cones = separable + torch.arange(len(sizes), device="cpu")
        return torch.cat([torch.arange(separable, device="cpu"), cones.repeat_interleave(sizes)])


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
