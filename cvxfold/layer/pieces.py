"""A batch in pieces: worked on together or, where memory does not suffice, in halves, and joined again."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from cvxfold.errors import OutOfMemoryError

T = TypeVar("T")

ALONG = "along"  # metadata of a field: the dimension of its tensor that counts instances, unless the first
_SIGNS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
# n × n and m × n matrices of an instance that live at once in a Newton step: P, M, its factor, the Gram
# matrices, H and its factor; A, its weighted rows.
_SQUARE, _TALL = 8, 3


@dataclass(frozen=True)
class Piece(Generic[T]):
    """What was found for the instances ``rows`` ``(b,)`` of a batch."""

    rows: Tensor
    value: T

    def is_all_of(self, batch: int) -> bool:
        """Whether a batch of that size is this piece."""
        return len(self.rows) == batch


def in_pieces(
    rows: Tensor,
    work: Callable[[Tensor], T],
    size: Callable[[], tuple[int, int]],
    release: Callable[[], object] = lambda: None,
) -> list[Piece[T]]:
    """Work on the instances ``rows`` ``(b,)`` together, or in halves where memory does not suffice.

    Args:
        rows: which.
        work: on some of them.
        size: variables and rows of an instance, for the message where not even one fits.
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


def joined(pieces: Sequence[Piece[T]], blank: T, batch: int) -> T:
    """What was found for a batch: a dataclass whose tensors, of B instances, have those of the pieces.

    Args:
        pieces: dataclasses of the same kind, of b instances.
        blank: what stands for the instances of none of them; also for what is no tensor.
        batch: B.
    """
    if len(pieces) == 1 and pieces[0].is_all_of(batch):
        return pieces[0].value
    changed: dict[str, Any] = {}
    for field in fields(blank):  # pyright: ignore[reportArgumentType]
        whole = getattr(blank, field.name)
        parts = [Piece(piece.rows, getattr(piece.value, field.name)) for piece in pieces]
        if isinstance(whole, Tensor):
            changed[field.name] = whole.clone()
            for part in parts:
                changed[field.name].index_copy_(field.metadata.get(ALONG, 0), part.rows, part.value)
        elif is_dataclass(whole):
            changed[field.name] = joined(parts, whole, batch)
    return replace(blank, **changed)  # pyright: ignore[reportArgumentType, reportReturnType, reportCallIssue]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the system or the device had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def bytes_needed(n: int, m: int, instances: int = 1) -> int:
    """About what solving takes, for instances with matrices of their own.

    Args:
        n, m: variables and rows after presolve.
        instances: solved at once.
    """
    return 8 * instances * (_SQUARE * n * n + _TALL * m * n)


def _too_large(n: int, m: int, error_message: str) -> OutOfMemoryError:
    """What to raise where not even a single instance fits."""
    gigabytes, words = bytes_needed(n, m) / 2**30, [*error_message.splitlines(), "nothing"][0]
    return OutOfMemoryError(
        f"out of memory: one instance alone (n = {n:,} variables, m = {m:,} rows) needs about "
        f"{gigabytes:.3g} GiB, and there is less; the allocator said: {words}"
    )
