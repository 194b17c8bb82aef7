"""Solution vectors → the variables that the user asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cvxfold.problem.structure import Canonical, OutputSpec


class Recovery:
    """Picks one variable out of x or y and gives it its shape.

    Args:
        spec: where it stands.
        device: of the solution vectors.
    """

    def __init__(self, spec: OutputSpec, device: torch.device) -> None:
        self._spec = spec
        self._index = torch.as_tensor(spec.index.ravel(), device=device)
        self._factors = torch.as_tensor(spec.factors.ravel(), device=device)
        self._limits = limits(spec, device)

    def __call__(self, x: Tensor, y: Tensor, signed: bool = True) -> Tensor:
        """The variable, ``(B, *shape)``, from x ``(B, n)`` and y ``(B, m)``.

        ``signed``: whether entries get the signs that they should have; an iterate has its own.
        """
        terms = (x if self._spec.source == "primal" else y).index_select(1, self._index) * self._factors
        terms = terms.reshape(len(terms), *self._spec.raw_shape)
        if (
            signed and self._limits is not None
        ):  # as a constant, since a sign that rounding broke changes no gradient
            known = terms.detach()
            terms = terms + (within(known, self._limits) - known)
        return finished(terms, self._spec)


def given_back(
    bars: Sequence[Tensor | None], outputs: Sequence[OutputSpec], points: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Loss gradients on x ``(B, n)`` and y ``(B, m)``, those of terms added to those given.

    Args:
        bars: on the terms of each variable, ``(*batch, *raw_shape)``; None for zero.
        outputs: the variables. points: what there is already.
    """
    x_bar, y_bar = points
    for bar, spec in zip(bars, outputs, strict=True):
        if bar is None:
            continue
        index, factors = (
            torch.from_numpy(part.ravel()).to(bar.device) for part in (spec.index, spec.factors)
        )
        terms = bar.to(torch.float64).reshape(len(x_bar), -1) * factors
        if spec.source == "primal":
            x_bar = x_bar.index_add(1, index, terms)
        else:
            y_bar = y_bar.index_add(1, index, terms)
    return x_bar, y_bar


def finished(terms: Tensor, spec: OutputSpec) -> Tensor:
    """The variable from its terms ``(*batch, *raw_shape)``."""
    if spec.index.shape[0] > 1:
        terms = terms.sum(terms.dim() - len(spec.raw_shape))
    if spec.is_complex:
        terms = torch.complex(terms[..., 0], terms[..., 1])
    return terms.exp() if spec.exp else terms


def handed_out(variables: Sequence[Tensor], dtype: torch.dtype, absent: Tensor | None) -> list[Tensor]:
    """Variables ``(B, *shape)`` as a call returns them.

    Args:
        variables: float64 or complex128.
        dtype: the real one that is asked for.
        absent: instances that get NaN, ``(B,)``; None for none.
    """
    found = [variable.to(dtype.to_complex() if variable.is_complex() else dtype) for variable in variables]
    if absent is None:
        return found
    return [
        torch.where(absent.view(-1, *[1] * (variable.dim() - 1)), torch.nan, variable) for variable in found
    ]


def looks_of(canonical: Canonical) -> tuple[Tensor, Tensor]:
    """Loss gradients on x ``(n,)`` and y ``(m,)`` of a loss that looks at all entries of all outputs.

    No two are alike, so that there is hardly a direction which they do not see.
    """
    structure = canonical.structure
    none = torch.zeros(1, structure.n, dtype=torch.float64), torch.zeros(1, structure.m, dtype=torch.float64)
    x, y = given_back([_unlike(spec) for spec in canonical.outputs], canonical.outputs, none)
    return x[0], y[0]


def _unlike(spec: OutputSpec) -> Tensor:
    """A number for each entry of a variable, at each of its terms, ``(1, *raw_shape)``."""
    terms, entries, parts = spec.index.shape
    place = torch.arange(entries * parts, dtype=torch.float64)
    numbers = 1.5 + torch.cos(1.7 * place.square() + place)
    return numbers.expand(terms, -1).reshape(1, *spec.raw_shape)


def limits(spec: OutputSpec, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """The least and the largest value of each term, ``(*raw_shape)``, float64; None where none has a sign."""
    if spec.signs is None:
        return None
    least, largest = (torch.as_tensor(end.reshape(spec.raw_shape), device=device) for end in spec.bounds)
    return least, largest


def within(terms: Tensor, limits: tuple[Tensor, Tensor] | None) -> Tensor:
    """Terms ``(*batch, *raw_shape)`` with the signs that they should have."""
    return terms if limits is None else terms.clamp(*limits)
