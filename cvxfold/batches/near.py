"""Whether a look at a tensor's values is free: on the CPU. Everywhere else the host waits for the device.

Near, a batch shrinks as its instances are done, and loops end as soon as the last one is. Far, shapes stay,
masks keep what is done where it is, and loops look seldom, at everything they want to know at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def is_near(tensor: Tensor) -> bool:
    """Whether a tensor is where the program runs."""
    return tensor.device.type == "cpu"


def fetched(*values: Tensor) -> Sequence[Tensor]:
    """The same numbers on the host, after one wait for all.

    Args:
        values: at least one, on one device, of any shapes; floating or boolean, or integers below 2⁵³.
    """
    if is_near(values[0]):
        return values
    flat = torch.cat([value.detach().reshape(-1).double() for value in values]).cpu()
    parts = flat.split([value.numel() for value in values])
    return [part.view(value.shape).to(value.dtype) for part, value in zip(parts, values, strict=True)]


def places(mask: Tensor) -> Tensor:
    """The positions that a mask ``(b,)`` names, in order; how many there are is waited for."""
    return mask.nonzero().squeeze(-1)


def parted(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The positions that a mask ``(b,)`` names, and the others, each in order, after one wait."""
    if is_near(mask):
        return places(mask), places(~mask)
    order, count = (~mask).byte().argsort(stable=True), int(mask.sum())
    return order[:count], order[count:]


def places_and(mask: Tensor, flag: Tensor) -> tuple[Tensor, bool]:
    """The positions that a mask ``(b,)`` names, and a flag ``()``, after one wait."""
    if is_near(mask):
        return places(mask), bool(flag)
    order = (~mask).byte().argsort(stable=True)
    count, told = fetched(torch.stack([mask.sum(), flag.long()]))[0].tolist()
    return order[:count], bool(told)


def some(*masks: Tensor) -> Sequence[bool]:
    """Whether each of several masks, of any shapes, names anybody; after one wait."""
    return fetched(torch.stack([mask.any() for mask in masks]))[0].tolist()


class Later:
    """Numbers on their way to the host: whoever looks at them later does not wait for what came after them.

    Args:
        numbers: of a few entries.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._here = numbers.detach().to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def get(self) -> Tensor:
        """The numbers, on the CPU."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._here
