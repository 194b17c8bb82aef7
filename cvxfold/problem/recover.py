"""Solution vectors → the variables that the user asked for."""

import math

import numpy as np
import torch
from torch import Tensor

from cvxfold.problem.structure import OutputSpec


class Recovery:
    """Picks one variable out of x or y and gives it its shape.

    Args:
        spec: where it stands.
        device: of the solution vectors.
    """

    def __init__(self, spec: OutputSpec, device: torch.device) -> None:
        self._spec = spec
        self._order: Tensor | None = None
        self._scale: Tensor | None = None
        self._limits = limits(spec, device)
        if spec.packing != "full":
            order, scale = places(spec)
            self._order = torch.as_tensor(order, device=device)
            self._scale = torch.as_tensor(scale, device=device)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The variable, ``(B, *shape)``, from x ``(B, n)`` and y ``(B, m)``."""
        spec = self._spec
        entries = (x if spec.source == "primal" else y)[:, spec.entries]
        batch = entries.shape[0]
        if self._order is not None and self._scale is not None:
            value = entries.index_select(1, self._order) * self._scale
            value = value.reshape(batch, *spec.shape)
        else:
            reversed_shape = spec.shape[::-1]
            value = entries.reshape(batch, *reversed_shape)
            value = value.permute(0, *range(len(spec.shape), 0, -1))
        if self._limits is not None:  # as a constant, since a sign that rounding broke changes no gradient
            known = value.detach()
            value = value + (within(known, self._limits) - known)
        return value.exp() if spec.exp else value


def places(spec: OutputSpec) -> tuple[np.ndarray, np.ndarray]:
    """For each entry of the variable, row by row: its place among those that it is made of, and a factor."""
    if spec.packing == "full":
        order = np.arange(math.prod(spec.shape)).reshape(spec.shape, order="F").ravel()
        return order, np.ones(len(order))
    if spec.places is not None:
        return spec.places, np.ones(len(spec.places))
    n = spec.shape[0]
    place = np.zeros((n, n), dtype=np.int64)
    if spec.packing == "triangle":
        rows, columns = np.triu_indices(n)
        scale = np.ones((n, n))
    else:
        columns, rows = np.triu_indices(n)  # the lower triangle, column by column
        scale = np.where(np.eye(n, dtype=bool), 1.0, 0.5**0.5)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return place.ravel(), scale.ravel()


def limits(spec: OutputSpec, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """The least and the largest value of each entry, ``(*shape)``, float64; None where none has a sign."""
    if spec.signs is None:
        return None
    signs, most = spec.signs.reshape(spec.shape), np.inf
    least, largest = np.where(signs > 0, 0.0, -most), np.where(signs < 0, 0.0, most)
    return torch.as_tensor(least, device=device), torch.as_tensor(largest, device=device)


def within(value: Tensor, limits: tuple[Tensor, Tensor] | None) -> Tensor:
    """A value ``(B, *shape)`` or ``(*shape)`` with the signs that it should have."""
    return value if limits is None else value.clamp(*limits)
