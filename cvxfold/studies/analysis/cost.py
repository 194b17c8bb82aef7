"""What each way to differentiate costs here: seconds and bytes, measured on short runs and extended.

An unrolled iteration costs one application of F and its backward pass, and the tensors that autograd keeps
of it; a step of LFPI a product with Φᵀ; a step of GMRES a product, and a vector of the basis. All of them
grow in proportion to the iterations, so two short runs tell the rest. What is beside the iterations (the
factor and the verdicts that rest on it, the gradients of the data) is the same for every method.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cvxfold.studies.allocations import allocations

_SHORT, _LONG = 6, 30  # iterations of the runs whose memory is measured
_TIMED = 6, 90  # and of those that are timed: the clock is not as exact
_REPEATS = 3
_LONG_ENOUGH = 0.2  # seconds after which a run need not be repeated


@dataclass(frozen=True)
class Line:
    """A cost that grows in proportion: ``fixed + slope · iterations``.

    Args:
        least: it is never below this.
        ceiling: iterations beyond these cost no more.
    """

    fixed: float
    slope: float = 0.0
    least: float = 0.0
    ceiling: float = float("inf")

    def at(self, iterations: float) -> float:
        """The cost of so many iterations; of infinitely many infinite."""
        if not math.isfinite(iterations):
            return math.inf
        return max(self.least, self.fixed + self.slope * min(iterations, self.ceiling))


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of one method, by iterations."""

    seconds: Line
    bytes: Line

    def beside(self, rest: "Cost") -> "Cost":
        """The same with something else to be done after it."""
        seconds = replace(self.seconds, fixed=self.seconds.fixed + rest.seconds.fixed)
        return Cost(seconds, replace(self.bytes, least=max(self.bytes.least, rest.bytes.fixed)))


Run = Callable[[int], Tensor]
"""So many iterations of a method; returns what is to be differentiated, or what was found."""


def of_unrolling(forward: Run, solve: Callable[[], Any], rest: Cost, device: torch.device) -> Cost:
    """The cost of differentiating by unrolling from the solution: the iterations on the tape, and back.

    At its peak the whole call holds what finding the solution needs by itself, or the tape and what is needed
    beside it at the end of the forward pass or in the backward pass, or, when the tape is gone, what is
    needed for the verdicts.

    Args:
        forward: solve and put K iterations on the tape; returns the loss.
        solve: the first part alone.
        rest: what is beside the iterations.
        device: where it all runs.
    """
    solve()  # what is kept from call to call is there from the second one on
    with allocations(device) as ledger:
        solve()
        least = ledger.peak
    taped, beside = [], 0
    for count in (_SHORT, _LONG):
        with allocations(device) as ledger:
            loss = forward(count)
            taped.append(ledger.now)
            beside = ledger.peak - taped[-1] if ledger.peak > least else 0
            ledger.mark()
            loss.backward()
            beside = max(beside, ledger.peak - taped[-1])
            del loss
    tape = _line(*taped)
    memory = Line(tape.fixed + beside, tape.slope, max(float(least), tape.fixed + rest.bytes.fixed))
    seconds = _seconds(lambda count: forward(count).backward(), device)
    fixed = max(0.0, seconds.fixed - shortest(solve, device)) + rest.seconds.fixed
    return Cost(replace(seconds, fixed=fixed), memory)


def of_iterating(run: Run, device: torch.device, ceiling: float = float("inf")) -> Cost:
    """The cost of a method for the adjoint system, by its iterations.

    Args:
        run: so many iterations.
        device: where it runs.
        ceiling: iterations beyond these take no more memory.
    """
    peaks = []
    for count in (_SHORT, _LONG):
        with allocations(device) as ledger:
            run(count)
            peaks.append(ledger.peak)
    line = _line(*peaks)
    return Cost(_seconds(run, device), Line(line.fixed, line.slope, ceiling=ceiling))


def of_solving(run: Callable[[], Any], device: torch.device) -> Cost:
    """The cost of a method whose iterations are few."""
    with allocations(device) as ledger:
        run()
        peak = float(ledger.peak)
    return Cost(Line(shortest(run, device)), Line(peak))


def _seconds(run: Callable[[int], Any], device: torch.device) -> Line:
    return _line(*(shortest(lambda count=count: run(count), device) for count in _TIMED), between=_TIMED)


def _line(short: float, long: float, between: tuple[int, int] = (_SHORT, _LONG)) -> Line:
    slope = max(0.0, (long - short) / (between[1] - between[0]))
    return Line(max(0.0, short - slope * between[0]), slope)


def shortest(function: Callable[[], Any], device: torch.device) -> float:
    """The shortest wall time of a few calls; of one where that takes long."""
    best = float("inf")
    for _ in range(1 + _REPEATS):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
        if best > _LONG_ENOUGH:
            break
    return best
