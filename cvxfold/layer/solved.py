"""A call that has been solved, apart from any tape: its variables, gradients and tangents as plain tensors.

Every parameter has a leading dimension, of 1 where it holds for all B instances.
"""

import time
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from cvxfold.layer.base import BaseLayer
from cvxfold.layer.generally import SolvedGenerally
from cvxfold.layer.options import Options
from cvxfold.layer.request import CallRequest
from cvxfold.layer.samples import Beginning
from cvxfold.layer.shortly import SolvedShortly


class Solved(Protocol):
    """What a forward pass found, to be handed out and differentiated."""

    @property
    def batch(self) -> int:
        """B."""
        ...

    def variables(self) -> list[Tensor]:
        """The layer's variables, each ``(B, *shape)``, in the parameters' dtype."""
        ...

    def points(self) -> Tensor:
        """x, y and s side by side, ``(B, n + 2m)``, NaN for instances that are not solved."""
        ...

    def pull(
        self, bars: Sequence[Tensor | None], wanted: Sequence[bool], summed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of the parameters from loss gradients on the variables.

        Args:
            bars: ``(B, *shape)`` each; None for zero.
            wanted: for which parameters.
            summed: which of them are summed over the batch.

        Returns:
            ``(1|B, *shape)`` each, in the parameters' dtype; None where unwanted.

        Raises:
            ConvergenceError, DegenerateError: as the options say.
        """
        ...

    def push(self, dots: Sequence[Tensor | None]) -> list[Tensor]:
        """Tangents of the variables, ``(B, *shape)`` each, from those of the parameters, ``(1|B, *shape)``.

        None stands for zero. Raises as ``pull`` does.
        """
        ...


def solve(
    layer: BaseLayer,
    parameters: Sequence[Tensor],
    batch: int,
    options: Options,
    begin: Beginning,
    quietly: bool = False,
) -> Solved:
    """Solve a batch as the layers do: by the engine's shortcut where all is plain, or the general way.

    Args:
        layer: whose problem it is.
        parameters: ``(1|B, *shape)`` each.
        batch: B ≥ 1.
        options: of the call.
        begin: where it begins.
        quietly: whether nobody is told; the report is the layer's last one all the same.

    Raises:
        ValueError, TypeError, SolverError, ConvergenceError: as the layers do.
    """
    begun = time.perf_counter()
    given = [value if len(value) == batch else value[0] for value in parameters]
    call, found = layer.short_call(given, options), None
    if call is not None:
        layer.say_uneven(call.arguments.uneven)
        found = call.solve(begin.points(batch))
        if found is not None and not found.unsolved:
            begin.keep(found, lightly=True)
            call.report(quietly)
            return SolvedShortly(layer, given, call)
    invalid_is_error = options.on_unsolvable == "raise"
    arguments, values, _ = layer.program(*given, invalid_is_error=invalid_is_error)
    layer.say_uneven(arguments.uneven)
    found = found if arguments.invalid is None else None
    spent = time.perf_counter() - begun
    request = CallRequest(batch, options, begin, arguments.invalid, found, spent)
    if quietly:
        answer = layer.session.solve_quietly(values, request)
        layer.session.remember(answer.report)
    else:
        answer = layer.session.solve(values, request)
    return SolvedGenerally(layer, given, arguments, answer)
