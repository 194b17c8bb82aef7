"""A structure and a layout as the compiled module has them, and calls of its passes."""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvxfold.engines.lanes.binding import (
    BackwardCall,
    BackwardFigure,
    Call,
    Description,
    ForwardFigure,
    KernelSettings,
    address,
    functions,
    pointers,
)
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.pattern import Pattern

FEW = 2
"""Instances that a narrow pack holds, where most of a wide one would be empty."""


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Passed:
    """What a forward pass leaves.

    Args:
        figures: by :class:`ForwardFigure`, ``(B, ·)``.
        state: for the backward pass, packed. shared: whether the batch shares P and A.
        unsolved: how many instances are not solved.
        width: instances in a pack of the state.
    """

    figures: Tensor
    state: Tensor
    shared: bool
    unsolved: int
    width: int


@dataclass(frozen=True)
class Begin:
    """Where a forward pass starts, and where it ends.

    Args:
        start: x, y and s of each instance, ``(B, n + 2m)``, NaN for those without; or the ends of another
            pass over similar data, which are then equilibrated alike. None for none.
        ends: to be filled with x, y, s, D, E and their age, ``(B, 2n + 3m + 1)``; None for no need of them.
    """

    start: Tensor | None
    ends: Tensor | None


def empty(*shape: int, device: torch.device = CPU) -> Tensor:
    """Memory for numbers, on the CPU unless asked otherwise, whatever torch's default device.

    Raises:
        MemoryError: there is none.
    """
    try:
        return torch.empty(*shape, dtype=torch.float64, device=device)
    except RuntimeError as error:
        raise MemoryError(f"out of memory: {error}") from error


