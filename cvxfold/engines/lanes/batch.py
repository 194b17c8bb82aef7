"""A structure and a layout as the compiled module has them, and calls of its passes."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvxfold.compat.patterns import pattern_of
from cvxfold.engines.lanes.analysis import SymbolicAnalysis
from cvxfold.engines.lanes.binding import (
    BackwardCall,
    BackwardFigure,
    Call,
    ForwardFigure,
    KernelSettings,
    functions,
    packing,
)
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.memory import CPU, aligned, empty, empty_like
from cvxfold.engines.lanes.pattern import Pattern

FEW = 2
"""Instances that are solved in packs of one, where most of a wide pack would be empty."""


_MOST_PLANS = 64


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
        ends: to be filled with x, y, s, D, E and their age, ``(B, 2n + 3m + 1)``, or with x, y and s alone,
            ``(B, n + 2m)``, where the batch shares P and A; None for no need of them.
        places: the instances' rows of both, which are more then, no two the same, ``(B,)``; of those who are
            not solved they stay as they are. None for rows in the instances' order.
    """

    start: Tensor | None
    ends: Tensor | None
    places: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class _Plan:
    """What calls with equal sizes have in common.

    Args:
        analysis: of the module that serves. shared: whether the batch shares P and A.
        strides: from one instance to the next, of each parameter.
        state, figures: patterns of what a forward pass leaves.
    """

    analysis: SymbolicAnalysis
    shared: bool
    strides: Sequence[int]
    state: Tensor
    figures: Tensor


