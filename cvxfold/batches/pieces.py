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
    least: Callable[[T], T] = lambda found: found,
) -> list[Piece[T]]:
    """Work on the instances ``rows`` ``(b,)`` together, or in halves where memory does not suffice.

    Args:
        rows: which.
        work: on some of them.
        size: variables, rows and bytes of an instance, for the message where not even one fits.
        release: gives back what is kept for later, before the halves are tried.
        least: what must be kept of a part, so that there is room for the others.

    Raises:
        OutOfMemoryError: there is not enough memory for one instance beside what is kept of the others.
    """
    found: list[Piece[T]] = []
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        try:
            found.append(Piece(part, work(part) if len(part) == len(rows) else least(work(part))))
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        # Out of the handler: the traceback would keep what the attempt had allocated.
        release()
        gc.collect()
        if rows.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(part) == 1:
            raise _too_large(size(), message, sum(len(piece.rows) for piece in found))
        middle = len(part) // 2
        waiting += [part[middle:], part[:middle]]
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the system or the device had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _too_large(size: tuple[int, int, int], error_message: str, done: int) -> OutOfMemoryError:
    """What to raise where no single instance fits beside the ``done`` ones."""
    (n, m, count), words = size, [*error_message.splitlines(), "nothing"][0]
    one = f"(n = {n:,} variables, m = {m:,} rows) needs about {count / 2**30:.3g} GiB"
    if done:
        return OutOfMemoryError(
            f"out of memory: beside {done:,} instances that are done, with what is kept of them, there is no "
            f"room for one more, which {one}; use a smaller batch; the allocator said: {words}"
        )
    return OutOfMemoryError(
        f"out of memory: one instance alone {one}, and there is less; the allocator said: {words}"
    )
