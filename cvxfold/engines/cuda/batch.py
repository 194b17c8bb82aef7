"""Calls of the kernels' passes over batches on a CUDA device."""

from collections.abc import Sequence
from ctypes import byref
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cvxfold.engines.cuda.records import (
    SLOTS,
    WARP,
    Arrays,
    Counters,
    Task,
    relocate,
    shape_on_device,
)
from cvxfold.engines.cuda.toolkit import kernels_for
from cvxfold.engines.lanes.batch import Begin, CompiledBatch, Passed
from cvxfold.engines.lanes.binding import (
    BackwardCall,
    BackwardFigure,
    Call,
    ForwardFigure,
    KernelSettings,
    Layout,
    Shape,
)
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.memory import empty
from cvxfold.engines.lanes.pattern import Pattern

WARPS = 8
"""Warps of a multiprocessor at work at once, at most: registers leave room for no more."""

SHARE = 0.5
"""Of the free memory, for the memory at work."""

FEW = 4
"""Instances of a warp where a batch is too small to fill the device with a thread for each: eight threads
share each one's work."""

KINDS = ("second_order", "semidefinite", "exponential", "power")
"""Of cones, of which the kernels leave out those that a structure has not."""


class Launcher(Protocol):
    """What starts kernels."""

    def launch(self, name: str, blocks: int, task: Any) -> None:
        """Start one, in order with those started before."""
        ...


def has_room(maps: Maps) -> bool:
    """Whether a task has room for the addresses of a call with these maps."""
    return max(2 * len(maps.sizes) + len(maps.outputs), len(maps.sizes) + 4) <= SLOTS


