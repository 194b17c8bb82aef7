"""The tensors of a call: checked, and brought to one dtype and a leading batch dimension.

Messages keep cvxpylayers' first words, so that what matched on them still does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvxfold.compat.functorch import is_mapped
from cvxfold.errors import ParameterTypeError
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
        uneven: the names of parameters that are declared symmetric or Hermitian and are not to rounding.
    """

    tensors: list[Tensor]
    batch: int | None
    dtype: torch.dtype
    device: torch.device
    invalid: Tensor | None = None
    uneven: Sequence[str] = ()


def prepare(
    values: Sequence[Any], specs: Sequence[ParameterSpec], *, invalid_is_error: bool = True
) -> Arguments:
    """Check the arguments of a call against the problem's parameters.

    Args:
        values: one tensor for each parameter, each of the parameter's shape or with a batch dimension before;
            or an array or a number.
        specs: the parameters.
        invalid_is_error: whether values that are not finite or outside of their declared set raise.

    Raises:
        ValueError: a wrong number, shape, batch size or device of tensors, or invalid values.
        ParameterTypeError: something else than a dense tensor or array, or a number; or complex numbers where
            the parameter is real, or real ones where it is imaginary.
    """
    check_count(values, specs)
    names = [name_of(number, spec) for number, spec in enumerate(specs)]
    dtype, device = dtype_of_outputs(values), device_of(values)
    values = [_as_tensor(*each, device) for each in zip(names, values, specs, strict=True)]
    sizes, count = batch_sizes([tuple(value.shape) for value in values], specs)
    _check_devices(names, values)
    tensors = [
        _real_numbers(value if size is not None else value.unsqueeze(0), spec)
        for value, size, spec in zip(values, sizes, specs, strict=True)
    ]
    dtypes = [_real_dtype(value.dtype, torch.float64) for value in values]
    valid = _valid(tensors, specs, dtypes)
    invalid = None
    if valid is not None:
        if invalid_is_error:
            _raise_invalid(names, valid, [*zip(specs, tensors, dtypes, strict=True)])
        invalid = ~torch.stack([(a & b).expand(1 if count is None else count) for a, b in valid]).all(0)
        one = torch.ones((), device=device)
        tensors = [
            torch.where((a & b).view(-1, *[1] * (tensor.dim() - 1)), tensor, _real_numbers(one, spec))
            for tensor, spec, (a, b) in zip(tensors, specs, valid, strict=True)
        ]
    uneven = [
        name
        for name, spec, value, of in zip(names, specs, tensors, dtypes, strict=True)
        if spec.declared.has_triangle
        and not is_mapped(value)
        and bool(spec.declared.uneven(_numbers(value, spec), of).any())
    ]
    return Arguments(tensors, count, dtype, device, invalid, uneven)


def check_count(values: Sequence[Any], specs: Sequence[ParameterSpec]) -> None:
    """Raise a ValueError unless there is one value for each parameter."""
    if len(values) == len(specs):
        return
    listed = len(values) == 1 and isinstance(values[0], list | tuple)
    raise ValueError(
        "A tensor must be provided for each CVXPY parameter; "
        f"received {len(values)} tensors, expected {len(specs)} "
        f"({', '.join(spec.name for spec in specs)})"
        + ("; give them one by one, layer(*tensors), not in a list" if listed else "")
    )


def batch_sizes(
    shapes: Sequence[tuple[int, ...]], specs: Sequence[ParameterSpec]
) -> tuple[list[int | None], int | None]:
    """The size of each value's batch dimension, None where it has none, and that of the call.

    Raises:
        ValueError: a shape is not the parameter's, with or without a batch dimension, or sizes differ.
    """
    names = [name_of(number, spec) for number, spec in enumerate(specs)]
    sizes = [_batch_size(*each) for each in zip(names, shapes, specs, strict=True)]
    batches = [size for size in sizes if size is not None]
    if any(size != batches[0] for size in batches):  # not as a set: in graphs they may be symbols
        listed = ", ".join(
            f"{name}: {size}" for name, size in zip(names, sizes, strict=True) if size is not None
        )
        raise ValueError(f"Inconsistent batch sizes. Expected one for all batched parameters, got {listed}")
    return sizes, batches[0] if batches else None


def name_of(number: int, spec: ParameterSpec) -> str:
    """A parameter in a message."""
    return f"parameter {number} ({spec.name})"


