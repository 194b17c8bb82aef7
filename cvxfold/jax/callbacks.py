"""What JAX calls on the host: arrays with leading dimensions in, one batch for the engine, arrays out.

Every array has the same number of leading dimensions, each of its size or of 1 where the array is the same
for all of it: those of ``jax.vmap``, outermost first, and the call's own batch dimension. Instances are
counted row by row over all of them.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvxfold.layer.recall import Passes
from cvxfold.layer.said import product
from cvxfold.layer.solved import Solved

Array = NDArray[Any]
Lead = tuple[int, ...]


def common(leads: Sequence[Lead]) -> Lead:
    """The leading dimensions of a call, from those of its arrays."""
    return np.broadcast_shapes(*leads)


@dataclass(frozen=True, eq=False)
class HostCall:
    """One place in a program that calls a layer.

    Args:
        passes: of the layer, with the options of the call.
        dtypes: of the parameters and of the variables, as JAX has them.
    """

    passes: Passes
    dtypes: tuple[Sequence[np.dtype[Any]], Sequence[np.dtype[Any]]]

    @cached_property
    def shapes(self) -> tuple[Sequence[Lead], Sequence[Lead]]:
        """Of the parameters and of the variables."""
        layer = self.passes.layer
        return (
            [spec.shape for spec in layer.parameters_of_problem],
            [spec.shape for spec in layer.variables_of_problem],
        )

    @property
    def state_width(self) -> int:
        """Numbers of 32 bits of an instance's state."""
        return 2 * self.passes.width

    def solve(self, parameters: Sequence[Array], leaves_state: bool) -> list[Array]:
        """The variables, each ``(*lead, *shape)``; and the state, ``(*lead, state_width)``, if asked for."""
        lead = common([self._leads(parameters)[k] for k in range(len(parameters))] or [()])
        batch = math.prod(lead)
        if batch == 0:
            return self._nothing(lead, leaves_state)
        found, state = self.passes.solve(self._flat(parameters, lead), batch, leaves_state)
        outputs = [
            self._array(value, dtype).reshape((*lead, *shape))
            for value, dtype, shape in zip(found, self.dtypes[1], self.shapes[1], strict=True)
        ]
        if state is not None:
            outputs.append(state.numpy().view(np.uint32).reshape((*lead, self.state_width)))
        return outputs

    @torch.no_grad()
    def pull(
        self,
        parameters: Sequence[Array],
        state: Array,
        bars: Sequence[Array],
        leads: Sequence[Lead | None],
    ) -> list[Array]:
        """Gradients of the parameters from cotangents ``(*lead, *shape)`` of all variables.

        Args:
            leads: the leading dimensions that each gradient is to have, summed where they are 1; None where
                it is not wanted.
        """
        _, shapes = self.shapes
        axes = _Axes.of(self._leads(parameters), state, bars, shapes)
        wanted = [lead is not None for lead in leads]
        summed = [lead is not None and all(lead[axis] == 1 for axis in axes.inner) for lead in leads]
        if axes.is_empty:
            return self._zeros(leads)
        rows: list[list[Tensor | None]] = []
        rows_of_jacobian = product() if axes.repeats > 1 else nullcontext()
        with self.passes.recall.lock, rows_of_jacobian:
            solved = self._again(parameters, state, axes)
            given = [axes.split(bar, shape) for bar, shape in zip(bars, shapes, strict=True)]
            for k in range(axes.repeats):
                row = [_conjugate(self._tensor(bar[k])) for bar in given]
                row = [bar.expand(solved.batch, *bar.shape[1:]) for bar in row]
                rows.append(solved.pull(row, wanted, summed))
        found = []
        for column, shape, dtype, lead in zip(
            zip(*rows, strict=True), self.shapes[0], self.dtypes[0], leads, strict=True
        ):
            if lead is not None:
                parts = [_conjugate(part) for part in column if part is not None]
                found.append(axes.joined(self._array(torch.stack(parts), dtype), shape, lead))
        return found

    @torch.no_grad()
    def push(self, parameters: Sequence[Array], state: Array, dots: Sequence[Array | None]) -> list[Array]:
        """Tangents ``(*lead, *shape)`` of the variables, from those of the parameters, None for zero."""
        shapes, outs = self.shapes
        known = [(dot, shape) for dot, shape in zip(dots, shapes, strict=True) if dot is not None]
        axes = _Axes.of(
            self._leads(parameters), state, [dot for dot, _ in known], [shape for _, shape in known]
        )
        if axes.is_empty:
            return self._nothing(axes.lead, leaves_state=False)
        with self.passes.recall.lock:
            solved = self._again(parameters, state, axes)
            given = [
                None if dot is None else axes.split(dot, shape)
                for dot, shape in zip(dots, shapes, strict=True)
            ]
            rows = [
                solved.push([None if dot is None else self._tensor(dot[k]) for dot in given])
                for k in range(axes.repeats)
            ]
        return [
            axes.joined(self._array(torch.stack(column), dtype), shape, axes.lead)
            for column, shape, dtype in zip(zip(*rows, strict=True), outs, self.dtypes[1], strict=True)
        ]

    def _again(self, parameters: Sequence[Array], state: Array, axes: "_Axes") -> Solved:
        known = np.ascontiguousarray(np.broadcast_to(state, (*axes.own, self.state_width)))
        flat = torch.from_numpy(known.view(np.float64).reshape(-1, self.passes.width).copy())
        return self.passes.again(self._flat(parameters, axes.own), flat)

    def _leads(self, parameters: Sequence[Array]) -> list[Lead]:
        return [
            value.shape[: value.ndim - len(shape)]
            for value, shape in zip(parameters, self.shapes[0], strict=True)
        ]

    def _flat(self, parameters: Sequence[Array], lead: Lead) -> list[Tensor]:
        """Each ``(1|B, *shape)``."""
        found = []
        for value, own, shape in zip(parameters, self._leads(parameters), self.shapes[0], strict=True):
            if any(size != 1 for size in own):
                value = np.broadcast_to(value, (*lead, *shape))
            found.append(self._tensor(value.reshape(-1, *shape)))
        return found

    @staticmethod
    def _tensor(value: Array) -> Tensor:
        """A copy that PyTorch may write to, in a dtype that it has."""
        known = value.dtype in (np.float32, np.float64, np.complex64, np.complex128)
        return torch.from_numpy(np.array(value, dtype=value.dtype if known else np.float64, order="C"))

    @staticmethod
    def _array(value: Tensor, dtype: np.dtype[Any]) -> Array:
        return value.detach().resolve_conj().numpy().astype(dtype, copy=False)

    def _nothing(self, lead: Lead, leaves_state: bool) -> list[Array]:
        """For a batch of none."""
        outputs = [
            np.zeros((*lead, *shape), dtype)
            for shape, dtype in zip(self.shapes[1], self.dtypes[1], strict=True)
        ]
        return [*outputs, np.zeros((*lead, self.state_width), np.uint32)] if leaves_state else outputs

    def _zeros(self, leads: Sequence[Lead | None]) -> list[Array]:
        """Gradients where there is no instance."""
        return [
            np.zeros((*lead, *shape), dtype)
            for lead, shape, dtype in zip(leads, self.shapes[0], self.dtypes[0], strict=True)
            if lead is not None
        ]


