"""Out of memory: how to tell, what one instance needs, and what to say."""

import gc

import torch

from cvxfold.errors import OutOfMemoryError

_SIGNS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
# n × n and m × n matrices of an instance that live at once in a Newton step: P, M, its factor, the Gram
# matrices, H and its factor; A, its weighted rows.
_SQUARE, _TALL = 8, 3


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the system or the device had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def release(device: torch.device) -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def bytes_needed(n: int, m: int, instances: int = 1) -> int:
    """About what solving takes, for instances with matrices of their own.

    Args:
        n, m: variables and rows after presolve.
        instances: solved at once.
    """
    return 8 * instances * (_SQUARE * n * n + _TALL * m * n)


def too_large(n: int, m: int, error_message: str) -> OutOfMemoryError:
    """What to raise where not even a single instance fits."""
    gigabytes, words = bytes_needed(n, m) / 2**30, [*error_message.splitlines(), "nothing"][0]
    return OutOfMemoryError(
        f"out of memory: one instance alone (n = {n:,} variables, m = {m:,} rows) needs about "
        f"{gigabytes:.3g} GiB, and there is less; the allocator said: {words}"
    )