class CudaBatch(CompiledBatch):
    """The compiled module's analysis of a structure, whose kernels run on a CUDA device.

    Instances are packed by warps; what a pass leaves is laid out as on the CPU, in packs of as many.

    Args:
        pattern: of the structure. maps: the layout, which :func:`has_room`. order: of elimination.
        device: of all tensors.
    """

    renews_in_place = _keeps_constants = False

    def __init__(self, pattern: Pattern, maps: Maps, order: np.ndarray, device: torch.device) -> None:
        super().__init__(pattern, maps, order)
        self.device = device
        analysis = self._analysis(single=False)
        shape = Shape()
        analysis.module.cvxfold_shape(analysis.handle, byref(shape))
        arrays = Arrays()
        self._task = Task(shape=shape_on_device(shape, arrays), layout=maps.laid_out(arrays.place))
        self._arrays = arrays.copied(device)
        relocate(self._task.shape, self._arrays.data_ptr())
        relocate(self._task.layout, self._arrays.data_ptr())
        self._asked: dict[int, tuple[Maps, Layout, Tensor]] = {}
        self._factor = shape.nnz_L + 2 * (shape.n + shape.m)
        self._data = shape.nnz_P + shape.nnz_A + shape.n + shape.m
        self._multiprocessors = (
            torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
        )
        self._without = tuple(kind.upper() for kind in KINDS if not getattr(shape, kind))

    def _layout_of(self, maps: Maps) -> Layout:
        """A layout on the device, copied there once."""
        if id(maps) not in self._asked:
            arrays = Arrays()
            layout = maps.laid_out(arrays.place)
            there = arrays.copied(self.device)
            relocate(layout, there.data_ptr())
            self._asked[id(maps)] = maps, layout, there
        return self._asked[id(maps)][1]

    def _launcher(self, lanes: int) -> Launcher:
        """The kernels for so many instances of a warp."""
        return kernels_for(self.device, lanes, self._without)

    def _lanes(self, batch: int) -> int:
        """How many instances of a batch a warp should have."""
        return WARP if batch >= WARP * WARPS * self._multiprocessors / 2 else FEW

    def forward(
        self,
        parameters: Sequence[Tensor],
        batch: int,
        outputs: Sequence[Tensor],
        settings: KernelSettings,
        begin: Begin | None = None,
    ) -> Passed:
        """Solve, as :meth:`CompiledBatch.forward` does.

        Raises:
            RuntimeError: a CUDA graph is being captured.
        """
        self._refuse_to_be_captured()
        strides, shared = self._varying([value.numel() for value in parameters], batch)
        lanes = self._lanes(batch)
        state = empty(self._state_size(batch, lanes, shared), device=self.device)
        figures = empty(batch, len(ForwardFigure), device=self.device)
        start, ends = (None, None) if begin is None else (begin.start, begin.ends)
        task = self._new_task(parameters, strides, outputs)
        count = len(strides)
        task.settings = settings
        task.call = Call(
            batch, 0, shared, 0, count, 0 if start is None else start.shape[1],
            None if start is None else start.data_ptr(), 2 * count,
            None if ends is None else ends.data_ptr(), figures.data_ptr(), state.data_ptr(), None,
        )  # fmt: skip
        blocks, memory = self._at_work(task, batch, lanes, shared)
        lists = empty(-(-batch * 9 // 8), device=self.device)
        task.misled, task.left = lists.data_ptr(), lists.data_ptr() + 4 * batch
        task.open = lists.data_ptr() + 8 * batch
        counters = self._counters(task)
        self._launcher(lanes).launch("prepare", 1, task)
        for stage in range(_STAGES):
            task.stage = stage
            self._launcher(lanes).launch("forward", blocks, task)
        unsolved = self._read(counters)
        del memory, lists
        return Passed(figures, state, shared, unsolved, lanes)

    def points(self, passed: Passed) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and s, as :meth:`CompiledBatch.points` has them."""
        batch, (n, m) = len(passed.figures), self._shape
        x, y, s = (empty(batch, size, device=self.device) for size in (n, m, m))
        task = self._new_task([], [], [])
        task.x, task.y, task.s = (value.data_ptr() for value in (x, y, s))
        task.backward = BackwardCall(
            batch, 0, passed.shared, 0, 0.0, 0.0, 0.0, 0, 0, None, passed.state.data_ptr(), None
        )
        self._run(task, passed, ("restore", "points"))
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
        """Differentiate, as :meth:`CompiledBatch.backward` does.

        Raises:
            RuntimeError: a CUDA graph is being captured.
        """
        self._refuse_to_be_captured()
        batch = len(passed.figures)
        figures = empty(batch, len(BackwardFigure), device=self.device)
        task = self._new_task(output_gradients, [], gradients)
        task.backward = BackwardCall(
            batch, 0, passed.shared, raw, *tolerances, 0, len(output_gradients), figures.data_ptr(),
            passed.state.data_ptr(), None,
        )  # fmt: skip
        if asked is not None:
            task.layout = self._layout_of(asked)
        counters = self._run(task, passed, ("restore", "differentiate"))
        return figures, self._read(counters)

    def _refuse_to_be_captured(self) -> None:
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a CUDA graph cannot hold a layer's call: the host waits to learn which instances are solved"
            )

    def _run(self, task: Task, passed: Passed, names: tuple[str, str]) -> Tensor:
        """The kernels of a pass over what another one left; returns its counters."""
        blocks, memory = self._at_work(task, len(passed.figures), passed.width, passed.shared)
        counters = self._counters(task)
        for name, some in zip(names, (1, blocks), strict=True):
            self._launcher(passed.width).launch(name, some, task)
        del memory
        return counters

    def _new_task(
        self, given: Sequence[Tensor | None], strides: Sequence[int], filled: Sequence[Tensor | None]
    ) -> Task:
        """A task with its addresses in its slots, one list after the other."""
        task = Task.from_buffer_copy(self._task)
        read, written = (
            [0 if value is None else value.data_ptr() for value in values] for values in (given, filled)
        )
        slots = [*read, *strides, *written]
        task.slots[: len(slots)] = slots
        return task

    def _state_size(self, batch: int, lanes: int, shared: bool) -> int:
        """Numbers of a state: a head, and a block for each warp's instances."""
        analysis = self._analysis(single=False)
        width, size = analysis.width, analysis.module.cvxfold_state_size
        head = size(analysis.handle, 0, shared)
        block = (size(analysis.handle, width, shared) - head) // width
        own_head = -(-self._data // lanes) * lanes if shared else 0
        return own_head + -(-batch // lanes) * block * lanes

    def _at_work(self, task: Task, batch: int, lanes: int, shared: bool) -> tuple[int, list[Tensor]]:
        """How many blocks work at once, and their memory, whose addresses go to the task."""
        analysis = self._analysis(single=False)
        at_work = analysis.module.cvxfold_bytes_at_work(analysis.handle, shared)
        packs = at_work // (8 * analysis.width) + (self._factor if shared else 0)
        blocks = min(-(-batch // lanes), WARPS * self._multiprocessors)
        bytes_each = 8 * packs * lanes
        blocks = max(1, min(blocks, int(SHARE * self._free_memory() / bytes_each)))
        blocks, work = self._as_many(blocks, packs * lanes)
        common = self._zeros((self._data + self._factor) * lanes if shared else 0)
        task.packs_at_work, task.work, task.common = packs, work.data_ptr(), common.data_ptr()
        return blocks, [work, common]

    def _as_many(self, blocks: int, numbers: int) -> tuple[int, Tensor]:
        """Zeros for so many blocks, or for fewer where memory does not suffice: others may take it meanwhile.

        Raises:
            MemoryError: it does not suffice for one.
        """
        while True:
            try:
                return blocks, self._zeros(blocks * numbers)
            except MemoryError:
                if blocks == 1:
                    raise
            blocks //= 2

    def _free_memory(self) -> int:
        if self.device.type != "cuda":
            return 1 << 30
        free, _ = torch.cuda.mem_get_info(self.device)
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free + kept

    def _zeros(self, count: int) -> Tensor:
        return empty(count, device=self.device).zero_()

    def _counters(self, task: Task) -> Tensor:
        counters = empty(_COUNTERS, device=self.device).view(torch.int32)
        task.counters = counters.data_ptr()
        return counters

    @staticmethod
    def _read(counters: Tensor) -> int:
        """How many instances are not as they should be: the one wait for the device."""
        return int(counters[_BAD])


_STAGES = 3
"""Of ``forward``, as kernels.cu has them."""

_COUNTERS = -(-len(bytes(Counters())) // 8)
_BAD = Counters.bad.offset // 4
