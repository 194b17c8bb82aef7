"""A call that went the general way: its variables, gradients and tangents as plain tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from cvxfold.layer.answer import Answer
from cvxfold.layer.base import BaseLayer
from cvxfold.layer.tangent import moved
from cvxfold.problem.arguments import Arguments
from cvxfold.problem.recover import handed_out
from cvxfold.problem.structure import ParameterSpec
from cvxfold.problem.values import ProgramValues


@dataclass(frozen=True)
class SolvedGenerally:
    """A call that went the general way.

    Args:
        layer: that was called. given: its parameters, ``(*shape)`` or ``(B, *shape)``.
        arguments: the same, checked. answer: what was found.
    """

    layer: BaseLayer
    given: Sequence[Tensor]
    arguments: Arguments
    answer: Answer

    @property
    def batch(self) -> int:
        """B."""
        return self.answer.request.batch

    def variables(self) -> list[Tensor]:
        """The variables; see :class:`cvxfold.layer.solved.Solved`."""
        return self._handed_out(self.answer.x, self.answer.y)

    def points(self) -> Tensor:
        """x, y and s; see :class:`cvxfold.layer.solved.Solved`."""
        return self.answer.beginnings()

    def pull(
        self, bars: Sequence[Tensor | None], wanted: Sequence[bool], summed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients; see :class:`cvxfold.layer.solved.Solved`.

        1. From the variables to x and y, by automatic differentiation.
        2. From these to the stored entries, by the adjoint.
        3. From these to the parameters, by automatic differentiation.
        """
        x, y = (value.detach().requires_grad_() for value in (self.answer.x, self.answer.y))  # 1
        with torch.enable_grad():
            variables = self._handed_out(x, y)
        x_bar, y_bar = gradients_of(variables, [x, y], bars)
        data = self.layer.session.differentiate(  # 2
            self.answer,
            torch.zeros_like(x) if x_bar is None else x_bar,
            torch.zeros_like(y) if y_bar is None else y_bar,
            wanted=wanted,
        )
        leaves = []  # 3
        for value, spec, wants, sums in zip(self.given, self._specs, wanted, summed, strict=True):
            leaf = value.detach()
            if wants and not sums and leaf.shape == spec.shape:
                leaf = leaf.expand(self.batch, *leaf.shape)
            leaves.append(leaf.requires_grad_(wants))
        values = self._values(leaves)
        on = (data.on_P, data.on_q, data.on_A, data.on_b)
        entries = [one(len(value) == 1 < self.batch) for one, value in zip(on, values, strict=True)]
        wished = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(gradients_of(list(values), wished, entries))
        gradients: list[Tensor | None] = []
        for leaf, spec, sums in zip(leaves, self._specs, summed, strict=True):
            if not leaf.requires_grad:
                gradients.append(None)
                continue
            gradient = next(found)
            gradient = torch.zeros_like(leaf) if gradient is None else gradient
            gradient = gradient.reshape(-1, *spec.shape)
            gradients.append(gradient.sum(0, keepdim=True) if sums else gradient)
        return gradients

    def push(self, dots: Sequence[Tensor | None]) -> list[Tensor]:
        """Tangents; see :class:`cvxfold.layer.solved.Solved`.

        1. From the parameters to the stored entries, by dual numbers.
        2. From these to x and y, by the tangent system.
        3. From these to the variables, by dual numbers.
        """
        with forward_ad.dual_level():  # 1
            leaves = [
                value if dot is None else self._dual(value, dot, spec)
                for value, dot, spec in zip(self.given, dots, self._specs, strict=True)
            ]
            duals = [forward_ad.unpack_dual(value) for value in self._values(leaves)]
        values, tangents = (ProgramValues(*part) for part in zip(*map(_both, duals), strict=True))
        dx, dy = moved(self.layer.session, self.answer, values, tangents)  # 2
        with forward_ad.dual_level():  # 3
            x, y = forward_ad.make_dual(self.answer.x, dx), forward_ad.make_dual(self.answer.y, dy)
            return [_both(forward_ad.unpack_dual(value))[1] for value in self._handed_out(x, y)]

    @property
    def _specs(self) -> Sequence[ParameterSpec]:
        return self.layer.parameters_of_problem

    def _dual(self, value: Tensor, dot: Tensor, spec: ParameterSpec) -> Tensor:
        """A parameter with its tangent ``(1|B, *shape)``, which may be shared where the other is not."""
        if value.shape == spec.shape and len(dot) == 1:
            dot = dot[0]
        else:
            value, dot = (each.expand(self.batch, *spec.shape) for each in (value, dot))
        return forward_ad.make_dual(value, dot.to(value.dtype))

    def _values(self, leaves: Sequence[Tensor]) -> ProgramValues:
        with torch.enable_grad():
            _, values, _ = self.layer.program(*leaves, invalid_is_error=False)
        return values

    def _handed_out(self, x: Tensor, y: Tensor) -> list[Tensor]:
        absent = None if self.answer.request.options.on_unsolvable == "raise" else self.answer.absent
        variables = [recovery(x, y) for recovery in self.layer.recoveries(x.device)]
        return handed_out(variables, self.arguments.dtype, absent)


def gradients_of(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], bars: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Of the inputs, None where there is none, from those of the outputs, None for zero.

    Raises:
        RuntimeError: nothing was recorded, as inside of an operator.
    """
    pairs = [
        (output, bar.to(output.dtype))
        for output, bar in zip(outputs, bars, strict=True)
        if bar is not None and output.requires_grad
    ]
    if not inputs or all(bar is None for bar in bars):
        return [None] * len(inputs)
    if not pairs:
        raise RuntimeError("expected outputs that depend on their inputs, got constants")
    outs, given = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outs, inputs, given, allow_unused=True))


def _both(dual: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
    """A dual number's two parts, zeros where there is no tangent."""
    primal, tangent = dual
    return primal, torch.zeros_like(primal) if tangent is None else tangent
