"""A call by the engine's shortcut: its variables, gradients and tangents as plain tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.layer.base import BaseLayer
from cvxfold.layer.generally import SolvedGenerally, gradients_of
from cvxfold.layer.shortcut import ShortCall
from cvxfold.problem.recover import finished


@dataclass(frozen=True)
class SolvedShortly:
    """A call by the engine's shortcut.

    Args:
        layer: that was called. given: its parameters, ``(*shape)`` or ``(B, *shape)``. call: that was solved.
    """

    layer: BaseLayer
    given: Sequence[Tensor]
    call: ShortCall

    @property
    def batch(self) -> int:
        """B."""
        return self.call.arguments.form.instances

    def variables(self) -> list[Tensor]:
        """The variables; see :class:`cvxfold.layer.solved.Solved`."""
        return self._finished(self.call.terms())

    def points(self) -> Tensor:
        """x, y and s; see :class:`cvxfold.layer.solved.Solved`."""
        return torch.cat(self.call.passage.points(), dim=1)

    def pull(
        self, bars: Sequence[Tensor | None], wanted: Sequence[bool], summed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients; see :class:`cvxfold.layer.solved.Solved`."""
        if not self.call.hands_out_terms:
            terms = [term.requires_grad_() for term in self.call.terms()]
            with torch.enable_grad():
                variables = self._finished(terms)
            bars = gradients_of(variables, terms, bars)
        found = self.call.differentiate(bars, wanted)
        gradients: list[Tensor | None] = []
        for gradient, value, spec, sums in zip(
            found, self.given, self.layer.parameters_of_problem, summed, strict=True
        ):
            if gradient is not None:
                gradient = gradient.view(-1, *spec.shape)
                gradient = gradient / value if spec.log else gradient
                gradient = (gradient.sum(0, keepdim=True) if sums else gradient).to(value.dtype)
            gradients.append(gradient)
        return gradients

    def push(self, dots: Sequence[Tensor | None]) -> list[Tensor]:
        """Tangents; see :class:`cvxfold.layer.solved.Solved`."""
        return self.generally.push(dots)

    @cached_property
    def generally(self) -> SolvedGenerally:
        """The same as if it had gone the general way, with the same report."""
        arguments, values, _ = self.layer.program(*self.given, invalid_is_error=False)
        return SolvedGenerally(self.layer, self.given, arguments, self.call.answer_to(values))

    def _finished(self, terms: Sequence[Tensor]) -> list[Tensor]:
        return [finished(term, spec) for term, spec in zip(terms, self.call.outputs, strict=True)]
