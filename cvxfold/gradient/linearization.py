"""The splitting iteration of an engine, linearized: what every method for the gradient needs of it.

Loss gradients and adjoints are in the units of the user's program; states u, of k entries, are the engine's
own.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.methods.linearization import Linearization
from cvxfold.problem.program import Program


class Pushed(NamedTuple):
    """An adjoint w of the iteration as one of the program.

    Args:
        p: ``(B, n)``. v: ``(B, m)``: with P p + Aᵀ v = x̄ where w solves its system.
        weight: how much of the adjoint stands on each entry of the state, relative to the largest, ``(B,
            k)``.
        own: the same in the engine's own units.
    """

    p: Tensor
    v: Tensor
    weight: Tensor
    own: Batched


@dataclass(frozen=True)
class Kinks:
    """Where the projection has no derivative, seen from a state.

    Args:
        margin: about the distance to the nearest such point, for each entry that of its block, ``(B, k)``;
            infinite where there is none.
        size: the largest of what makes up the state, ``(B,)``.
        terms: what distances are measured against, for each entry that of its block, ``(B, k)``.
        interior: a direction into the cone and its dual, ``(k,)``: off every kink.
        blocks: the number of each entry's block, ``(k,)``.
        curved: whether the projection's derivative varies smoothly in it, ``(k,)``.
    """

    margin: Tensor
    size: Tensor
    terms: Tensor
    interior: Tensor
    blocks: Tensor
    curved: Tensor

    def largest(self, v: Tensor) -> Tensor:
        """The largest |vᵢ| of each entry's block in its place, ``(B, k)``."""
        if not len(self.blocks):
            return v
        index = self.blocks.expand_as(v)
        return torch.zeros_like(v).scatter_reduce(1, index, v.abs(), "amax").gather(1, index)


class ProgramLinearization(Linearization, Protocol):
    """Φ = ∂F/∂u at the solutions of a batch, and the way from loss gradients to an adjoint and back."""

    @property
    def program(self) -> Program:
        """What the solutions are of."""
        ...

    @property
    def penalty(self) -> Tensor:
        """ρ, ``(B,)``."""
        ...

    @property
    def relaxation(self) -> float:
        """α: I − Φ = αJ, J being the Jacobian of the residual map."""
        ...

    @property
    def units(self) -> Tensor:
        """σ, ``(B,)``: the loss gradient on a state is σ times what ``pull`` gives."""
        ...

    @property
    def proximal(self) -> Tensor | None:
        """What a proximal term adds to P's diagonal for the derivative, ``(n,)``; None for nothing."""
        ...

    @property
    def u(self) -> Tensor:
        """The states, ``(B, k)``."""
        ...

    @property
    def x(self) -> Tensor:
        """The solutions that they stand for, ``(B, n)``."""
        ...

    @property
    def y(self) -> Tensor:
        """Likewise, ``(B, m)``."""
        ...

    @property
    def blind(self) -> Tensor:
        """Instances with a direction of x that neither P nor A sees, ``(B,)``."""
        ...

    def image(self, u: Tensor) -> Tensor:
        """F(u) for any states ``(B, k)``."""
        ...

    def inverse(self, r: Tensor) -> Tensor:
        """An approximation of (I − Φ)⁻¹ r, ``(B, k)``."""
        ...

    def offset(self) -> Tensor:
        """δu = (I − Φ)⁻¹ (F(u) − u + e), ``(B, k)``: how far u may be from the solutions, to first order.

        e is what rounding may have left of the terms of F(u) − u, or hidden.
        """
        ...

    def unshown(self) -> tuple[Tensor, Tensor]:
        """How far x ``(B, n)`` and y ``(B, m)`` may be off beside what moving u shows, to first order.

        By what rounding may have left, or hidden, in x(u).
        """
        ...

    def pull(self, x_bar: Tensor, y_bar: Tensor) -> Tensor:
        """ū ``(B, k)`` from loss gradients x̄ ``(B, n)`` and ȳ ``(B, m)``."""
        ...

    def push(self, w: Tensor, x_bar: Tensor, y_bar: Tensor) -> Pushed:
        """The adjoint of the program from w ``(B, k)``, and the loss gradients that it answers."""
        ...

    def off(self, adjoint: Any) -> tuple[Tensor, Tensor]:
        """How far p ``(B, n)`` and v ``(B, m)`` may be off, to first order.

        By what an adjoint, as ``push`` has it in its ``own`` units, leaves of its equations, and by what
        rounding may have left of their terms, or hidden.
        """
        ...

    def left_of_rows(self, adjoint: Any, residual: Tensor) -> Tensor:
        """The largest share of its own terms that an adjoint leaves of a cone's rows, ``(B,)``.

        Args:
            adjoint: as ``push`` has it in its ``own`` units.
            residual: of w, relative, ``(B,)``: what that may leave counts as none.
        """
        ...

    def turned(self, adjoint: Any, to: Any) -> tuple[Tensor, Tensor]:
        """How p ``(B, n)`` and v ``(B, m)`` move, to first order, where Π turns to that of ``to``.

        Args:
            adjoint: as ``push`` has it in its ``own`` units. to: this iteration, ``moved``.
        """
        ...

    def alone(self, w: Tensor) -> Tensor:
        """What w ``(B, k)`` itself adds to v, ``(B, m)``; the rest of v comes of p."""
        ...

    def direction(self, du: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
        """How x ``(B, n)`` and y ``(B, m)`` move, to first order, where u moves by ``du`` ``(B, k)``.

        A part of less than ``floor`` times the length of ``du``, in the engine's units, is zero.
        """
        ...

    def kinks(self) -> Kinks:
        """Where the projection has no derivative."""
        ...

    def moved(self, du: Tensor) -> "ProgramLinearization":
        """The same iteration, linearized at u + ``du``."""
        ...

    def take(self, index: Tensor) -> "ProgramLinearization":
        """Keep the instances ``index`` ``(b,)``."""
        ...
