"""Patterns of tensors, from which memory is had faster than from shapes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cvxfold.compat.functorch import lasting

_CPU = torch.device("cpu")


def pattern_of(shape: Sequence[int], device: torch.device = _CPU) -> Tensor:
    """Of a tensor of float64 on a device, row by row, for ``torch.empty_like``; itself it is one number.

    It says dtype and device without words, which ``torch.empty`` takes most of its time to read, and does not
    mind a default device.
    """
    with lasting():
        return torch.empty((), dtype=torch.float64, device=device).expand(tuple(shape))
