"""Parameter tensors → stored entries of P, q, A and b, as differentiable torch operations.

A datum that no batched parameter reaches keeps a leading dimension of 1, whatever the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from cvxfold.canonical import Canonical, ParameterSpec

_DENSE = 0.1  # above this density one matrix product beats gathering the entries one by one


@dataclass(frozen=True)
class ProgramValues:
    """Stored entries of a batch of cone programs; every leading dimension is 1 (shared) or B.

    Args:
        P: ``(1|B, nnz P)``. q: ``(1|B, n)``. A: ``(1|B, nnz A)``. b: ``(1|B, nnz b)``.
    """

    P: Tensor
    q: Tensor
    A: Tensor
    b: Tensor

    def __iter__(self):
        """Iterate over P, q, A, b."""
        return iter((self.P, self.q, self.A, self.b))


class Parametrization:
    """The affine map of one canonical problem from parameters to data, on one device.

    Args:
        canonical: the canonicalized problem.
        device: where the parameters live.
    """

    def __init__(self, canonical: Canonical, device: torch.device) -> None:
        self._specs = canonical.parameters
        self._maps = [
            _AffineMap(matrix, canonical.parameters, device)
            for matrix in (canonical.P, canonical.q, canonical.A, canonical.b)
        ]
        self._triangles = [
            None if spec.triangle is None else tuple(torch.as_tensor(i, device=device) for i in spec.triangle)
            for spec in canonical.parameters
        ]

    def __call__(self, parameters: Sequence[Tensor]) -> ProgramValues:
        """Evaluate the data.

        Args:
            parameters: in the layer's order, each ``(1|B, *shape)``, of one floating dtype.
        """
        columns = [
            self._column(parameter, spec, triangle)
            for parameter, spec, triangle in zip(parameters, self._specs, self._triangles, strict=True)
        ]
        return ProgramValues(*(affine(columns) for affine in self._maps))

    @staticmethod
    def _column(parameter: Tensor, spec: ParameterSpec, triangle: tuple[Tensor, ...] | None) -> Tensor:
        """The parameter's entries in the parameter vector, ``(1|B, size)``, column-major."""
        value = parameter.log() if spec.log else parameter
        if triangle is not None:
            return value[:, triangle[0], triangle[1]]
        return value.permute(0, *range(value.ndim - 1, 0, -1)).reshape(value.shape[0], math.prod(spec.shape))


class _AffineMap:
    """data = constant + Σⱼ Sⱼ pⱼ, one sparse block Sⱼ for each parameter that has entries here."""

    def __init__(self, matrix: sp.csr_array, specs: Sequence[ParameterSpec], device: torch.device) -> None:
        by_column = sp.csc_array(matrix)
        constant = np.asarray(by_column[:, [by_column.shape[1] - 1]].todense()).reshape(1, -1)
        self._constant = torch.as_tensor(constant, device=device)
        self._blocks = [
            (number, _Block(by_column[:, spec.columns], device))
            for number, spec in enumerate(specs)
            if by_column[:, spec.columns].nnz
        ]

    def __call__(self, columns: Sequence[Tensor]) -> Tensor:
        """``(1|B, rows)``; a term that is shared by the batch is added up before it meets a batched one."""
        shared: Tensor = self._constant
        batched: Tensor | None = None
        for number, block in self._blocks:
            column = columns[number]
            if column.shape[0] == 1:
                shared = block.add_to(shared, column)
            else:
                start = column.new_zeros(column.shape[0], shared.shape[1]) if batched is None else batched
                batched = block.add_to(start, column)
        return shared if batched is None else batched + shared


class _Block:
    """One parameter's S: gathered entry by entry, or as a matrix where it is dense."""

    def __init__(self, block: sp.csc_array, device: torch.device) -> None:
        self._dense: Tensor | None = None
        rows, columns = block.shape
        entries = sp.coo_array(block)
        if entries.nnz > _DENSE * rows * columns and entries.nnz > 2 * max(rows, columns):
            self._dense = torch.as_tensor(block.toarray().T.copy(), device=device)
            return
        places = [torch.as_tensor(np.asarray(c, dtype=np.int64), device=device) for c in entries.coords]
        self._rows, self._columns = places
        self._weights = torch.as_tensor(entries.data, device=device)

    def add_to(self, target: Tensor, column: Tensor) -> Tensor:
        if self._dense is not None:
            return target + column @ self._dense
        return target.index_add(1, self._rows, column.index_select(1, self._columns) * self._weights)
