"""The projection onto a cone as an autograd operation that can be differentiated twice.

s = Π_K(u) has the pullback g ↦ D(u) g, and that has the pullbacks g' ↦ D(u) g' towards g and
g' ↦ D²Π_K(u)[g, g'] towards u, both by symmetry. Each step is a function of its own that computes what it
needs from u, so that autograd never sees an eigendecomposition or a search for a root.
"""

from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import nothing_kept, refusing
from cvxfold.cones.base import Cone


def project(cone: Cone, u: Tensor) -> Tensor:
    """Π_K(u) for ``u`` of shape ``(B, m)``, differentiable twice by reverse mode.

    At kinks the derivatives are those that `Cone.derivative` and `Cone.second_derivative` choose.

    Args:
        cone: K.
        u: ``(B, m)``.

    Returns:
        ``(B, m)``.

    Raises:
        NotImplementedError: in the backward pass of a third derivative.
    """
    out: Tensor = _Project.apply(cone, u)  # pyright: ignore[reportAssignmentType]
    return out


class _Project(torch.autograd.Function):
    """u ↦ Π_K(u)."""

    @staticmethod
    def forward(cone: Cone, u: Tensor) -> Tensor:
        return _fresh(cone.project(u), u)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.cone, u = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Any]:
        (u,) = ctx.saved_tensors
        return None, _Derivative.apply(ctx.cone, u, grads[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        return _folded(_Project, info, in_dims, *args)


class _Derivative(torch.autograd.Function):
    """(u, v) ↦ D(u) v."""

    @staticmethod
    def forward(cone: Cone, u: Tensor, v: Tensor) -> Tensor:
        return _fresh(cone.derivative(u).apply(lambda d: d, v), v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.cone, u, v = inputs
        ctx.save_for_backward(u, v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Any, Any]:
        u, v = ctx.saved_tensors
        _, to_u, to_v = ctx.needs_input_grad
        return (
            None,
            _SecondDerivative.apply(ctx.cone, u, v, grads[0]) if to_u else None,
            _Derivative.apply(ctx.cone, u, grads[0]) if to_v else None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        return _folded(_Derivative, info, in_dims, *args)


def _fresh(out: Tensor, given: Tensor) -> Tensor:
    """A result that is not the argument itself, as it is for a cone without rows."""
    return given.clone() if out is given else out


class _SecondDerivative(torch.autograd.Function):
    """(u, v, w) ↦ D²Π_K(u)[v, w]; the end of the line."""

    @staticmethod
    def forward(cone: Cone, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return cone.second_derivative(u, v, w)

    setup_context = staticmethod(nothing_kept)
    backward = staticmethod(
        refusing(
            "cvxfold: third derivatives of a projection onto a cone are not available; "
            "differentiate at most twice"
        )
    )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        return _folded(_SecondDerivative, info, in_dims, *args)


def _folded(
    function: type[torch.autograd.Function],
    info: Any,
    in_dims: tuple[Any, ...],
    cone: Cone,
    *points: Tensor,
) -> tuple[Tensor, int]:
    """One call for all of `torch.vmap`'s slices, as a larger batch: cones are batched already.

    A rule that torch generates would trip over the loops that look at their residuals.
    """
    full = [
        point.expand(info.batch_size, *point.shape) if dim is None else point.movedim(dim, 0)
        for point, dim in zip(points, in_dims[1:], strict=True)
    ]
    out: Tensor = function.apply(cone, *(point.flatten(0, 1) for point in full))  # pyright: ignore
    return out.unflatten(0, full[0].shape[:2]), 0