class CompiledBatch:
    """The compiled module's analysis of a structure, with the layout of a call.

    Args:
        pattern: of the structure. maps: the layout.
        order: of elimination.
    """

    device = CPU
    renews_in_place = True  # begins and ends where points are kept, by their places
    _keeps_constants = True  # P and A that no parameter reaches are prepared once for all calls

    def __init__(self, pattern: Pattern, maps: Maps, order: np.ndarray) -> None:
        self._maps, self._pattern, self._order = maps, pattern, order
        self._shape = pattern.n, pattern.m
        parameters, outputs = len(maps.sizes), len(maps.outputs)
        self._call = packing(Call, parameters, parameters, outputs)
        self._backward_call = packing(BackwardCall, outputs, 0, parameters)
        self._analyses: dict[bool, SymbolicAnalysis] = {}
        self._plans: dict[tuple[int, ...], _Plan] = {}
        columns = [sum(maps.sizes[:k]) for k in range(len(maps.sizes) + 1)]
        self._reach_matrices = _reaching(maps, columns)
        self._shares_always = self._keeps_constants and not any(self._reach_matrices)

    @property
    def counts(self) -> tuple[int, int]:
        """Entries of L, and multiplications of a factorization."""
        analysis = self._analysis(single=False)
        entries, products = ctypes.c_int64(), ctypes.c_int64()
        analysis.module.cvxfold_counts(analysis.handle, ctypes.byref(entries), ctypes.byref(products))
        return entries.value, products.value

    def bytes_of(self, shared: bool) -> int:
        """What an instance takes, at work and until its backward pass."""
        analysis = self._analysis(single=True)
        at_work = analysis.module.cvxfold_bytes_at_work(analysis.handle, shared)
        kept = 8 * analysis.module.cvxfold_state_size(analysis.handle, analysis.width, shared)
        return (at_work + kept) // analysis.width

    def _analysis(self, single: bool) -> SymbolicAnalysis:
        """Of the module for few instances or for many, made at its first use."""
        if single not in self._analyses:
            self._analyses[single] = SymbolicAnalysis(
                functions(single), self._pattern, self._maps, self._order
            )
        return self._analyses[single]

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
        plan = self._plan((batch, *[value.numel() for value in parameters]))
        analysis, shared = plan.analysis, plan.shared
        state, figures = aligned(plan.state), empty_like(plan.figures)
        start, ends, places = (None,) * 3 if begin is None else (begin.start, begin.ends, begin.places)
        call = self._call.pack(
            batch, torch.get_num_threads(), shared, 0, 0,
            0 if start is None else start.shape[1], 0 if start is None else start.data_ptr(),
            0, 0 if ends is None else ends.data_ptr(), figures.data_ptr(), state.data_ptr(),
            0 if places is None else places.ctypes.data,
            *[value.data_ptr() for value in parameters], *plan.strides,
            *[value.data_ptr() for value in outputs],
        )  # fmt: skip
        unsolved = analysis.module.cvxfold_forward(analysis.handle, settings, call)
        if unsolved < 0:
            raise MemoryError("out of memory: the forward pass does not fit")
        return Passed(figures, state, shared, unsolved, analysis.width)

    def _plan(self, numbers: tuple[int, ...]) -> "_Plan":
        """For a batch, ``numbers[0]``, with so many numbers of each parameter; made at their first use."""
        if numbers not in self._plans:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[numbers] = self._new_plan(*numbers)
        return self._plans[numbers]

    def _new_plan(self, batch: int, *numbers: int) -> "_Plan":
        strides, shared = self._varying(numbers, batch)
        analysis = self._analysis(single=batch <= FEW or self._analysis(single=False).alone)
        size = analysis.module.cvxfold_state_size(analysis.handle, batch, shared)
        return _Plan(analysis, shared, strides, pattern_of((size,)), pattern_of((batch, len(ForwardFigure))))

    def _varying(self, numbers: Sequence[int], batch: int) -> tuple[list[int], bool]:
        """From one instance to the next, numbers of each parameter, which has so many in all.

        And whether the batch shares P and A.
        """
        strides = [size if given > size else 0 for given, size in zip(numbers, self._maps.sizes, strict=True)]
        if batch == 1:
            return strides, self._shares_always
        varying = any(
            stride and reaches for stride, reaches in zip(strides, self._reach_matrices, strict=True)
        )
        return strides, not varying

    def width_of_ends(self, parameters: Sequence[Tensor], batch: int) -> int:
        """How many numbers tell where an instance of a pass over these parameters ends."""
        n, m = self._shape
        _, shared = self._varying([value.numel() for value in parameters], batch)
        return n + 2 * m if shared else 2 * n + 3 * m + 1

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
        asked: Maps | None = None,
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
            asked: what reaches the data of all that a gradient is asked for on: kinks and errors are judged
                by what is felt there. None for everything.

        Returns:
            Figures by :class:`BackwardFigure`, ``(B, ·)``, and how many instances somebody should look at.

        Raises:
            MemoryError: memory does not suffice.
        """
        batch = passed.figures.shape[0]
        figures = empty(batch, len(BackwardFigure))
        filled = [*gradients, None, None] if raw else gradients  # as many as there are parameters
        call = self._backward_call.pack(
            batch, torch.get_num_threads(), passed.shared, raw, *tolerances, 0, 0, figures.data_ptr(),
            passed.state.data_ptr(), 0 if asked is None else ctypes.addressof(asked.layout),
            *[0 if value is None else value.data_ptr() for value in output_gradients],
            *[0 if value is None else value.data_ptr() for value in filled],
        )  # fmt: skip
        analysis = self._analysis_of(passed)
        doubtful = analysis.module.cvxfold_backward(analysis.handle, call)
        if doubtful < 0:
            raise MemoryError("out of memory: the backward pass does not fit")
        return figures, doubtful

    def _analysis_of(self, passed: Passed) -> SymbolicAnalysis:
        """That whose packs have the state's width."""
        single = self._analysis(single=True)
        return single if single.width == passed.width else self._analysis(single=False)


def _reaching(maps: Maps, columns: Sequence[int]) -> list[bool]:
    """Which parameters, whose entries begin at ``columns``, have an entry in P or A."""
    reached = np.zeros(columns[-1] + 1, dtype=bool)
    for data in (maps.P, maps.A):
        reached[data.matrix.indices] = True
    return [bool(reached[first:last].any()) for first, last in pairwise(columns)]
