"""Memory for numbers that the compiled module reads and fills."""

import torch
from torch import Tensor

CPU = torch.device("cpu")

_ALIGNMENT = 64  # bytes, of the widest pack


def empty(*shape: int, device: torch.device = CPU) -> Tensor:
    """Memory for numbers, on the CPU unless asked otherwise, whatever torch's default device.

    Raises:
        MemoryError: there is none.
    """
    try:
        return torch.empty(shape, dtype=torch.float64, device=device)
    except RuntimeError as error:
        raise MemoryError(f"out of memory: {error}") from error


def empty_like(pattern: Tensor) -> Tensor:
    """Memory for numbers, faster than by a shape; see :func:`cvxfold.compat.patterns.pattern_of`.

    Raises:
        MemoryError: there is none.
    """
    try:
        return torch.empty_like(pattern)
    except RuntimeError as error:
        raise MemoryError(f"out of memory: {error}") from error


def aligned(pattern: Tensor) -> Tensor:
    """Memory for numbers, ``(size,)``, that begins where a pack may."""
    memory = empty_like(pattern)
    if memory.data_ptr() % _ALIGNMENT == 0:  # as PyTorch's allocator has it
        return memory
    size = len(pattern)
    memory = empty(size + _ALIGNMENT // 8)
    over = -memory.data_ptr() % _ALIGNMENT // 8
    return memory[over : over + size]
