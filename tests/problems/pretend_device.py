"""A device that is not there: tensors that hold CPU data, say they are elsewhere, and are counted.

With it faults that only a GPU would show are found on any machine: operations that mix tensors of the host
with those of the device, and what makes the host wait for the device, copies in either direction among them.
It says that it is the device "meta": beside the CPU the only kind that needs no driver and that automatic
differentiation serves.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")

# What PyTorch's CUDA kernels wait for: a number, or a shape, that the host must know.
_WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "repeat_interleave",
}  # fmt: skip
# Factorizations that look at an error flag before they return; those that end in _ex do not.
_CHECKED = {
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_eigvals",
    "_linalg_svd",
    "_linalg_slogdet",
    "linalg_eig",
}
_NO_LAUNCH = {
    "_unsafe_view",
    "lift_fresh",
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "_local_scalar_dense",
}


class MixedDevicesError(RuntimeError):
    """Tensors of the host and of the device in one operation."""


class DeviceTensor(torch.Tensor):
    """A tensor on the device; ``data_here`` is what it holds."""

    data_here: Tensor
    is_meta = False  # pyright: ignore[reportAssignmentType]  # it has values

    @staticmethod
    def __new__(cls, data: Tensor) -> "DeviceTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            data.shape,
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=DEVICE,
        )
        made.data_here = data
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, None)

    def new_tensor(self, *args: Any, **kwargs: Any) -> Any:
        """Numbers of the host on the device."""
        return torch.tensor(*args, **{"dtype": self.dtype, **kwargs}).to(DEVICE)

    def tolist(self) -> Any:
        """A copy to the host."""
        return self.cpu().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """An error, as on any device."""
        raise TypeError(f"numpy() of a tensor on the device, at {_place()}")


class PretendDevice(TorchDispatchMode):
    """While entered, what happens on the device is counted.

    Attributes:
        waits: how often the host waited for the device, or for a copy to it, by "what at where".
        launches: operations that the device was told to do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.launches = 0

    @staticmethod
    def put(tensor: Tensor, requires_grad: bool = False) -> Tensor:
        """A copy on the device; it is not counted."""
        return DeviceTensor(tensor.detach().clone()).requires_grad_(requires_grad)

    @staticmethod
    def get(tensor: Tensor) -> Tensor:
        """What a tensor on the device holds, not counted.

        Raises:
            AssertionError: it is not on the device.
        """
        held = tensor.detach()
        assert isinstance(held, DeviceTensor), f"expected a tensor on the device, got one on {tensor.device}"
        return held.data_here

    def begin(self) -> None:
        """Count from zero."""
        self.waits.clear()
        self.launches = 0

    @property
    def waited(self) -> int:
        """How often in all."""
        return sum(self.waits.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self)


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], device: PretendDevice | None) -> Any:
    """Do on the CPU what ``func`` would do on the device, if that is where it would be done."""
    name, launches = _facts(func)
    tensors: list[Tensor] = []
    held_args, held_kwargs = [_held(one, tensors) for one in args], {}
    for key, value in kwargs.items():
        held_kwargs[key] = _held(value, tensors)
    target = kwargs.get("device")
    here = [one for one in tensors if not isinstance(one, DeviceTensor) and one.dim() > 0]
    was_there = any(isinstance(one, DeviceTensor) for one in tensors)
    is_there = was_there if target is None else torch.device(target).type == DEVICE.type
    copies = name in ("_to_copy", "copy_")
    if any(one.device == DEVICE for one in here):
        raise MixedDevicesError(
            f"numbers of the host on the device by torch.tensor, which is not seen; at {_place()}"
        )
    if was_there and here and not copies:
        raise MixedDevicesError(f"{name} mixes devices, at {_place()}")
    if device is not None and (was_there or is_there):
        moved = copies and (bool(here) if was_there and target is None else was_there != is_there)
        if moved and not kwargs.get("non_blocking", False):
            device.waits[f"{name} {'to' if is_there else 'from'} the device at {_place()}"] += 1
        elif name in _WAITS or name in _CHECKED or _by_mask(name, args):
            device.waits[f"{name} at {_place()}"] += 1
        device.launches += launches
    if target is not None:
        held_kwargs["device"] = torch.device("cpu")
    out = func(*held_args, **held_kwargs)
    if name == "_local_scalar_dense":
        return out
    if name.endswith("_") and not name.endswith("__"):
        return args[0]
    return _on_device(out) if is_there else out


@cache
def _facts(func: Any) -> tuple[str, bool]:
    """The name of an operation, and whether the device has anything to do for it."""
    name = func.__name__.split(".")[0]
    return name, not (func.is_view or name in _NO_LAUNCH)


def _by_mask(name: str, args: Sequence[Any]) -> bool:
    """Whether an index is a mask, so that the host must know how many entries it has.

    Where a number is assigned it need not.
    """
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        return False
    masks = any(isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1])
    return masks and (name in ("index", "_unsafe_index") or args[2].numel() != 1)


def _held(value: Any, tensors: list[Tensor]) -> Any:
    """What an argument holds; its tensors, as they are, join the others."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.data_here if isinstance(value, DeviceTensor) else value
    if isinstance(value, list | tuple):
        return [_held(one, tensors) for one in value]
    return value


def _on_device(value: Any) -> Any:
    if isinstance(value, Tensor):
        return DeviceTensor(value)
    return [_on_device(one) for one in value] if isinstance(value, list | tuple) else value


def _place() -> str:
    """The innermost line of the package that is being run."""
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        if "/cvxfold/" in file and "/tests/" not in file.rsplit("/cvxfold/", 1)[-1]:
            return f"{file.rsplit('/cvxfold/', 1)[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside"
