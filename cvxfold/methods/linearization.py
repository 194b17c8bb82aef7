"""A fixed-point iteration, linearized at its fixed point: all that the linear methods know of it."""

from typing import Protocol, runtime_checkable

from torch import Tensor


class Linearization(Protocol):
    """Φ = ∂F/∂u at the fixed points of a batched iteration u ← F(u), by its products.

    Nothing else of the iteration is known here: any F whose fixed point is the answer will do.
    """

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀ w for ``w`` of shape ``(B, k)``."""
        ...

    def jvp(self, v: Tensor) -> Tensor:
        """Φ v for ``v`` of shape ``(B, k)``."""
        ...

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """An approximation of (I − Φᵀ)⁻¹ r, ``(B, k)``, as good as the iteration can cheaply give.

        Raises:
            NotImplementedError: there is none.
        """
        ...

    def take(self, index: Tensor) -> "Linearization":
        """Keep the instances ``index`` ``(b,)``."""
        ...


@runtime_checkable
class HasMatrix(Protocol):
    """A linearization that knows Φ as a matrix."""

    @property
    def matrix(self) -> Tensor:
        """Φ, ``(B, k, k)``."""
        ...
