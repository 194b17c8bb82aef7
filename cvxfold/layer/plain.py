"""Arguments of a call that need no more looking at: what a call by the shortcut begins with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import is_wrapped
from cvxfold.problem.attributes import inside
from cvxfold.problem.structure import ParameterSpec

_DTYPES = (torch.float64, torch.float32)


@dataclass(frozen=True)
class PlainArguments:
    """Tensors on the CPU, of the right shapes and in their declared sets.

    Args:
        tensors: as they were given, but for logarithms where the problem has those.
        batched: which have a batch dimension. batch: its size B, or None where none has one.
        dtype: of the outputs.
    """

    tensors: Sequence[Tensor]
    batched: Sequence[bool]
    batch: int | None
    dtype: torch.dtype

    @classmethod
    def of(cls, values: Sequence[Any], specs: Sequence[ParameterSpec]) -> "PlainArguments | None":
        """None where anything is unusual, or wrong: others tell better what. NaN is seen by the kernels."""
        if len(values) != len(specs):
            return None
        batch: int | None = None
        batched, tensors, dtype = [], list(values), None
        for k, (value, spec) in enumerate(zip(values, specs, strict=True)):
            if not isinstance(value, Tensor) or value.dtype not in _DTYPES or not value.is_cpu:
                return None
            if value.layout is not torch.strided or is_wrapped(value) or spec.field != "real":
                return None
            shape = value.shape
            has_batch = shape != spec.shape
            if has_batch:
                if shape[1:] != spec.shape or batch not in (None, shape[0]):
                    return None
                batch = shape[0]
            batched.append(has_batch)
            dtype = value.dtype if dtype is None else torch.promote_types(dtype, value.dtype)
            if spec.log or spec.domain is not None:
                if not _in_domain(value.detach(), spec, has_batch):
                    return None
                tensors[k] = value.log() if spec.log else value
        return None if batch == 0 or dtype is None else cls(tensors, batched, batch, dtype)

    @property
    def instances(self) -> int:
        """B, or 1."""
        return 1 if self.batch is None else self.batch


def _in_domain(value: Tensor, spec: ParameterSpec, batched: bool) -> bool:
    wide = (value if batched else value.unsqueeze(0)).to(torch.float64)
    if not bool(wide.isfinite().all()):
        return False
    if spec.log:
        return bool((wide > 0).all())
    assert spec.domain is not None
    return bool(inside(spec.domain, wide, value.dtype).all())
