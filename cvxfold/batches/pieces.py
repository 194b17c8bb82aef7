"""A batch worked on together or, where memory does not suffice, in halves."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from cvxfold.batches.records import Piece
from cvxfold.errors import OutOfMemoryError

T = TypeVar("T")

_SIGNS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


def in_pieces(
    rows: Tensor,
    work: Callable[[Tensor], T],
    size: Callable[[], tuple[int, int, int]],
    release: Callable[[], object] = lambda: None,
) -> list[Piece[T]]:
    """Work on the instances ``rows`` ``(b,)`` together, or in halves where memory does not suffice.

    Args:
        rows: which.
        work: on some of them.
        size: variables, rows and bytes of an instance, for the message where not even one fits.
        release: gives back what is kept for later, before the halves are tried.

    Raises:
        OutOfMemoryError: there is not enough memory for a single instance.
    """
    try:
        return [Piece(rows, work(rows))]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = str(error)
    # Out of the handler: the traceback would keep what the attempt had allocated.
    release()
    gc.collect()
    if rows.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(rows) == 1:
        raise _too_large(*size(), message)
    middle = len(rows) // 2
    return [
        piece for half in (rows[:middle], rows[middle:]) for piece in in_pieces(half, work, size, release)
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the system or the device had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _too_large(n: int, m: int, size: int, error_message: str) -> OutOfMemoryError:
    """What to raise where not even a single instance fits."""
    gigabytes, words = size / 2**30, [*error_message.splitlines(), "nothing"][0]
    return OutOfMemoryError(
        f"out of memory: one instance alone (n = {n:,} variables, m = {m:,} rows) needs about "
        f"{gigabytes:.3g} GiB, and there is less; the allocator said: {words}"
    )