def dtype_of_outputs(values: Sequence[Any]) -> torch.dtype:
    """The dtype, of real numbers, that tensors ask for; arrays have a say where there are none."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    dtypes = [torch.as_tensor(value).dtype for value in values if _is_array(value)]
    dtypes = [value.dtype for value in tensors] or dtypes
    default = torch.get_default_dtype()
    kinds = (_real_dtype(dtype, default) for dtype in dtypes)
    return reduce(torch.promote_types, kinds) if dtypes else default if values else torch.float64


def device_of(values: Sequence[Any]) -> torch.device:
    """That of the first tensor."""
    return next((value.device for value in values if isinstance(value, Tensor)), torch.device("cpu"))


def _real_dtype(dtype: torch.dtype, of_integers: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_floating_point or dtype.is_complex else of_integers


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiubc"


def _as_tensor(name: str, value: Any, spec: ParameterSpec, device: torch.device) -> Tensor:
    """A tensor of the parameter's numbers; arrays and numbers become one."""
    if _is_array(value) or isinstance(value, float | int | complex):
        dtype = torch.complex128 if np.iscomplexobj(value) else torch.float64
        value = torch.as_tensor(value, dtype=dtype, device=device)
    if not isinstance(value, Tensor):
        hint = "torch.as_tensor may make one of it"
        if isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            hint = "give tensors one by one, layer(*tensors)"
        raise ParameterTypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}; {hint}")
    if value.layout != torch.strided:
        raise ParameterTypeError(f"{name}: expected a dense tensor, got layout {value.layout}")
    if spec.field == "imaginary" and not value.is_complex():
        raise ParameterTypeError(
            f"{name}: expected a complex dtype, as the parameter is declared imaginary, got {value.dtype}"
        )
    if spec.field == "real" and value.is_complex():
        raise ParameterTypeError(f"{name}: expected a dtype of real numbers, got {value.dtype}")
    return value


def _real_numbers(value: Tensor, spec: ParameterSpec) -> Tensor:
    """A batch of a parameter's values, float64; real and imaginary parts side by side where it is complex."""
    if spec.field == "real":
        return value.to(torch.float64)
    return torch.view_as_real(value.to(torch.complex128).resolve_conj())


def _numbers(tensor: Tensor, spec: ParameterSpec) -> Tensor:
    """The values of such a batch, ``(1|B, *shape)``, float64 or complex128."""
    return tensor if spec.field == "real" else torch.view_as_complex(tensor)


def _batch_size(name: str, given: tuple[int, ...], spec: ParameterSpec) -> int | None:
    """The size of the batch dimension of a value of shape ``given``, or None where it has none."""
    shape = spec.shape
    if len(given) == len(shape) and given == shape:  # tuples compare entries before lengths
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
    names: Sequence[str],
    valid: Sequence[tuple[Tensor, Tensor]],
    given: Sequence[tuple[ParameterSpec, Tensor, torch.dtype]],
) -> None:
    for name, (is_finite, is_inside), (spec, tensor, dtype) in zip(names, valid, given, strict=True):
        if not bool(is_finite.all()):
            raise ValueError(
                f"{name}: expected finite values, got NaN or infinity in {_instances(is_finite)}"
            )
        if not bool(is_inside.all()):
            raise ValueError(
                f"{name}: expected {_description(spec)}, got others in {_instances(is_inside)}"
                f"{_first(spec, tensor, dtype)}"
            )


def _first(spec: ParameterSpec, tensor: Tensor, dtype: torch.dtype) -> str:
    """The first number that is not as declared, and where, in words; nothing where that is a matrix."""
    value = _numbers(tensor, spec)
    fine = value > 0 if spec.log else spec.declared.entries(value, dtype)
    if bool(fine.all()):
        return ""
    where = (~fine).nonzero()[0].tolist()
    entry = f" at {where[1:]}" if spec.shape else ""
    return f", the first of them {value[tuple(where)].item():g}{entry}"


def _inside(spec: ParameterSpec, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if spec.log:
        return (tensor > 0).reshape(len(tensor), math.prod(spec.shape)).all(1)
    if not spec.declared:
        return torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)
    return spec.declared.inside(_numbers(tensor, spec), dtype)


def _description(spec: ParameterSpec) -> str:
    if spec.log:
        return "positive values (geometric program)"
    return str(spec.declared) or "finite values"


def _instances(fine: Tensor, most: int = 20) -> str:
    """The instances that are not fine, in words, cut where they are many."""
    indices = (~fine).nonzero().squeeze(-1).tolist()
    shown = ", ".join(map(str, indices[:most]))
    more = "" if len(indices) <= most else f", … ({len(indices)} in all)"
    return f"instances [{shown}{more}]"
