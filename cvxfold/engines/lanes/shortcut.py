"""Parameters in, variables out, and gradients back: one call of the kernels each way."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cvxfold.engines.cuda.by_device import Batches
from cvxfold.engines.lanes.batch import Begin
from cvxfold.engines.lanes.engine import LanesEngine
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.memory import empty, empty_like
from cvxfold.engines.lanes.passage import LanesPassage
from cvxfold.engines.outcome import KeptPoints
from cvxfold.engines.protocol import SolveRequest
from cvxfold.problem.structure import Canonical


class LanesShortcut:
    """The lanes engine from a layer's parameters to its variables.

    Args:
        engine: of the layer. canonical: its problem.
    """

    def __init__(self, engine: LanesEngine, canonical: Canonical) -> None:
        self._engine = engine
        self._maps = Maps.of_parameters(engine.pattern, canonical)
        self._batches = Batches(engine.pattern, self._maps, engine.order)
        self._served: tuple[SolveRequest, torch.device] | None = None

    def serves(self, device: torch.device, request: SolveRequest) -> bool:
        """Whether the kernels do what is asked; they know no proximal term."""
        served = self._served
        if served is not None and served[0] is request and served[1] == device:  # mostly as before
            return True
        serves = self._engine.serves(device, request) and self._batches.serve(device) and not request.proximal
        if serves:
            self._served = request, device
        return serves

    def solve(
        self,
        parameters: Sequence[Tensor],
        batch: int,
        request: SolveRequest,
        start: Tensor | KeptPoints | None,
        patterns: Sequence[Tensor],
        keep: bool = False,
    ) -> LanesPassage:
        """Solve; see :class:`cvxfold.engines.protocol.Shortcut`."""
        compiled = self._batches.on(parameters[0].device)
        outputs = [empty_like(pattern) for pattern in patterns]
        settings = self._engine.settings(request)
        width = compiled.width_of_ends(parameters, batch) if keep else 0
        if isinstance(start, KeptPoints):
            if compiled.renews_in_place and start.points.shape[1] == width:
                begin = Begin(start.points, start.points, start.places)
                passed = compiled.forward(parameters, batch, outputs, settings, begin)
                start.renewed = True
                return LanesPassage(compiled, passed, outputs, self._maps)
            start = start.copied()
        if start is not None:
            start = start.to(compiled.device)
        ends = empty(batch, width, device=compiled.device) if keep else None
        begin = None if start is None and ends is None else Begin(start, ends)
        passed = compiled.forward(parameters, batch, outputs, settings, begin)
        return LanesPassage(compiled, passed, outputs, self._maps, ends)
