"""What a cone must offer: a batched projection, its derivative as a spectral operator, and the next one."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

SpectralFunction = Callable[[Tensor], Tensor]
"""A scalar function on [0, 1], applied elementwise to a tensor of eigenvalues."""


class Derivative(Protocol):
    """D = DΠ_K(u), known by its eigenvectors and its eigenvalues in [0, 1].

    The projection onto a closed convex cone is firmly nonexpansive, so D is symmetric with
    0 ⪯ D ⪯ I. Everything the method needs (D itself, I − 2D, (D + δI)⁻¹, the Newton weight
    (I − D)(D + δI)⁻¹) is a function of D, so one operation serves them all.
    """

    def apply(self, f: SpectralFunction, v: Tensor) -> Tensor:
        """Multiply by f(D).

        Args:
            f: the function of the eigenvalues.
            v: ``(B, m)``, or ``(B, m, k)`` for k vectors at once; a leading 1 broadcasts.

        Returns:
            f(D) v, of v's shape with the full batch size.
        """
        ...

    def spread(self, f: SpectralFunction, terms: Tensor, signs: Tensor) -> Tensor:
        """f(D) v for a v whose parts along the eigenvectors are as large as its terms let them be.

        Args:
            f: the function of the eigenvalues, not negative.
            terms: at least |v|, ``(B, m)``.
            signs: of the parts, ``(m,)``.

        Returns:
            Q (signs ∘ f(Λ) |Q|ᵀ terms), or somewhat more, ``(B, m)``: a part that is small because its
            eigenvector is small where v is large stays small.
        """
        ...

    def take(self, index: Tensor) -> "Derivative":
        """Keep the instances ``index`` ``(b,)`` only."""
        ...


class Cone(Protocol):
    """A closed convex cone K ⊂ Rᵐ in the conventions of SCS."""

    @property
    def dim(self) -> int:
        """m, its rows."""
        ...

    def project(self, u: Tensor) -> Tensor:
        """Π_K(u) for ``u`` of shape ``(B, m)``; returns ``(B, m)``."""
        ...

    def interior(self, u: Tensor) -> Tensor:
        """A vector inside both K and K*, ``(m,)``, of u's dtype and device; zero on the zero cone."""
        ...

    def derivative(self, u: Tensor) -> Derivative:
        """DΠ_K(u) for ``u`` of shape ``(B, m)``: an element of the generalized Jacobian at kinks."""
        ...

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """D²Π_K(u)[v, w], the derivative of DΠ_K(u) v along w.

        Π_K is the gradient of ½‖Π_K‖², so ⟨z, D²Π_K(u)[v, w]⟩ is symmetric in z, v and w.

        Args:
            u, v, w: ``(B, m)``.

        Returns:
            ``(B, m)``; zero where Π_K is linear about u, finite at kinks.
        """
        ...

    def margin(self, u: Tensor) -> Tensor:
        """About the distance from ``u`` ``(B, m)`` to the nearest point where Π_K has no derivative.

        Returns:
            For each row the distance of its block, ``(B, m)``: one number on the rows of a non-separable
            cone, zero at kinks, infinite on the zero cone, NaN where u is NaN.
        """
        ...
