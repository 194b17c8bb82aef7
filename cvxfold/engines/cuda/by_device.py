"""The same kernels wherever the tensors are: one batch of a structure and layout for each device."""

import numpy as np
import torch

from cvxfold.engines.cuda import toolkit
from cvxfold.engines.cuda.batch import CudaBatch, has_room
from cvxfold.engines.lanes.batch import CompiledBatch
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.pattern import Pattern


class Batches:
    """Made for each device at its first use.

    Args:
        pattern: of the structure. maps: the layout. order: of elimination.
    """

    def __init__(self, pattern: Pattern, maps: Maps, order: np.ndarray) -> None:
        self._made_from = pattern, maps, order
        self._made: dict[torch.device, CompiledBatch] = {}

    def serve(self, device: torch.device) -> bool:
        """Whether there are kernels for a device."""
        return device.type == "cpu" or (
            device.type == "cuda" and has_room(self._made_from[1]) and toolkit.why_not() is None
        )

    def on(self, device: torch.device) -> CompiledBatch:
        """The one for a device."""
        if device not in self._made:
            cpu = device.type == "cpu"
            self._made[device] = (
                CompiledBatch(*self._made_from) if cpu else CudaBatch(*self._made_from, device)
            )
        return self._made[device]
