"""One application of the update at its fixed point, on autograd's tape, and Φ = ∂F/∂x as products with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cvxfold.fold.layout import IterateLayout
from cvxfold.layer.said import product

MOST_DENSE = 64  # entries of an instance up to which Φ is made as a matrix, by as many products
_LARGEST_GROWTH = 1e14  # of a pivot, beyond which it is rounding
_LEAST = 1e-12  # singular values below this fraction of the largest are zero


class UpdateTape:
    """y = F(x), differentiable in x and in the parameters.

    Args:
        update: F, of x and whatever it depends on.
        layout: of x.
        x: ``(B, m)``.
        params: of the update; those that require a gradient get one from y.
    """

    def __init__(
        self, update: Callable[..., Any], layout: IterateLayout, x: Tensor, params: Sequence[Any]
    ) -> None:
        self.layout = layout
        self.x = [leaf.detach().requires_grad_() for leaf in layout.unpacked(x)]
        with torch.enable_grad():
            self.y = layout.leaves(update(layout.tree(self.x), *params))
        self.u = x

    def pulled(self, w: Tensor, create_graph: bool = False, among: Sequence[Tensor] = ()) -> list[Tensor]:
        """(∂F/∂x)ᵀw as leaves, and (∂F/∂θ)ᵀw for the tensors θ ``among`` those that F depends on."""
        wanted = [*self.x, *among]
        leaves = self.layout.unpacked(w if create_graph else w.detach())
        # A part of F may be constant.
        on = [(y, bar) for y, bar in zip(self.y, leaves, strict=True) if y.requires_grad]
        if not on:
            return [torch.zeros_like(leaf) for leaf in wanted]
        ys, bars = zip(*on, strict=True)
        with product():
            found = torch.autograd.grad(
                ys, wanted, bars, retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        return [
            torch.zeros_like(leaf) if got is None else got for leaf, got in zip(wanted, found, strict=True)
        ]

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀw, ``(B, m)``."""
        return self.layout.packed(self.pulled(w))

    def jvp(self, v: Tensor) -> Tensor:
        """Φv, ``(B, m)``: the derivative of w ↦ Φᵀw, which is linear, in its transposed direction.

        Raises:
            NotImplementedError: F cannot be differentiated twice.
        """
        pulled, w = self._linear
        if not pulled.requires_grad:
            return torch.zeros_like(v)  # Φ = 0
        try:
            (found,) = torch.autograd.grad(pulled, w, v, retain_graph=True)
        except RuntimeError as error:
            raise _not_twice(error) from error
        return found

    @cached_property
    def _linear(self) -> tuple[Tensor, Tensor]:
        """Φᵀw and w, on the tape."""
        with torch.enable_grad():
            w = torch.zeros_like(self.u).requires_grad_()
            try:
                return self.layout.packed(self.pulled(w, create_graph=True)), w
            except RuntimeError as error:
                raise _not_twice(error) from error

    @property
    def is_small(self) -> bool:
        """Whether Φ is made as a matrix."""
        return self.layout.size <= MOST_DENSE

    @cached_property
    def matrix(self) -> Tensor:
        """Φ, ``(B, m, m)``, a row for each product with Φᵀ."""
        batch, m = self.u.shape
        if not m:
            return self.u.new_zeros(batch, 0, 0)
        return torch.stack([self.vjp(e.expand(batch, m)) for e in _eye(self.u)], dim=1)

    @cached_property
    def factor(self) -> "DenseFactor":
        """Of I − Φ."""
        return DenseFactor.of(_eye(self.u) - self.matrix)


