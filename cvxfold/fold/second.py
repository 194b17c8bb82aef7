"""Second derivatives of a folded iteration.

The gradient of a loss that has x̄ for its own gradient on x* = F(x*, θ) is

    g(x̄, x*, θ) = Jᵀw          (I − Φᵀ) w = x̄          Φ = ∂F/∂x and J = ∂F/∂θ at x*

Let ḡ be the gradient of another loss on g, and a bar over anything else that loss's gradient on it. Then
w̄ = Jḡ, and from d w = (I − Φᵀ)⁻¹ (d x̄ + dΦᵀ w), with v the solution of the tangent system,

    (I − Φ) v = w̄        on x̄: v        on x* and θ: ∂⟨ḡ, Jᵀw⟩ + ∂⟨v, Φᵀw⟩,  w and v held

The derivatives of products with Jᵀ and Φᵀ are autograd's. What arrives at x* goes on to θ as any gradient
on it does, which is the second adjoint system.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.functorch import nothing_kept, refusing
from cvxfold.compat.trees import flattened, on_tensors
from cvxfold.errors import ConvergenceError, ConvergenceWarning
from cvxfold.fold.adjoint import Backward
from cvxfold.fold.reach import graph_of
from cvxfold.fold.tape import TransposedLinearization, UpdateLinearization, UpdateTape
from cvxfold.methods import solve_adjoint

NO_SECOND_DERIVATIVE = (
    "cvxfold: a folded gradient cannot be differentiated again (double backward) where the update closes "
    "over a tensor that was computed from others, or over one of its parameters as well; pass it as a "
    "parameter of its own, or use backward='unrolled' or finite differences of the gradient"
)
NOT_OF_AN_APPROXIMATION = (
    "cvxfold: the gradient by backward='jacobian_free' is an approximation and cannot be differentiated "
    "again (double backward); use another method"
)
NO_THIRD_DERIVATIVE = "cvxfold: third derivatives of a folded iteration are not available"


class Again:
    """The update at x* on a tape of its own, cut off from whatever its parameters were computed from.

    Args:
        backward: of the call.
        closed_over: the leaves that the update depends on beside its parameters.
    """

    def __init__(self, backward: Backward, closed_over: Sequence[Tensor]) -> None:
        place = backward.place
        params = on_tensors(_own, tuple(place.params))
        self.backward = backward
        self.tape = UpdateTape(place.update, place.tape.layout, place.tape.u, params)
        own = [leaf for leaf in flattened(params)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]
        self.theta = [*own, *closed_over]
        self._own = own

    @property
    def is_complete(self) -> bool:
        """Whether there is no way out of the update but to x, to its parameters and to the known leaves.

        What two evaluations have in common was there before them.
        """
        first, place = self.backward.tape, self.backward.place
        known = [
            leaf for leaf in flattened(place.params)[0] if isinstance(leaf, Tensor) and leaf.requires_grad
        ]
        there = graph_of(first.y, [*first.x, *known])
        here = graph_of(self.tape.y, [*self.tape.x, *self._own])
        leaves = {id(leaf) for leaf in self.theta}
        return all(id(getattr(node, "variable", None)) in leaves for node in here & there)

    def gradient(self, w: Tensor) -> list[Tensor]:
        """Jᵀw, by tensor of θ."""
        return self.tape.pulled(w, among=self.theta)[len(self.tape.x) :]

    def tangent(self, w_bar: Tensor) -> Tensor:
        """v of (I − Φ) v = w̄, ``(B, m)``.

        Raises:
            ConvergenceError: it misses its tolerance, with ``on_unconverged="raise"``.
        """
        backward = self.backward
        phi = TransposedLinearization(UpdateLinearization(backward.tape))
        system = solve_adjoint(backward.method, phi, w_bar, backward.adjoint_settings)
        missed = (~system.converged).nonzero().squeeze(-1).tolist()
        if missed:
            text = (
                f"second derivative: the tangent system (I − Φ) v = w̄ by {system.method} is not solved to "
                f"the tolerance for instances {missed}: relative residual up to "
                f"{float(system.residual.amax()):.1e}"
            )
            backward.complain(text, ConvergenceError, ConvergenceWarning)
        return system.w

    def second(self, w: Tensor, bars: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """What the gradient ḡ on g, ``bars``, gives on x̄ ``(B, m)``, on the leaves of x*, and on θ."""
        layout, count = self.tape.layout, len(self.tape.x)
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            pulled = self.tape.pulled(w, create_graph=True, among=self.theta)
        on_x, on_theta = pulled[:count], pulled[count:]
        (w_bar, *first) = _derivatives(on_theta, [w, *self.tape.x, *self.theta], bars)
        v = self.tangent(w_bar)
        rest = _derivatives(on_x, [*self.tape.x, *self.theta], layout.unpacked(v))
        both = [a + b for a, b in zip(first, rest, strict=True)]
        return v, both[:count], both[count:]


def differentiable_gradient(
    again: Again, w: Tensor, bars: Sequence[Tensor], x: Sequence[Tensor], theta: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Jᵀw by tensor of θ, as a function of x̄, x* and θ.

    Args:
        again: the update.
        w: ``(B, m)``.
        bars, x: the leaves of x̄ and x*, where their graphs are. theta: θ, the same.
    """
    return _Gradient.apply(again, w, *bars, *x, *theta)


def refused(reason: str, w: Sequence[Tensor], depends: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The leaves of w, as a function of all that it depends on whose differentiation raises."""
    return _Refused.apply(reason, len(w), *w, *depends)


class _Gradient(torch.autograd.Function):
    """(x̄, x*, θ) → Jᵀw, by leaf."""

    @staticmethod
    def forward(again: Again, w: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(again.gradient(w))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.again, w, *tensors = inputs
        ctx.save_for_backward(w, *tensors)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        w, *tensors = ctx.saved_tensors
        return None, None, *_Second.apply(ctx.again, w, len(bars), *bars, *tensors)


class _Second(torch.autograd.Function):
    """The gradient on Jᵀw → those on x̄, x* and θ. All that they depend on is an input: none is lost."""

    @staticmethod
    def forward(again: Again, w: Tensor, count: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        v, on_x, on_theta = again.second(w, inputs[:count])
        return (*again.tape.layout.unpacked(v), *on_x, *on_theta)

    setup_context = staticmethod(nothing_kept)
    backward = staticmethod(refusing(NO_THIRD_DERIVATIVE))


class _Refused(torch.autograd.Function):
    """(w, what it depends on) → w, which cannot be differentiated."""

    @staticmethod
    def forward(reason: str, count: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf.clone() for leaf in inputs[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.reason = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(ctx.reason)


def _own(leaf: Tensor) -> Tensor:
    return leaf.detach().requires_grad_() if leaf.requires_grad else leaf


def _derivatives(outputs: Sequence[Tensor], inputs: Sequence[Tensor], bars: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of ⟨outputs, bars⟩ on each input."""
    on = [(output, bar) for output, bar in zip(outputs, bars, strict=True) if output.requires_grad]
    if not on:
        return [torch.zeros_like(leaf) for leaf in inputs]
    some, their = zip(*on, strict=True)
    return list(
        torch.autograd.grad(some, inputs, their, retain_graph=True, allow_unused=True, materialize_grads=True)
    )
