"""Parameter tensors → stored entries of P, q, A and b, as differentiable torch operations.

A datum that no batched parameter reaches keeps a leading dimension of 1, whatever the batch.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from cvxfold.problem.index import at
from cvxfold.problem.structure import Canonical, ParameterSpec
from cvxfold.problem.values import ProgramValues

_DENSE = 0.1  # above this density one matrix product beats gathering the entries one by one


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
        used = {number for affine in self._maps for number in affine.parameters}
        self._idle = [number for number in range(len(self._specs)) if number not in used]
        self._places = [
            None if spec.places is None else torch.as_tensor(spec.places, device=device)
            for spec in canonical.parameters
        ]

    def __call__(self, parameters: Sequence[Tensor]) -> ProgramValues:
        """Evaluate the data.

        Args:
            parameters: in the layer's order, each ``(1|B, *raw_shape)``, of one floating dtype.
        """
        columns = [
            self._column(parameter, spec, places)
            for parameter, spec, places in zip(parameters, self._specs, self._places, strict=True)
        ]
        P, q, A, b = (affine(columns) for affine in self._maps)
        for number in self._idle:  # no datum depends on it, but its gradient is zero rather than None
            q = q + 0.0 * columns[number].sum(1, keepdim=True)
        return ProgramValues(P, q, A, b)

    @staticmethod
    def _column(parameter: Tensor, spec: ParameterSpec, places: Tensor | None) -> Tensor:
        """The parameter's entries in the parameter vector, ``(1|B, size)``."""
        value = parameter.log() if spec.log else parameter
        if places is not None:
            return at(value.reshape(value.shape[0], math.prod(spec.raw_shape)), places)
        return value.permute(0, *range(value.ndim - 1, 0, -1)).reshape(value.shape[0], math.prod(spec.shape))


class _AffineMap:
    """data = constant + Σⱼ Sⱼ pⱼ, one sparse block Sⱼ for each parameter that has entries here."""

    def __init__(self, matrix: sp.csr_array, specs: Sequence[ParameterSpec], device: torch.device) -> None:
        by_column: Any = sp.csc_array(matrix)
        constant = np.asarray(by_column[:, [-1]].todense()).reshape(1, -1)
        self._constant = torch.as_tensor(constant, device=device)
        blocks = [(number, by_column[:, spec.columns]) for number, spec in enumerate(specs)]
        self._blocks = [(number, _ParameterBlock(block, device)) for number, block in blocks if block.nnz]
        self.parameters = [number for number, _ in self._blocks]

    def __call__(self, columns: Sequence[Tensor]) -> Tensor:
        """``(1|B, rows)``; terms that are shared by the batch are added up before they meet batched ones."""
        total, batched = self._constant, []
        for number, block in self._blocks:
            column = columns[number]
            if column.shape[0] == 1:
                total = total + block(column)
            else:
                batched.append(block(column))
        return sum(batched, start=total)


class _ParameterBlock:
    """One parameter's S: gathered entry by entry, or as a matrix where it is dense."""

    def __init__(self, block: Any, device: torch.device) -> None:
        rows, columns = block.shape
        entries = sp.csr_array(block).tocoo()
        self._rows_in_all = rows
        self._dense: Tensor | None = None
        if entries.nnz > _DENSE * rows * columns and entries.nnz > 2 * max(rows, columns):
            self._dense = torch.as_tensor(block.toarray().T.copy(), device=device)
            return
        row_of, column_of = (np.asarray(place, dtype=np.int64) for place in entries.coords)
        self._one_each = np.array_equal(row_of, np.arange(rows))
        self._plain = bool((entries.data == 1.0).all())
        self._rows = torch.as_tensor(row_of, device=device)
        self._columns = torch.as_tensor(column_of, device=device)
        self._weights = torch.as_tensor(entries.data, device=device)

    def __call__(self, column: Tensor) -> Tensor:
        """S p for ``column`` ``(b, size)``; returns ``(b, rows)``."""
        if self._dense is not None:
            return column @ self._dense
        picked = at(column, self._columns)
        if not self._plain:
            picked = picked * self._weights
        if self._one_each:
            return picked
        return column.new_zeros(len(column), self._rows_in_all).index_add(1, self._rows, picked)