def _conjugate(value: Tensor) -> Tensor:
    """JAX's cotangents of complex numbers are the conjugates of PyTorch's gradients."""
    return value.conj() if value.is_complex() else value


@dataclass(frozen=True)
class _Axes:
    """The leading dimensions of a backward pass: those of the solutions, and those that repeat them.

    Args:
        lead: of the pass. own: of the solutions, 1 where the pass repeats them.
    """

    lead: Lead
    own: Lead

    @classmethod
    def of(
        cls, leads: Sequence[Lead], state: Array, given: Sequence[Array], shapes: Sequence[Lead]
    ) -> "_Axes":
        own = common([*leads, state.shape[:-1]])
        of_given = [
            value.shape[: value.ndim - len(shape)] for value, shape in zip(given, shapes, strict=True)
        ]
        return cls(common([own, *of_given]), own)

    @property
    def is_empty(self) -> bool:
        """Whether there is no instance."""
        return math.prod(self.lead) == 0

    @cached_property
    def outer(self) -> list[int]:
        """The axes that repeat the solutions."""
        return [axis for axis, size in enumerate(self.own) if size == 1 < self.lead[axis]]

    @cached_property
    def inner(self) -> list[int]:
        """The others."""
        return [axis for axis in range(len(self.lead)) if axis not in self.outer]

    @property
    def repeats(self) -> int:
        """How often the solutions are repeated."""
        return math.prod(self.lead[axis] for axis in self.outer)

    def split(self, value: Array, shape: Lead) -> Array:
        """``(*lead', *shape)`` → ``(repeats, B, *shape)``; 1 for B where it is the same for all of it."""
        count = len(self.lead)
        same = all(value.shape[axis] == 1 for axis in self.inner)
        wide = [1 if same and axis in self.inner else size for axis, size in enumerate(self.lead)]
        value = np.broadcast_to(value, (*wide, *shape))
        order = [*self.outer, *self.inner, *range(count, value.ndim)]
        return value.transpose(order).reshape(self.repeats, -1, *shape)

    def joined(self, value: Array, shape: Lead, lead: Lead) -> Array:
        """``(repeats, 1|B, *shape)`` → ``(*lead, *shape)``, summed where ``lead`` is 1."""
        count = len(self.lead)
        inner = [1 if value.shape[1] == 1 else self.lead[axis] for axis in self.inner]
        outer = [self.lead[axis] for axis in self.outer]
        value = value.reshape((*outer, *inner, *shape))
        order = np.argsort([*self.outer, *self.inner])
        value = value.transpose([*order, *range(count, value.ndim)])
        sums = tuple(axis for axis in range(count) if lead[axis] == 1 < value.shape[axis])
        return value.sum(axis=sums, keepdims=True) if sums else value
