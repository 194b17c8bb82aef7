"""The tensors of a call: checked, and brought to one dtype and a leading batch dimension.

Messages keep cvxpylayers' first words, so that what matched on them still does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import is_mapped
from cvxfold.errors import ParameterTypeError
from cvxfold.problem.attributes import DESCRIPTIONS, inside
from cvxfold.problem.structure import ParameterSpec


@dataclass(frozen=True)
class Arguments:
    """The checked arguments of a call.

    Args:
        tensors: each ``(1|B, *raw_shape)``, float64.
        batch: B, or None where no argument has a batch dimension.
        dtype: of the outputs; the real one of complex outputs.
        device: of everything.
        invalid: instances with values that cannot be solved for, ``(B,)``; ones stand in their place. None
            where all are valid.
    """

    tensors: list[Tensor]
    batch: int | None
    dtype: torch.dtype
    device: torch.device
    invalid: Tensor | None = None


def prepare(
    values: Sequence[Any], specs: Sequence[ParameterSpec], *, invalid_is_error: bool = True
) -> Arguments:
    """Check the arguments of a call against the problem's parameters.

    Args:
        values: one tensor for each parameter, each of the parameter's shape or with a batch dimension before.
        specs: the parameters.
        invalid_is_error: whether values that are not finite or outside of their declared set raise.

    Raises:
        ValueError: a wrong number, shape, batch size or device of tensors, or invalid values.
        ParameterTypeError: something else than a floating-point tensor, or a complex one where the parameter
            is real.
    """
    if len(values) != len(specs):
        raise ValueError(
            "A tensor must be provided for each CVXPY parameter; "
            f"received {len(values)} tensors, expected {len(specs)}"
        )
    names = [f"parameter {number} ({spec.name})" for number, spec in enumerate(specs)]
    for name, value, spec in zip(names, values, specs, strict=True):
        _check_type(name, value, spec)
    sizes = [_batch_size(*each) for each in zip(names, values, specs, strict=True)]
    batches = {size for size in sizes if size is not None}
    if len(batches) > 1:
        listed = ", ".join(
            f"{name}: {size}" for name, size in zip(names, sizes, strict=True) if size is not None
        )
        raise ValueError(f"Inconsistent batch sizes. Expected one for all batched parameters, got {listed}")
    _check_devices(names, values)
    tensors = [
        _real_numbers(value if size is not None else value.unsqueeze(0), spec)
        for value, size, spec in zip(values, sizes, specs, strict=True)
    ]
    count = batches.pop() if batches else None
    valid = _valid(tensors, specs, [value.dtype for value in values])
    invalid = None
    if valid is not None:
        if invalid_is_error:
            _raise_invalid(names, valid, specs)
        invalid = ~torch.stack([(a & b).expand(1 if count is None else count) for a, b in valid]).all(0)
        tensors = [
            torch.where((a & b).view(-1, *[1] * (tensor.dim() - 1)), tensor, 1.0)
            for tensor, (a, b) in zip(tensors, valid, strict=True)
        ]
    dtypes = [value.dtype.to_real() for value in values]
    dtype = reduce(torch.promote_types, dtypes) if dtypes else torch.float64
    device = values[0].device if values else torch.device("cpu")
    return Arguments(tensors, count, dtype, device, invalid)


def _real_numbers(value: Tensor, spec: ParameterSpec) -> Tensor:
    """A batch of a parameter's values, float64; real and imaginary parts side by side where it is complex."""
    if spec.field == "real":
        return value.to(torch.float64)
    return torch.view_as_real(value.to(torch.complex128).resolve_conj())


def _check_type(name: str, value: Any, spec: ParameterSpec) -> None:
    if not isinstance(value, Tensor):
        raise ParameterTypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise ParameterTypeError(f"{name}: expected a dense tensor, got layout {value.layout}")
    if spec.field == "imaginary" and not value.is_complex():
        raise ParameterTypeError(
            f"{name}: expected a complex dtype, as the parameter is declared imaginary, got {value.dtype}"
        )
    if not (value.dtype.is_floating_point or (value.is_complex() and spec.field != "real")):
        raise ParameterTypeError(f"{name}: expected a floating-point dtype, got {value.dtype}")


