"""Index arrays that stay on every device that has used them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


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
