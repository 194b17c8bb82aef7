"""The differentiable solve: stored entries of P, q, A, b → x and y, for autograd and for ``torch.func``."""

from typing import Any

import torch
from torch import Tensor

from cvxfold.layer.request import Call
from cvxfold.layer.transforms import is_legacy_mapped, is_mapped
from cvxfold.problem.parametrize import ProgramValues
from cvxfold.report.report import ForwardRecord, Report


def solve(values: ProgramValues, call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Solve, differentiably in the values.

    Args:
        values: each ``(1|B, ·)``, float64.
        call: what is asked, for a batch of B ≥ 0. Its report, and the core's, is filled in, also where this
            raises; the report's ``backward`` by the backward pass.

    Returns:
        x ``(B, n)`` and y ``(B, m)``, zero for instances without a solution, and which these are, ``(B,)``.

    Raises:
        InfeasibleError, UnboundedError: naming the instances that have no solution.
        ConvergenceError: an instance missed its tolerance and the options say so.
    """
    if call.batch == 0:
        core, nothing = call.core, torch.stack([value.sum() for value in values]).sum() * 0.0
        core.report = Report(ForwardRecord.empty(nothing.device))
        x, y = (nothing.expand(0, size) for size in (core.structure.n, core.structure.m))
        return x, y, torch.zeros(0, dtype=torch.bool, device=nothing.device)  # zero gradients for all
    return _Solve.apply(*values, call)


class _Solve(torch.autograd.Function):
    """(P, q, A, b) → (x, y) and which instances have no solution, differentiated by folding."""

    @staticmethod
    def forward(P: Tensor, q: Tensor, A: Tensor, b: Tensor, call: Call) -> tuple[Tensor, Tensor, Tensor]:
        solved = call.solved = call.core.forward(ProgramValues(P, q, A, b), call)
        # Copies: an output that its own node holds would never be freed.
        return solved.x.clone(), solved.y.clone(), solved.absent

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *values, call = inputs
        ctx.call = call
        ctx.mark_non_differentiable(output[2])
        ctx.shared = [value.shape[0] == 1 and call.batch > 1 for value in values]
        ctx.save_for_backward(*values)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if is_legacy_mapped(grad_outputs[0]):
            raise NotImplementedError(
                "cvxfold: is_grads_batched (vectorize=True) is not supported; use torch.func.jacrev, or "
                "torch.autograd.functional.jacobian with vectorize=False"
            )
        wanted = ctx.needs_input_grad[:4]
        gradients = _Adjoint.apply(*grad_outputs[:2], *ctx.saved_tensors, ctx.call, wanted, ctx.shared)
        return *gradients, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        """The mapped dimension joins the batch."""
        *values, call = inputs
        lanes = info.batch_size
        flat = Call(call.core, lanes * call.batch, call.options, warm_start=False)
        joined = [
            _joined(value, dim, lanes, call.batch) for value, dim in zip(values, in_dims[:4], strict=True)
        ]
        _check_finite(joined)
        found = _Solve.apply(*joined, flat)
        call.flattened = flat
        return tuple(value.unflatten(0, (lanes, call.batch)) for value in found), (0, 0, 0)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "cvxfold: forward-mode derivatives are not available; use reverse mode "
            "(backward, torch.func.jacrev)"
        )


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
        call: Call,
        wanted: tuple[bool, ...],
        shared: list[bool],
    ) -> tuple[Tensor | None, ...]:
        assert call.solved is not None
        data = call.core.backward(call.solved, x_bar, y_bar, call)
        on = (data.on_P, data.on_q, data.on_A, data.on_b)
        return tuple(one(s) if w else None for one, w, s in zip(on, wanted, shared, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "cvxfold: a folded gradient cannot be differentiated again (double backward). For Hessians of a "
            "function of the solution use finite differences of its gradient"
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        """One backward pass where the forward pass was mapped too, else one for each loss gradient."""
        x_bar, y_bar, *values, call, wanted, shared = inputs
        lanes = info.batch_size
        x_bar, y_bar = (
            _lanes_first(value, dim, lanes) for value, dim in zip((x_bar, y_bar), in_dims[:2], strict=True)
        )
        forward_was_mapped = any(dim is not None for dim in in_dims[2:6])  # by this very map
        if not forward_was_mapped:
            rows = [
                _Adjoint.apply(x_bar[lane], y_bar[lane], *values, call, wanted, shared)
                for lane in range(lanes)
            ]
            outs = [
                torch.stack(column) if w else None
                for column, w in zip(zip(*rows, strict=True), wanted, strict=True)
            ]
        else:
            flat = _Adjoint.apply(
                x_bar.flatten(0, 1), y_bar.flatten(0, 1), *values, call.flattened, wanted, [False] * 4
            )
            outs = [None if g is None else _split(g, lanes, s) for g, s in zip(flat, shared, strict=True)]
        return tuple(outs), tuple(None if out is None else 0 for out in outs)


def _lanes_first(value: Tensor, dim: int | None, lanes: int) -> Tensor:
    return value.expand(lanes, *value.shape) if dim is None else value.movedim(dim, 0)


def _joined(value: Tensor, dim: int | None, lanes: int, batch: int) -> Tensor:
    """The stored entries of all lanes as one batch ``(1|lanes·B, ·)``."""
    if dim is None and value.shape[0] == 1:
        return value
    value = _lanes_first(value, dim, lanes)
    return value.expand(lanes, batch, value.shape[-1]).flatten(0, 1)


def _check_finite(values: list[Tensor]) -> None:
    """The parameters could not be looked at under the map; their data can be, outside of the last one."""
    if any(is_mapped(value) for value in values):
        return
    if not bool(torch.stack([value.isfinite().all() for value in values]).all()):
        raise ValueError(
            "parameters: expected finite values (positive ones in a geometric program), got others under vmap"
        )


def _split(gradient: Tensor, lanes: int, shared: bool) -> Tensor:
    """The gradients of a joined batch by lane; summed over each lane's batch where the datum was shared."""
    by_lane = gradient.unflatten(0, (lanes, -1))
    return by_lane.sum(1, keepdim=True) if shared else by_lane
