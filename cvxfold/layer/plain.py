"""Arguments of a call that need no more looking at: what a call by the shortcut begins with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import is_wrapped
from cvxfold.compat.patterns import pattern_of
from cvxfold.problem.arguments import name_of
from cvxfold.problem.structure import OutputSpec, ParameterSpec

_FLOATS = (torch.float64, torch.float32)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


_MOST_FORMS = 64


@dataclass(frozen=True)
class CallForm:
    """What calls with tensors of equal shapes and dtypes have in common.

    Args:
        batched: which have a batch dimension. batch: its size B, or None where none has one.
        instances: B, or 1.
        device: of all tensors. dtype: of the outputs.
        outputs: patterns of the variables' terms.
        gradients: of the parameters' gradients, a batch of them for one that instances share.
        looks: parameters whose entries must be looked at: numbers, specifications, and their dtypes.
    """

    batched: Sequence[bool]
    batch: int | None
    instances: int
    device: torch.device
    dtype: torch.dtype
    outputs: Sequence[Tensor]
    gradients: Sequence[Tensor]
    looks: Sequence[tuple[int, ParameterSpec, torch.dtype]]

    @classmethod
    def of(
        cls, values: Sequence[Tensor], parameters: Sequence[ParameterSpec], outputs: Sequence[OutputSpec]
    ) -> "CallForm | None":
        """None where anything is unusual, or wrong."""
        if not values or len(values) != len(parameters):
            return None
        device = values[0].device
        if device.type not in ("cpu", "cuda"):
            return None
        batch: int | None = None
        batched, looks, dtype = [], [], None
        for k, (value, spec) in enumerate(zip(values, parameters, strict=True)):
            kind = value.dtype
            if spec.field != "real" or value.device != device:
                return None
            if kind not in _FLOATS:
                if kind not in _INTEGERS or spec.log or spec.declared:
                    return None
                kind = torch.get_default_dtype()
            shape = value.shape
            has_batch = shape != spec.shape
            if has_batch:
                if shape[1:] != spec.shape or batch not in (None, shape[0]):
                    return None
                batch = shape[0]
            batched.append(has_batch)
            dtype = kind if dtype in (None, kind) else torch.promote_types(dtype, kind)
            if spec.log or spec.declared:
                looks.append((k, spec, kind))
        if batch == 0 or dtype is None:
            return None
        lead = () if batch is None else (batch,)
        gradients = [
            pattern_of((*lead, *value.shape) if batch != 1 and not has_batch else value.shape, device)
            for value, has_batch in zip(values, batched, strict=True)
        ]
        terms = [pattern_of((*lead, *spec.raw_shape), device) for spec in outputs]
        return cls(batched, batch, batch or 1, device, dtype, terms, gradients, looks)


class CallForms:
    """The forms of a problem's calls, each made once.

    Args:
        parameters, outputs: of the problem.
    """

    def __init__(self, parameters: Sequence[ParameterSpec], outputs: Sequence[OutputSpec]) -> None:
        self._parameters, self._outputs = parameters, outputs
        self._known: dict[Any, CallForm | None] = {}

    def of(self, values: Sequence[Tensor]) -> CallForm | None:
        """That of a call, None where anything is unusual."""
        key = tuple([(value.shape, value.dtype, value.device) for value in values])
        try:
            return self._known[key]
        except KeyError:
            made = CallForm.of(values, self._parameters, self._outputs)
        if all(value.dtype in _FLOATS for value in values):  # others count as PyTorch's default of the day
            if len(self._known) >= _MOST_FORMS:
                self._known.clear()
            self._known[key] = made
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return CallForms, (self._parameters, self._outputs)


@dataclass
class PlainArguments:
    """Tensors on one device, of the right shapes and in their declared sets.

    Args:
        tensors: as they were given, but for logarithms where the problem has those.
        form: what there is to know of their shapes.
        uneven: the names of parameters that are declared symmetric and are not to rounding.
    """

    tensors: Sequence[Tensor]
    form: CallForm
    uneven: Sequence[str] = ()

    @classmethod
    def of(cls, values: Sequence[Any], forms: CallForms) -> "PlainArguments | None":
        """None where anything is unusual, or wrong: others tell better what. NaN is seen by the kernels."""
        for value in values:
            if not isinstance(value, Tensor) or value.layout is not torch.strided or is_wrapped(value):
                return None
        form = forms.of(values)
        if form is None or not form.looks:
            return None if form is None else cls(values, form)
        tensors, uneven = list(values), list[str]()
        for k, spec, kind in form.looks:
            value = values[k]
            if not _clearly_in_domain(value, spec):
                wide = (value if form.batched[k] else value.unsqueeze(0)).detach().to(torch.float64)
                if not _in_domain(wide, spec, kind):
                    return None
                if spec.declared.has_triangle and bool(spec.declared.uneven(wide, kind).any()):
                    uneven.append(name_of(k, spec))
            if spec.log:
                tensors[k] = value.log()
        return cls(tensors, form, uneven)


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
