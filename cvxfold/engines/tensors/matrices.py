"""F linearized at one small instance's solution, with its products as matrices.

A diagnosis takes some hundred products of Φ and of its approximate inverse. Each is a dozen small operations
by the parts that they are made of, and one by a matrix, which that dozen makes once, of all unit vectors.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.engines.tensors.linearization import SplittingLinearization
from cvxfold.gradient.linearization import Kinks

_LARGEST = 128  # rows of u


@dataclass(frozen=True)
class LinearizationInMatrices(SplittingLinearization):
    """Φ of the splitting operator at the state of one instance whose cones are half-lines and zeros."""

    @cached_property
    def _transposed(self) -> Tensor:
        """Φ: what Φᵀ makes of the unit vectors, row by row, ``(k, k)``."""
        return super().vjp(self._units)

    @property
    def matrix(self) -> Tensor:
        """Φ, ``(1, k, k)``."""
        return self._transposed.unsqueeze(0)

    @cached_property
    def _inverse(self) -> Tensor:
        """The transpose of the approximate inverse, ``(k, k)``."""
        return super().inverse(self._units)

    @property
    def _units(self) -> Tensor:
        u = self.u
        return torch.eye(u.shape[1], dtype=u.dtype, device=u.device)

    @cached_property
    def _offset(self) -> Tensor:
        return super().offset()

    @cached_property
    def _kinks(self) -> Kinks:
        return super().kinks()

    def offset(self) -> Tensor:
        """δu, computed once."""
        return self._offset

    def kinks(self) -> Kinks:
        """Margins, computed once."""
        return self._kinks

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀ w."""
        return w @ self._transposed

    def jvp(self, v: Tensor) -> Tensor:
        """Φ v."""
        return v @ self._transposed.mT

    def inverse(self, r: Tensor) -> Tensor:
        """(I − Φ)⁻¹ r, by the regularized factor of the finish."""
        return r @ self._inverse

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """(I − Φᵀ)⁻¹ r, by the same."""
        return r @ self._inverse.mT

    def take(self, index: Tensor) -> SplittingLinearization:
        """Keep the instances ``index`` ``(b,)``: the one that there is."""
        return self if len(index) == 1 else super().take(index)


def in_matrices(phi: SplittingLinearization) -> SplittingLinearization:
    """The same linearization ready for many products."""
    batch, rows = phi.u.shape
    dims = phi.splitting.program.cone.dims
    small = batch == 1 and rows <= _LARGEST and dims.zero + dims.nonnegative == rows
    if not small or not is_near(phi.u):
        return phi
    return LinearizationInMatrices(phi.program, phi.at, phi.du, phi.epsilon)
