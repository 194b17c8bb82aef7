"""The bytes that tensors hold during a computation, on any device."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Ledger(Protocol):
    """Bytes of tensors above those before the computation began."""

    @property
    def now(self) -> int:
        """What lives."""
        ...

    @property
    def peak(self) -> int:
        """The most that lived at once, since the beginning or the last :meth:`mark`."""
        ...

    def mark(self) -> None:
        """Begin a new peak, from what lives now."""
        ...


class _Watch(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed.

    PyTorch keeps a storage's Python object for as long as the storage lives, so its end can be seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def mark(self) -> None:
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id(storage) for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if id(storage) not in known and id(storage) not in self._alive:
                self._add(storage)
        return out

    def _add(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()

        def freed(_: Any) -> None:
            self._alive.pop(key, None)
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


class _CudaWatch:
    """The same by the counters of CUDA's allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.mark()
        self._before = torch.cuda.memory_allocated(device)

    @property
    def now(self) -> int:
        torch.cuda.synchronize(self._device)
        return torch.cuda.memory_allocated(self._device) - self._before

    @property
    def peak(self) -> int:
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def mark(self) -> None:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)


def _storages(tree: Any) -> list[Any]:
    return [
        leaf.untyped_storage()
        for leaf in tree_iter(tree)
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided
    ]


@contextmanager
def allocations(device: torch.device) -> Iterator[Ledger]:
    """Count the bytes of tensors within a ``with`` block.

    On CUDA as the allocator counts them. Elsewhere every storage that an operation returns is counted;
    what a library holds for itself inside of one operation, and autograd's own records (about ten
    kilobytes an unrolled iteration, whatever the size of the tensors), are not.

    Args:
        device: where the computation runs.
    """
    if device.type == "cuda":
        yield _CudaWatch(device)
        return
    with _Watch() as watch:
        yield watch


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Bytes of tensors at the peak of a call, above those before it; its result is dropped."""
    with allocations(device) as ledger:
        function()
        return ledger.peak
