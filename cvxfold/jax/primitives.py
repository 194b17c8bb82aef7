"""JAX primitives of a layer: the solve, its tangents and its cotangents, with their rules.

    solve     parameters → variables, and the state that the others begin with
    push      parameters, state; tangents of parameters → tangents of variables       linear in the tangents
    pull      parameters, state; cotangents of variables → cotangents of parameters   its transpose

A mapped dimension (``jax.vmap``) becomes one more leading dimension of every operand, of size 1 where the
operand is not mapped, so that a mapped call is one batch and what is shared stays shared. On values the
primitives run at once, and errors are those of the layer; compiled, they call back to the host.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cvxfold.jax.callbacks import HostCall, Lead, common
from cvxfold.layer.autograd import NO_SECOND_DERIVATIVE

solve_p, push_p, pull_p = (Primitive(f"cvxfold_{name}") for name in ("solve", "push", "pull"))
for _primitive in (solve_p, push_p, pull_p):
    _primitive.multiple_results = True


# on values


def _solve_on_host(*operands: Any, call: HostCall, leaves_state: bool) -> list[Any]:
    return call.solve([np.asarray(value) for value in operands], leaves_state)


def _push_on_host(*operands: Any, call: HostCall, wanted: tuple[bool, ...]) -> list[Any]:
    parameters, state, given = _parted(call, operands)
    dots = iter(given)
    return call.push(parameters, state, [next(dots) if wants else None for wants in wanted])


def _pull_on_host(*operands: Any, call: HostCall, leads: tuple[Lead | None, ...]) -> list[Any]:
    parameters, state, bars = _parted(call, operands)
    return call.pull(parameters, state, bars, leads)


def _parted(call: HostCall, operands: Sequence[Any]) -> tuple[list[Any], Any, list[Any]]:
    """Parameters, state, and what a linear primitive is linear in; as NumPy's arrays."""
    count = len(call.shapes[0])
    arrays = [np.asarray(value) for value in operands]
    return arrays[:count], arrays[count], arrays[count + 1 :]


# shapes


def _solve_shapes(*operands: Any, call: HostCall, leaves_state: bool) -> list[ShapedArray]:
    lead = _lead(operands, call.shapes[0])
    found = _arrays(lead, call.shapes[1], call.dtypes[1])
    return [*found, ShapedArray((*lead, call.state_width), np.dtype(np.uint32))] if leaves_state else found


def _push_shapes(*operands: Any, call: HostCall, wanted: tuple[bool, ...]) -> list[ShapedArray]:
    shapes = call.shapes[0]
    dots = [shape for shape, wants in zip(shapes, wanted, strict=True) if wants]
    return _arrays(_lead(operands, [*shapes, (0,), *dots]), call.shapes[1], call.dtypes[1])


def _pull_shapes(*_: Any, call: HostCall, leads: tuple[Lead | None, ...]) -> list[ShapedArray]:
    return [
        ShapedArray((*lead, *shape), dtype)
        for lead, shape, dtype in zip(leads, call.shapes[0], call.dtypes[0], strict=True)
        if lead is not None
    ]


def _lead(operands: Sequence[Any], shapes: Sequence[Lead]) -> Lead:
    leads = [tuple(one.shape[: one.ndim - len(shape)]) for one, shape in zip(operands, shapes, strict=True)]
    return common(leads or [()])


