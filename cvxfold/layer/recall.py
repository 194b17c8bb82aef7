"""The passes of a layer as functions of numbers alone, for frameworks that carry numbers and nothing else.

What a forward pass leaves travels as a state: a number for the call, the place of the instance in it, and the
solution, x, y and s. The last calls are kept, within a limit of memory, and a backward pass that meets one of
them goes on from there. Any other solves again, beginning at the solution, which takes a step or two.
"""

import random
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.layer.base import BaseLayer
from cvxfold.layer.options import Options
from cvxfold.layer.samples import BeginAt, Beginning
from cvxfold.layer.solved import Solved, solve

MOST_BYTES, MOST_CALLS = 2**28, 256
"""What a layer keeps of its last calls."""

_OWN = 2  # numbers of a state before the solution


class Recall:
    """The last calls by their numbers. Numbers begin anywhere, so that another process's are not known."""

    def __init__(self) -> None:
        self._next = random.SystemRandom().randrange(2**51)
        self._calls: OrderedDict[int, _Kept] = OrderedDict()
        self.bytes = 0
        self.lock = threading.RLock()

    def __len__(self) -> int:
        """How many calls are kept."""
        return len(self._calls)

    def state_of(self, solved: Solved, size: int) -> Tensor:
        """The state that a call leaves, ``(B, 2 + n + 2m)``, float64; the call is kept if it may be.

        Args:
            solved: the call. size: the bytes that it takes.
        """
        self._next += 1
        points = solved.points()
        own = torch.stack([torch.full((solved.batch,), self._next), torch.arange(solved.batch)], dim=1)
        own = own.to(points)
        self._keep(self._next, _Kept(solved, own, size))
        return torch.cat([own, points], dim=1)

    def find(self, state: Tensor) -> Solved | None:
        """The call that left a state, if it is kept and this is all of it."""
        number = int(state[0, 0])
        kept = self._calls.get(number)
        if kept is None or not torch.equal(state[:, :_OWN], kept.own):
            return None
        self._calls.move_to_end(number)
        return kept.solved

    def _keep(self, number: int, kept: "_Kept") -> None:
        self._calls[number] = kept
        self.bytes += kept.size
        while self.bytes > MOST_BYTES or len(self._calls) > MOST_CALLS:
            _, dropped = self._calls.popitem(last=False)
            self.bytes -= dropped.size

    def __deepcopy__(self, _: dict[int, Any]) -> "Recall":
        """A copy that remembers nothing."""
        return Recall()

    def __reduce__(self) -> tuple[Any, ...]:
        return Recall, ()


@dataclass(frozen=True)
class _Kept:
    """A call; its number and the places of its instances, as states have them, ``(B, 2)``; its bytes."""

    solved: Solved
    own: Tensor
    size: int


@dataclass(frozen=True, eq=False)
class Passes:
    """The passes of one way to call a layer, as functions of numbers.

    Args:
        layer: that is called. recall: its last calls.
        options: of the call. warm: whether it begins at the last batch's solutions.
    """

    layer: BaseLayer
    recall: Recall
    options: Options
    warm: bool = False

    @property
    def width(self) -> int:
        """Numbers of an instance's state."""
        structure = self.layer.session.entries.structure
        return _OWN + structure.n + 2 * structure.m

    def solve(
        self, parameters: Sequence[Tensor], batch: int, leaves_state: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """The variables ``(B, *shape)`` and the state ``(B, width)``, None unless it is asked for.

        Args:
            parameters: ``(1|B, *shape)`` each. batch: B ≥ 1. leaves_state: whether it is asked for.

        Raises:
            ValueError, TypeError, SolverError, ConvergenceError: as the layers do.
        """
        with self.recall.lock:
            begin = self.layer.session.starts.asked(self.warm, None)
            solved = self._solve(parameters, batch, begin)
            state = self.recall.state_of(solved, self._size(parameters, batch)) if leaves_state else None
            return solved.variables(), state

    def again(self, parameters: Sequence[Tensor], state: Tensor) -> Solved:
        """The call that left a state ``(B, width)``: as it was kept, or solved again from its solution."""
        solved = self.recall.find(state)
        if solved is None:
            solved = self._solve(parameters, len(state), BeginAt(state[:, _OWN:]), quietly=True)
        return solved

    def _solve(
        self, parameters: Sequence[Tensor], batch: int, begin: Beginning, quietly: bool = False
    ) -> Solved:
        with torch.no_grad():
            return solve(self.layer, parameters, batch, self.options, begin, quietly)

    def _size(self, parameters: Sequence[Tensor], batch: int) -> int:
        """About the bytes that a call takes: what the engine leaves, and the parameters, also as float64."""
        _, _, size = self.layer.session.engine.size(self.options.forward)
        return batch * size + 16 * sum(value.numel() for value in parameters)