@dataclass(frozen=True)
class DenseFactor:
    """LU factors of a batch of matrices; pseudoinverses of those that are singular.

    Args:
        LU: ``(B, m, m)``. pivots: ``(B, m)``.
        singular: which are, ``(b,)`` indices.
        pseudoinverse: of those, ``(b, m, m)``.
    """

    LU: Tensor
    pivots: Tensor
    singular: Tensor
    pseudoinverse: Tensor

    @classmethod
    def of(cls, S: Tensor) -> "DenseFactor":
        """Of S ``(B, m, m)``."""
        LU, pivots, _ = torch.linalg.lu_factor_ex(S)
        diagonal = LU.diagonal(dim1=-2, dim2=-1).abs()
        if not S.shape[-1]:
            return cls(LU, pivots, pivots.new_zeros(0, dtype=torch.long), S[:0])
        lost = ~(diagonal.amin(-1) * _LARGEST_GROWTH > diagonal.amax(-1)) & S.isfinite().all(-1).all(-1)
        rows = lost.nonzero().squeeze(-1)
        return cls(LU, pivots, rows, torch.linalg.pinv(S[rows], rtol=_LEAST))

    def solve(self, r: Tensor, transposed: bool) -> Tensor:
        """S⁻¹r or S⁻ᵀr, ``(B, m)``; of least norm where S is singular."""
        found = torch.linalg.lu_solve(self.LU, self.pivots, r.unsqueeze(-1), adjoint=transposed).squeeze(-1)
        if len(self.singular):
            inverse = self.pseudoinverse.mT if transposed else self.pseudoinverse
            found[self.singular] = (inverse @ r[self.singular].unsqueeze(-1)).squeeze(-1)
        return found


class UpdateLinearization:
    """Φ of some instances of a tape, for the linear methods.

    A product with Φᵀ goes back through the whole batch, with zeros for the instances that are left out.

    Args:
        tape: of all.
        rows: which, ``(b,)``; None for all.
    """

    def __init__(self, tape: UpdateTape, rows: Tensor | None = None) -> None:
        self._tape, self._rows = tape, rows

    def vjp(self, w: Tensor) -> Tensor:
        """Φᵀ w for ``w`` ``(b, m)``."""
        if "matrix" in vars(self._tape):
            return (w.unsqueeze(-2) @ self._own(self._tape.matrix)).squeeze(-2)
        return self._through(self._tape.vjp, w)

    def jvp(self, v: Tensor) -> Tensor:
        """Φ v for ``v`` ``(b, m)``."""
        if self._tape.is_small:
            return (self._own(self._tape.matrix) @ v.unsqueeze(-1)).squeeze(-1)
        return self._through(self._tape.jvp, v)

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """(I − Φᵀ)⁻¹ r, ``(b, m)``, by a dense factorization."""
        return self._through(lambda whole: self._tape.factor.solve(whole, transposed=True), r)

    def inverse(self, r: Tensor) -> Tensor:
        """(I − Φ)⁻¹ r, ``(b, m)``, by a dense factorization."""
        return self._through(lambda whole: self._tape.factor.solve(whole, transposed=False), r)

    def take(self, index: Tensor) -> "UpdateLinearization":
        """Keep the instances ``index`` ``(b,)``."""
        return UpdateLinearization(self._tape, index if self._rows is None else self._rows[index])

    def _own(self, matrices: Tensor) -> Tensor:
        return matrices if self._rows is None else matrices[self._rows]

    def _through(self, product: Callable[[Tensor], Tensor], some: Tensor) -> Tensor:
        if self._rows is None:
            return product(some)
        whole = some.new_zeros(self._tape.u.shape)
        whole[self._rows] = some
        return product(whole)[self._rows]


class TransposedLinearization:
    """Φᵀ in the place of Φ: the linear methods then solve the tangent system (I − Φ) v = r."""

    def __init__(self, phi: UpdateLinearization) -> None:
        self._phi = phi

    def vjp(self, w: Tensor) -> Tensor:
        """Φ w for ``w`` ``(b, m)``."""
        return self._phi.jvp(w)

    def jvp(self, v: Tensor) -> Tensor:
        """Φᵀ v for ``v`` ``(b, m)``."""
        return self._phi.vjp(v)

    def inverse_transposed(self, r: Tensor) -> Tensor:
        """(I − Φ)⁻¹ r, ``(b, m)``."""
        return self._phi.inverse(r)

    def take(self, index: Tensor) -> "TransposedLinearization":
        """Keep the instances ``index`` ``(b,)``."""
        return TransposedLinearization(self._phi.take(index))


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[1], dtype=like.dtype, device=like.device)


def _not_twice(error: RuntimeError) -> NotImplementedError:
    """What to raise where the product with Φᵀ cannot itself be differentiated."""
    return NotImplementedError(
        f"products with Φ need an update that can be differentiated twice, and this one cannot ({error}); "
        "products with Φᵀ suffice for 'gmres', 'bicgstab', 'anderson' and 'lfpi'"
    )
