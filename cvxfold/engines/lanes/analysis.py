"""The compiled module's analysis of a structure: what its calls have in common."""

import ctypes
import weakref
from typing import Any

import numpy as np

from cvxfold.engines.lanes.binding import Description, Shape, address
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.pattern import Pattern


class SymbolicAnalysis:
    """The analysis of a structure by one of the modules.

    Args:
        module: the module. pattern, maps, order: as of :class:`cvxfold.engines.lanes.batch.CompiledBatch`.

    Attributes:
        handle: what the module calls it. width: instances in a pack.
        alone: whether packs of one serve best, whatever the batch.
    """

    def __init__(self, module: Any, pattern: Pattern, maps: Maps, order: np.ndarray) -> None:
        cones, layout = pattern.cones, maps.layout
        arrays = [
            np.asarray(values, dtype=kind)
            for values, kind in (
                (cones.second_order, np.int32), (cones.semidefinite, np.int32), (cones.power, np.float64),
                (pattern.P[0], np.int32), (pattern.P[1], np.int32), (pattern.A_start, np.int32),
                (pattern.A_column, np.int32), (np.diff(pattern.A_from_stored.indptr) > 0, np.int32),
                (order, np.int32),
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
        shape = Shape()
        module.cvxfold_shape(self.handle, ctypes.byref(shape))
        self.alone: bool = shape.alone
        weakref.finalize(self, module.cvxfold_free, self.handle)