def _arrays(lead: Lead, shapes: Sequence[Lead], dtypes: Sequence[Any]) -> list[ShapedArray]:
    return [ShapedArray((*lead, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]


# derivatives


def _solve_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, call: HostCall, leaves_state: bool
) -> tuple[Any, Any]:
    *outputs, state = solve_p.bind(*primals, call=call, leaves_state=True)
    wanted = tuple(not isinstance(dot, ad.Zero) for dot in tangents)
    dots = [dot for dot, wants in zip(tangents, wanted, strict=True) if wants]
    moved = push_p.bind(*primals, state, *dots, call=call, wanted=wanted)
    if not leaves_state:
        return outputs, moved
    return [*outputs, state], [*moved, ad.Zero(ShapedArray(state.shape, jax.dtypes.float0))]


def _linear_jvp(
    primitive: Primitive, primals: Sequence[Any], tangents: Sequence[Any], *, call: HostCall, **how: Any
) -> tuple[Any, Any]:
    """Of what is linear in its last operands: other tangents would need a second derivative."""
    count = len(call.shapes[0]) + 1
    if any(not isinstance(dot, ad.Zero) for dot in tangents[: count - 1]):
        raise NotImplementedError(NO_SECOND_DERIVATIVE)
    dots = [_instantiated(dot) for dot in tangents[count:]]
    found = primitive.bind(*primals, call=call, **how)
    return found, primitive.bind(*primals[:count], *dots, call=call, **how)


def _push_transpose(
    bars: Sequence[Any], *operands: Any, call: HostCall, wanted: tuple[bool, ...]
) -> list[Any]:
    count = len(call.shapes[0])
    given, dots = operands[: count + 1], iter(operands[count + 1 :])
    leads: list[Lead | None] = []
    for wants, shape in zip(wanted, call.shapes[0], strict=True):
        dot: Any = next(dots) if wants else None
        unknown = wants and ad.is_undefined_primal(dot)
        leads.append(tuple(dot.aval.shape[: dot.aval.ndim - len(shape)]) if unknown else None)
    found = iter(pull_p.bind(*given, *map(_instantiated, bars), call=call, leads=tuple(leads)))
    of_dots = [
        None if lead is None else next(found) for lead, wants in zip(leads, wanted, strict=True) if wants
    ]
    return [None] * (count + 1) + of_dots


def _pull_transpose(
    dots: Sequence[Any], *operands: Any, call: HostCall, leads: tuple[Lead | None, ...]
) -> list[Any]:
    count = len(call.shapes[0])
    given, bars = operands[: count + 1], operands[count + 1 :]
    wanted = tuple(lead is not None for lead in leads)
    found = push_p.bind(*given, *map(_instantiated, dots), call=call, wanted=wanted)
    summed = [
        _summed(tangent, bar.aval.shape) if ad.is_undefined_primal(bar) else None
        for tangent, bar in zip(found, bars, strict=True)
    ]
    return [None] * (count + 1) + summed


def _instantiated(dot: Any) -> Any:
    return ad.instantiate_zeros(dot) if isinstance(dot, ad.Zero) else dot


def _summed(value: Any, shape: Sequence[int]) -> Any:
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 < value.shape[axis])
    return jnp.sum(value, axis=axes, keepdims=True) if axes else value


# mapping


def _mapped(
    primitive: Primitive, operands: Sequence[Any], dims: Sequence[Any], **how: Any
) -> tuple[list[Any], list[int]]:
    """The mapped dimension joins the leading ones; a gradient is one for each of its entries."""
    if "leads" in how:
        (size,) = {one.shape[dim] for one, dim in zip(operands, dims, strict=True) if dim is not None}
        how["leads"] = tuple(None if lead is None else (size, *lead) for lead in how["leads"])
    moved = [
        jnp.expand_dims(one, 0) if dim is None else jnp.moveaxis(one, dim, 0)
        for one, dim in zip(operands, dims, strict=True)
    ]
    found = primitive.bind(*moved, **how)
    return found, [0] * len(found)


# how each is run


def _at_once(on_host: Callable[..., list[Any]], *operands: Any, **how: Any) -> list[Any]:
    """Run on values; the results go where the first operand is."""
    device = next((one.device for one in operands if isinstance(one, jax.Array)), None)
    return [jax.device_put(value, device) for value in on_host(*operands, **how)]


def _called_back(
    on_host: Callable[..., list[Any]], shapes: Callable[..., list[ShapedArray]], *operands: Any, **how: Any
) -> list[Any]:
    results = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in shapes(*operands, **how)]
    return jax.pure_callback(partial(on_host, **how), results, *operands)


for _primitive, _on_host, _shapes in (
    (solve_p, _solve_on_host, _solve_shapes),
    (push_p, _push_on_host, _push_shapes),
    (pull_p, _pull_on_host, _pull_shapes),
):
    _primitive.def_impl(partial(_at_once, _on_host))
    _primitive.def_abstract_eval(_shapes)
    batching.primitive_batchers[_primitive] = partial(_mapped, _primitive)
    mlir.register_lowering(
        _primitive, mlir.lower_fun(partial(_called_back, _on_host, _shapes), multiple_results=True)
    )
ad.primitive_jvps[solve_p] = _solve_jvp
ad.primitive_jvps[push_p] = partial(_linear_jvp, push_p)
ad.primitive_jvps[pull_p] = partial(_linear_jvp, pull_p)
ad.primitive_transposes[push_p] = _push_transpose
ad.primitive_transposes[pull_p] = _pull_transpose
