"""Arguments of a call that need no more looking at: what a call by the shortcut begins with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import is_wrapped
from cvxfold.problem.arguments import name_of
from cvxfold.problem.structure import ParameterSpec

_FLOATS = (torch.float64, torch.float32)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


@dataclass(frozen=True)
class PlainArguments:
    """Tensors on one device, of the right shapes and in their declared sets.

    Args:
        tensors: as they were given, but for logarithms where the problem has those.
        batched: which have a batch dimension. batch: its size B, or None where none has one.
        dtype: of the outputs.
        uneven: the names of parameters that are declared symmetric and are not to rounding.
    """

    tensors: Sequence[Tensor]
    batched: Sequence[bool]
    batch: int | None
    dtype: torch.dtype
    uneven: Sequence[str] = ()

    @classmethod
    def of(cls, values: Sequence[Any], specs: Sequence[ParameterSpec]) -> "PlainArguments | None":
        """None where anything is unusual, or wrong: others tell better what. NaN is seen by the kernels."""
        if not values or len(values) != len(specs) or not isinstance(values[0], Tensor):
            return None
        device = values[0].device
        if device.type not in ("cpu", "cuda"):
            return None
        batch: int | None = None
        batched, tensors, dtype = [], list(values), None
        uneven: list[str] = []
        for k, (value, spec) in enumerate(zip(values, specs, strict=True)):
            if not isinstance(value, Tensor) or spec.field != "real" or value.device != device:
                return None
            kind = value.dtype
            if kind not in _FLOATS:
                if kind not in _INTEGERS or spec.log or spec.declared:
                    return None
                kind = torch.get_default_dtype()
            if value.layout is not torch.strided or is_wrapped(value):
                return None
            shape = value.shape
            has_batch = shape != spec.shape
            if has_batch:
                if shape[1:] != spec.shape or batch not in (None, shape[0]):
                    return None
                batch = shape[0]
            batched.append(has_batch)
            dtype = kind if dtype in (None, kind) else torch.promote_types(dtype, kind)
            if (spec.log or spec.declared) and not _clearly_in_domain(value, spec):
                wide = (value if has_batch else value.unsqueeze(0)).detach().to(torch.float64)
                if not _in_domain(wide, spec, kind):
                    return None
                if spec.declared.has_triangle and bool(spec.declared.uneven(wide, kind).any()):
                    uneven.append(name_of(k, spec))
            if spec.log:
                tensors[k] = value.log()
        return None if batch == 0 or dtype is None else cls(tensors, batched, batch, dtype, uneven)

    @property
    def device(self) -> torch.device:
        """Of all tensors."""
        return self.tensors[0].device

    @property
    def instances(self) -> int:
        """B, or 1."""
        return 1 if self.batch is None else self.batch


def _clearly_in_domain(value: Tensor, spec: ParameterSpec) -> bool:
    """Whether the least and the largest entry show it."""
    interval = spec.declared.interval
    if interval is None or value.numel() == 0:
        return False
    least, largest = (end.item() for end in value.detach().aminmax())
    inside = interval[0] <= least and largest <= interval[1]
    return inside and -math.inf < least and largest < math.inf and (least > 0 or not spec.log)


def _in_domain(wide: Tensor, spec: ParameterSpec, dtype: torch.dtype) -> bool:
    if not bool(wide.isfinite().all()):
        return False
    if spec.log:
        return bool((wide > 0).all())
    return bool(spec.declared.inside(wide, dtype).all())


def version_of(value: Tensor) -> int | None:
    """How often a tensor was changed; those made under ``torch.inference_mode`` do not tell."""
    return None if value.is_inference() else value._version