class CompiledBatch:
    """The compiled module's analysis of a structure, with the layout of a call.

    Args:
        pattern: of the structure. maps: the layout.
        order: of elimination.
    """

    device = CPU

    def __init__(self, pattern: Pattern, maps: Maps, order: np.ndarray) -> None:
        self._maps, self._pattern, self._order = maps, pattern, order
        self._shape = pattern.n, pattern.m
        self._analyses: dict[bool, _Analysis] = {}
        columns = [sum(maps.sizes[:k]) for k in range(len(maps.sizes) + 1)]
        self._reach_matrices = _reaching(maps, columns)

    @property
    def counts(self) -> tuple[int, int]:
        """Entries of L, and multiplications of a factorization."""
        analysis = self._analysis(narrow=False)
        entries, products = ctypes.c_int64(), ctypes.c_int64()
        analysis.module.cvxfold_counts(analysis.handle, ctypes.byref(entries), ctypes.byref(products))
        return entries.value, products.value

    def bytes_of(self, shared: bool) -> int:
        """What an instance takes, at work and until its backward pass."""
        analysis = self._analysis(narrow=True)
        at_work = analysis.module.cvxfold_bytes_at_work(analysis.handle, shared)
        kept = 8 * analysis.module.cvxfold_state_size(analysis.handle, analysis.width, shared)
        return (at_work + kept) // analysis.width

    def _analysis(self, narrow: bool) -> "_Analysis":
        """Of the module for few instances or for many, made at its first use."""
        if narrow not in self._analyses:
            self._analyses[narrow] = _Analysis(functions(narrow), self._pattern, self._maps, self._order)
        return self._analyses[narrow]

    def forward(
        self,
        parameters: Sequence[Tensor],
        batch: int,
        outputs: Sequence[Tensor],
        settings: KernelSettings,
        begin: Begin | None = None,
    ) -> Passed:
        """Solve.

        Args:
            parameters: float64, contiguous, on the CPU, each of its size or B times that.
            batch: B.
            outputs: to be filled, ``(B, ·)`` each, float64 and contiguous.
            settings: of the pass.
            begin: where to start, and whether a later pass is to start at the end of this one.

        Raises:
            MemoryError: memory does not suffice.
        """
        strides, shared = self._varying(parameters, batch)
        analysis = self._analysis(narrow=batch <= FEW)
        size = analysis.module.cvxfold_state_size(analysis.handle, batch, shared)
        state, figures = empty(size + 8), empty(batch, len(ForwardFigure))
        start, ends = (None, None) if begin is None else (begin.start, begin.ends)
        aligned = state[(-state.data_ptr() // 8) % 8 :]
        given = pointers([value.data_ptr() for value in parameters])
        steps = (ctypes.c_int64 * len(strides))(*strides)
        filled = pointers([value.data_ptr() for value in outputs])
        call = Call(
            batch, torch.get_num_threads(), shared, ctypes.addressof(given), ctypes.addressof(steps),
            0 if start is None else start.shape[1], None if start is None else start.data_ptr(),
            ctypes.addressof(filled), None if ends is None else ends.data_ptr(),
            figures.data_ptr(), aligned.data_ptr(),
        )  # fmt: skip
        unsolved = analysis.module.cvxfold_forward(
            analysis.handle, ctypes.byref(settings), ctypes.byref(call)
        )
        if unsolved < 0:
            raise MemoryError("out of memory: the forward pass does not fit")
        return Passed(figures, aligned[:size], shared, unsolved, analysis.width)

    def _varying(self, parameters: Sequence[Tensor], batch: int) -> tuple[list[int], bool]:
        """From one instance to the next, numbers of each parameter; and whether the batch shares P and A."""
        strides = [
            size if value.numel() > size else 0
            for value, size in zip(parameters, self._maps.sizes, strict=True)
        ]
        shared = batch > 1 and not any(
            stride and reaches for stride, reaches in zip(strides, self._reach_matrices, strict=True)
        )
        return strides, shared

    def ends(self, batch: int) -> Tensor:
        """Memory for where a pass ends.

        Raises:
            MemoryError: there is none.
        """
        n, m = self._shape
        return empty(batch, 2 * n + 3 * m + 1, device=self.device)

    def points(self, passed: Passed) -> tuple[Tensor, Tensor, Tensor]:
        """x ``(B, n)``, y and s ``(B, m)`` that a forward pass left.

        Raises:
            MemoryError: memory does not suffice.
        """
        batch, (n, m) = len(passed.figures), self._shape
        x, y, s = (empty(batch, size) for size in (n, m, m))
        filled = [value.data_ptr() for value in (x, y, s)]
        analysis = self._analysis_of(passed)
        state = passed.state.data_ptr()
        if analysis.module.cvxfold_points(analysis.handle, batch, passed.shared, state, *filled):
            raise MemoryError("out of memory: the solutions do not fit")
        return x, y, s

    def backward(
        self,
        passed: Passed,
        output_gradients: Sequence[Tensor | None],
        gradients: Sequence[Tensor | None],
        tolerances: tuple[float, float, float],
        raw: bool = False,
    ) -> tuple[Tensor, int]:
        """Differentiate.

        Args:
            passed: what the forward pass left.
            output_gradients: loss gradients on the outputs, ``(B, ·)``, float64 and contiguous; None for
                zero.
            gradients: to be filled with those on the parameters ``(B, ·)``, None where unwanted; with ``raw``
                p ``(B, n)`` and v ``(B, m)``.
            tolerances: on the residual, on J's smallest singular value, and on the offset.
            raw: whether the adjoint itself is wanted.

        Returns:
            Figures by :class:`BackwardFigure`, ``(B, ·)``, and how many instances somebody should look at.

        Raises:
            MemoryError: memory does not suffice.
        """
        batch = len(passed.figures)
        figures = empty(batch, len(BackwardFigure))
        given = pointers([0 if value is None else value.data_ptr() for value in output_gradients])
        filled = pointers([0 if value is None else value.data_ptr() for value in gradients])
        call = BackwardCall(
            batch, torch.get_num_threads(), passed.shared, raw, *tolerances, ctypes.addressof(given),
            ctypes.addressof(filled), figures.data_ptr(), passed.state.data_ptr(),
        )  # fmt: skip
        analysis = self._analysis_of(passed)
        doubtful = analysis.module.cvxfold_backward(analysis.handle, ctypes.byref(call))
        if doubtful < 0:
            raise MemoryError("out of memory: the backward pass does not fit")
        return figures, doubtful

    def _analysis_of(self, passed: Passed) -> "_Analysis":
        """That whose packs have the state's width."""
        narrow = self._analysis(narrow=True)
        return narrow if narrow.width == passed.width else self._analysis(narrow=False)


class _Analysis:
    """The analysis of a structure by one of the modules.

    Args:
        module: the module. pattern, maps, order: as of :class:`CompiledBatch`.

    Attributes:
        handle: what the module calls it. width: instances in a pack.
    """

    def __init__(self, module: Any, pattern: Pattern, maps: Maps, order: np.ndarray) -> None:
        cones, layout = pattern.cones, maps.layout()
        arrays = [
            np.asarray(values, dtype=kind)
            for values, kind in (
                (cones.second_order, np.int32), (cones.semidefinite, np.int32), (cones.power, np.float64),
                (pattern.P[0], np.int32), (pattern.P[1], np.int32), (pattern.A_start, np.int32),
                (pattern.A_column, np.int32), (order, np.int32),
            )
        ]  # fmt: skip
        description = Description(
            pattern.n, pattern.m, cones.zero, cones.nonnegative, len(cones.second_order),
            len(cones.semidefinite), cones.exponential, len(cones.power), pattern.P.shape[1],
            len(pattern.A_column), *map(address, arrays),
        )  # fmt: skip
        self.module, self.width = module, module.cvxfold_width()
        self.handle = module.cvxfold_new(ctypes.byref(description), ctypes.byref(layout))
        if not self.handle:
            raise MemoryError("out of memory: the analysis of the program does not fit")
        weakref.finalize(self, module.cvxfold_free, self.handle)


def _reaching(maps: Maps, columns: Sequence[int]) -> list[bool]:
    """Which parameters, whose entries begin at ``columns``, have an entry in P or A."""
    reached = np.zeros(columns[-1] + 1, dtype=bool)
    for data in (maps.P, maps.A):
        reached[data.matrix.indices] = True
    return [bool(reached[first:last].any()) for first, last in pairwise(columns)]
