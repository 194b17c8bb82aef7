"""The differentiable solve: stored entries of P, q, A, b → x and y, for autograd and for ``torch.func``."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import is_legacy_mapped, is_mapped
from cvxfold.layer.request import CallRequest
from cvxfold.layer.session import Session
from cvxfold.layer.tangent import moved
from cvxfold.layer.taped import (
    Asked,
    TapedCall,
    joined,
    lane_by_lane,
    lanes_first,
    or_zeros,
    split,
    tangents_in_lanes,
)
from cvxfold.layer.twice import second, second_tangent
from cvxfold.problem.values import ProgramValues
from cvxfold.report.records import ForwardRecord
from cvxfold.report.report import Report

NOT_BATCHED = (
    "cvxfold: is_grads_batched (vectorize=True) is not supported; use torch.func.jacrev, or "
    "torch.autograd.functional.jacobian with vectorize=False"
)
NO_SECOND_DERIVATIVE = (
    "cvxfold: a folded gradient cannot be differentiated again (double backward) here: in JAX, and in the "
    "graphs of torch.compile and torch.export; the layer for PyTorch can outside of them"
)


def solve(values: ProgramValues, session: Session, request: CallRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Solve, differentiably in the values.

    Args:
        values: each ``(1|B, ·)``, float64.
        session: of the layer. Its report is filled in, also where this raises; the report's ``backward`` by
            the backward pass.
        request: what is asked, for a batch of B ≥ 0.

    Returns:
        x ``(B, n)`` and y ``(B, m)``, zero for instances without a solution, and which these are, ``(B,)``.

    Raises:
        InfeasibleError, UnboundedError: naming the instances that have no solution.
        ConvergenceError: an instance missed its tolerance and the options say so.
    """
    if request.batch == 0:
        nothing = torch.stack([value.sum() for value in values]).sum() * 0.0
        none = torch.zeros(0, dtype=torch.long, device=nothing.device)
        session.remember(Report(ForwardRecord.blank(none, 0.0)))
        structure = session.entries.structure
        x, y = (nothing.expand(0, size) for size in (structure.n, structure.m))
        return x, y, none > 0  # zero gradients for all
    return _Solve.apply(*values, TapedCall(session, request))


class _Solve(torch.autograd.Function):
    """(P, q, A, b) → (x, y) and which instances have no solution, differentiated by folding."""

    @staticmethod
    def forward(
        P: Tensor, q: Tensor, A: Tensor, b: Tensor, passes: TapedCall
    ) -> tuple[Tensor, Tensor, Tensor]:
        answer = passes.session.solve(ProgramValues(P, q, A, b), passes.request)
        passes.answer = answer
        # Copies: an output that its own node holds would never be freed.
        return answer.x.clone(), answer.y.clone(), answer.absent

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *values, passes = inputs
        ctx.passes = passes
        ctx.mark_non_differentiable(output[2])
        ctx.shared = [value.shape[0] == 1 and passes.request.batch > 1 for value in values]
        ctx.save_for_backward(*values)
        ctx.save_for_forward(*values)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if is_legacy_mapped(grad_outputs[0]):
            raise NotImplementedError(NOT_BATCHED)
        asked = Asked(ctx.passes, ctx.needs_input_grad[:4], ctx.shared)
        gradients = _Adjoint.apply(*grad_outputs[:2], *ctx.saved_tensors, asked)
        return *gradients, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        """The mapped dimension joins the batch."""
        *values, passes = inputs
        lanes, batch = info.batch_size, passes.request.batch
        request = replace(passes.request, batch=lanes * batch, warm=None, invalid=None)
        together = [joined(value, dim, lanes, batch) for value, dim in zip(values, in_dims[:4], strict=True)]
        _check_finite(together)
        flat = TapedCall(passes.session, request)
        found = _Solve.apply(*together, flat)
        passes.flattened = flat
        return tuple(value.unflatten(0, (lanes, batch)) for value in found), (0, 0, 0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor, None]:
        values = ctx.saved_tensors
        dots = or_zeros(tangents[:4], values)
        dx, dy = _Tangent.apply(*dots, *values, Asked(ctx.passes, [True] * 4, ctx.shared))
        return dx, dy, None


