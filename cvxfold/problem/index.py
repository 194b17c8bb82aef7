"""Index arrays that stay on every device that has used them."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


def at(values: Tensor, index: Tensor) -> Tensor:
    """The entries ``index`` ``(k,)`` of each row of ``values`` ``(b, n)``, ``(b, k)``.

    PyTorch takes four times as long for those of one row as for those of a vector.
    """
    if len(values) == 1:
        return values.squeeze(0).index_select(0, index).unsqueeze(0)
    return values.index_select(1, index)


class Index:
    """An array of indices, copied to a device once.

    Args:
        array: of integers (or, for the numbers that go with indices, of floats).
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = np.ascontiguousarray(array)
        self._on: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The array as a tensor on ``device``."""
        if device not in self._on:
            with torch.inference_mode(False):  # made under it they could not serve a backward pass later
                self._on[device] = torch.as_tensor(self.array, device=device)
        return self._on[device]

    def __len__(self) -> int:
        return len(self.array)

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.array,)


class SparseMap:
    """A sparse matrix that stays on every device that has used it.

    Args:
        matrix: ``(rows, columns)``.
    """

    def __init__(self, matrix: sp.csr_array) -> None:
        places: Any = sp.coo_array(matrix)
        self._columns: int = places.shape[1]
        self._row, self._column = (Index(each.astype(np.int64)) for each in places.coords)
        self._factors = Index(places.data)

    def transposed(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The transpose times v ``(B, rows)``, ``(B, columns)``, and the largest of its terms, ``(B,)``."""
        terms = at(v, self._row.on(v.device)) * self._factors.on(v.device)
        sums = v.new_zeros(len(v), self._columns).index_add(1, self._column.on(v.device), terms)
        return sums, terms.abs().amax(1) if terms.shape[1] else v.new_zeros(len(v))