def _batch_size(name: str, value: Tensor, spec: ParameterSpec) -> int | None:
    """The size of the value's batch dimension, or None where it has none."""
    shape, given = spec.shape, tuple(value.shape)
    if given == shape:
        return None
    if len(given) == len(shape) + 1 and given[1:] == shape:
        return given[0]
    batched = f"(batch, {', '.join(map(str, shape))})" if shape else "(batch,)"
    if len(given) in (len(shape), len(shape) + 1):
        raise ValueError(f"Invalid parameter shape for {name}. Expected: {shape} or {batched}, Got: {given}")
    raise ValueError(
        f"Invalid parameter dimensionality for {name}. Expected {len(shape)} or {len(shape) + 1} dimensions "
        f"({shape} or {batched}), Got: {len(given)} dimensions {given}"
    )


def _check_devices(names: Sequence[str], values: Sequence[Tensor]) -> None:
    if len({value.device for value in values}) > 1:
        listed = ", ".join(f"{name}: {value.device}" for name, value in zip(names, values, strict=True))
        raise ValueError(f"Inconsistent devices. Expected all parameters on one device, got {listed}")
    if any(value.is_meta for value in values):
        listed = ", ".join(name for name, value in zip(names, values, strict=True) if value.is_meta)
        raise ValueError(f"{listed}: expected a tensor with values, got one on the device meta")


def _valid(
    tensors: Sequence[Tensor], specs: Sequence[ParameterSpec], dtypes: Sequence[torch.dtype]
) -> list[tuple[Tensor, Tensor]] | None:
    """Which instances are finite and which lie in the declared set, each ``(1|B,)``, for each parameter.

    None, after one look at the device, where all do.
    """
    if any(is_mapped(tensor) for tensor in tensors):
        return None  # values cannot be looked at here; the solve looks at what they become
    masks = [
        (
            tensor.isfinite().reshape(len(tensor), math.prod(spec.raw_shape)).all(1),
            _inside(spec, tensor, dtype),
        )
        for tensor, spec, dtype in zip(tensors, specs, dtypes, strict=True)
    ]
    if not masks or bool(torch.stack([(a & b).all() for a, b in masks]).all()):
        return None
    return masks


def _raise_invalid(
    names: Sequence[str], valid: Sequence[tuple[Tensor, Tensor]], specs: Sequence[ParameterSpec]
) -> None:
    for name, (is_finite, is_inside), spec in zip(names, valid, specs, strict=True):
        for mask, wanted, got in (
            (is_finite, "finite values", "NaN or infinity"),
            (is_inside, _description(spec), "others"),
        ):
            if not bool(mask.all()):
                instances = (~mask).nonzero().squeeze(-1).tolist()
                raise ValueError(f"{name}: expected {wanted}, got {got} in instances {_shorten(instances)}")


def _inside(spec: ParameterSpec, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if spec.log:
        return (tensor > 0).reshape(len(tensor), math.prod(spec.shape)).all(1)
    if spec.domain is None:
        return torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)
    value = tensor if spec.field == "real" else torch.view_as_complex(tensor)
    return inside(spec.domain, value, dtype.to_real())


def _description(spec: ParameterSpec) -> str:
    if spec.log:
        return "positive values (geometric program)"
    if spec.domain is None:
        return "finite values"
    return f"{DESCRIPTIONS[spec.domain]} (the parameter is declared {spec.domain})"


def _shorten(indices: Sequence[int], most: int = 20) -> str:
    """The indices as a list, cut where it grows long."""
    shown = ", ".join(map(str, indices[:most]))
    return f"[{shown}]" if len(indices) <= most else f"[{shown}, … ({len(indices)} in all)]"
