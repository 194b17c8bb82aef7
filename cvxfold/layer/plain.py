"""Arguments of a call that need no more looking at: what a call by the shortcut begins with."""

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
        if len(values) != len(specs):
            return None
        batch: int | None = None
        batched, tensors, dtype = [], list(values), None
        uneven: list[str] = []
        for k, (value, spec) in enumerate(zip(values, specs, strict=True)):
            if not isinstance(value, Tensor) or spec.field != "real":
                return None
            if value.device != values[0].device or value.device.type not in ("cpu", "cuda"):
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
            dtype = kind if dtype is None else torch.promote_types(dtype, kind)
            if spec.log or spec.declared:
                wide = (value if has_batch else value.unsqueeze(0)).detach().to(torch.float64)
                if not _in_domain(wide, spec, kind):
                    return None
                if spec.declared.has_triangle and bool(spec.declared.uneven(wide, kind).any()):
                    uneven.append(name_of(k, spec))
                tensors[k] = value.log() if spec.log else value
        return None if batch == 0 or dtype is None else cls(tensors, batched, batch, dtype, uneven)

    @property
    def device(self) -> torch.device:
        """Of all tensors."""
        return self.tensors[0].device

    @property
    def instances(self) -> int:
        """B, or 1."""
        return 1 if self.batch is None else self.batch


def _in_domain(wide: Tensor, spec: ParameterSpec, dtype: torch.dtype) -> bool:
    if not bool(wide.isfinite().all()):
        return False
    if spec.log:
        return bool((wide > 0).all())
    return bool(spec.declared.inside(wide, dtype).all())
