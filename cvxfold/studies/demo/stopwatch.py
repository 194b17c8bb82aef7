"""The time that a layer takes."""

import time

from torch import Tensor, nn


class Stopwatch(nn.Module):
    """Calls a layer and adds up the seconds of its forward and backward pass.

    The backward pass lasts from the gradient on the output's being there to that on the input's.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer, self._started, self.seconds = layer, 0.0, 0.0

    def forward(self, forecast: Tensor) -> Tensor:
        """The plans ``(D, 24)``; to be followed by a backward pass."""
        forecast.register_hook(lambda _: self._stop())
        self._start()
        (plan,) = self._layer(forecast)
        self._stop()
        plan.register_hook(lambda _: self._start())
        return plan

    def _start(self) -> None:
        self._started = time.perf_counter()

    def _stop(self) -> None:
        self.seconds += time.perf_counter() - self._started