def adjoint(
    x_bar: Tensor, y_bar: Tensor, values: ProgramValues, passes: TapedCall
) -> tuple[Tensor | None, ...]:
    """Loss gradients on P, q, A and b of passes whose answer is known, differentiable in all arguments.

    Args:
        x_bar: loss gradients on x, ``(B, n)``. y_bar: on y, ``(B, m)``. values: P, q, A and b.
        passes: of the call.

    Returns:
        Each like its value; None for those that need none.
    """
    shared = [value.shape[0] == 1 and passes.request.batch > 1 for value in values]
    wanted = [value.requires_grad for value in values]
    return _Adjoint.apply(x_bar, y_bar, *values, Asked(passes, wanted, shared))


class _Adjoint(torch.autograd.Function):
    """Loss gradients on (x, y) → loss gradients on the wanted ones of (P, q, A, b)."""

    @staticmethod
    def forward(
        x_bar: Tensor,
        y_bar: Tensor,
        P: Tensor,
        q: Tensor,
        A: Tensor,
        b: Tensor,
        asked: Asked,
    ) -> tuple[Tensor | None, ...]:
        passes = asked.passes
        assert passes.answer is not None
        data = passes.session.differentiate(passes.answer, x_bar, y_bar)
        on = zip((data.on_P, data.on_q, data.on_A, data.on_b), asked.wanted, asked.shared, strict=True)
        return tuple(one(shared) if wanted else None for one, wanted, shared in on)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.asked = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> tuple[Tensor | None, ...]:
        """The second derivative is symmetric: loss gradients on the gradient are tangents of the data."""
        x_bar, y_bar, *values = ctx.saved_tensors
        dots, still = or_zeros(bars, values), or_zeros((None, None), (x_bar, y_bar))
        return *second(dots, still, (x_bar, y_bar), values, ctx.asked), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        x_bar, y_bar, *values = ctx.saved_tensors
        bar_dots, dots = or_zeros(tangents[:2], (x_bar, y_bar)), or_zeros(tangents[2:6], values)
        _, _, *found = second(dots, bar_dots, (x_bar, y_bar), values, ctx.asked)
        return tuple(one if wanted else None for one, wanted in zip(found, ctx.asked.wanted, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        """One backward pass where the forward pass was mapped too, else one for each loss gradient."""
        x_bar, y_bar, *values, asked = inputs
        lanes = info.batch_size
        if not any(dim is not None for dim in in_dims[2:6]):  # the forward pass, by this very map
            return lane_by_lane(_Adjoint.apply, inputs, in_dims, lanes)
        x_bar, y_bar = (
            lanes_first(value, dim, lanes) for value, dim in zip((x_bar, y_bar), in_dims[:2], strict=True)
        )
        flat = _Adjoint.apply(x_bar.flatten(0, 1), y_bar.flatten(0, 1), *values, asked.flattened())
        outs = [None if g is None else split(g, lanes, s) for g, s in zip(flat, asked.shared, strict=True)]
        return tuple(outs), tuple(None if out is None else 0 for out in outs)


class _Tangent(torch.autograd.Function):
    """Tangents of (P, q, A, b) → tangents of (x, y)."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, asked = inputs
        passes, tangents, values = asked.passes, ProgramValues(*tensors[:4]), ProgramValues(*tensors[4:])
        assert passes.answer is not None
        return moved(passes.session, passes.answer, values, tangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.asked = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        *dots, P, q, A, b = ctx.saved_tensors
        values = P, q, A, b
        on_dots = _Adjoint.apply(*bars, *values, replace(ctx.asked, wanted=[True] * 4))
        still = or_zeros((None, None), bars)
        _, _, *on_values = second(dots, still, bars, values, ctx.asked)
        return *on_dots, *on_values, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:
        *dots, P, q, A, b = ctx.saved_tensors
        values = P, q, A, b
        of_dots, others = or_zeros(tangents[:4], values), or_zeros(tangents[4:8], values)
        return second_tangent(of_dots, dots, others, values, ctx.asked)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        """One pass where the forward pass was mapped too, else one for each tangent."""
        return tangents_in_lanes(_Tangent.apply, inputs, in_dims, info.batch_size)


def _check_finite(values: list[Tensor]) -> None:
    """The parameters could not be looked at under the map; their data can be, outside of the last one."""
    if any(is_mapped(value) for value in values):
        return
    if not bool(torch.stack([value.isfinite().all() for value in values]).all()):
        raise ValueError(
            "parameters: expected finite values (positive ones in a geometric program), got others under vmap"
        )
