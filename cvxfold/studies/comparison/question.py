"""What every contestant is asked: the gradient of one loss at the same parameter values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.problem.arguments import prepare
from cvxfold.problem.structure import ParameterSpec
from cvxfold.studies.losses import LossFunction, RandomLinearLoss

NEGLIGIBLE = 1e-4
"""A gradient counts for no less than this share of the most influential one: below lies what rounding makes
of a gradient that is zero."""
_ZERO = 1e-8


class LossError(ValueError):
    """The loss cannot be evaluated or differentiated: nobody's fault but its own."""


@dataclass(frozen=True)
class Question:
    """Parameter values and a loss.

    Args:
        specs: the parameters. names: theirs, made distinct.
        values: one tensor each, of the parameter's shape or ``(B, *shape)``, in the dtype that was given.
        tensors: the same, each ``(1|B, *shape)``, float64.
        batch: B, or None where no value has a batch dimension.
        loss: of the outputs.
    """

    specs: tuple[ParameterSpec, ...]
    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]
    batch: int | None
    loss: LossFunction

    @classmethod
    def of(
        cls, specs: Sequence[ParameterSpec], values: Sequence[Any], loss: LossFunction | None, seed: int
    ) -> "Question":
        """Check the values; without a loss take a random linear one.

        Raises:
            ValueError, ParameterTypeError: as the layer's call does, or an empty batch, or no parameters, or
                complex ones.
        """
        if not specs:
            raise ValueError("parameters: there is nothing to differentiate: the problem has no parameters")
        for spec in specs:
            if spec.field != "real":
                raise ValueError(f"{spec.name}: complex parameters are not compared, only real ones")
        given = tuple((v if isinstance(v, Tensor) else torch.as_tensor(v)).detach() for v in values)
        arguments = prepare(given, specs)
        if arguments.batch == 0:
            raise ValueError("values: expected at least one instance, got an empty batch")
        names: list[str] = []
        for number, spec in enumerate(specs):
            names.append(spec.name if spec.name not in names else f"{spec.name} ({number})")
        tensors = tuple(arguments.tensors)
        return cls(
            tuple(specs), tuple(names), given, tensors, arguments.batch, loss or RandomLinearLoss(seed)
        )

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values[0].device

    @property
    def instances(self) -> int:
        """B; 1 without a batch dimension."""
        return 1 if self.batch is None else self.batch

    def shared(self, number: int) -> bool:
        """Whether a parameter has one value for all instances of a batch."""
        return self.batch is not None and self.values[number].ndim == len(self.specs[number].shape)

    def total(self, outputs: Sequence[Tensor]) -> Tensor:
        """The loss.

        Raises:
            LossError: it raised an error, or gave something else than one number.
        """
        try:
            value = self.loss(*outputs)
        except Exception as error:
            raise LossError(f"loss: {type(error).__name__}: {error}") from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise LossError(f"loss: expected a tensor of one number, got {got}")
        return value.reshape(())

    def gradients(self, outputs: Sequence[Tensor], at: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of the loss at tensors that the outputs were made from.

        Raises:
            LossError: the loss does not depend on the outputs, or is NaN or infinite at finite ones.
        """
        total = self.total(outputs)
        if not total.requires_grad:
            raise LossError("loss: does not depend on the outputs, so there is no gradient to compare")
        known = torch.stack([output.detach().isfinite().all() for output in outputs]).all()
        if bool(known) and not bool(total.detach().isfinite()):
            raise LossError(f"loss: expected a finite number, got {float(total.detach())}")
        return torch.autograd.grad(total, list(at), allow_unused=True, materialize_grads=True)

    def influence(self, outputs: Sequence[Tensor]) -> Tensor:
        """The largest ‖loss gradient‖ ‖value‖ of the outputs, ``(B,)``; a value of 0 counts as 1.

        Args:
            outputs: where to take it; NaN, where there is no solution, counts as 0.
        """
        ends = [output.detach().requires_grad_() for output in outputs]
        found = []
        for gradient, end in zip(self.gradients(ends, ends), ends, strict=True):
            bar, value = (self._rows(t.detach(), self.batch is None).nan_to_num(0.0) for t in (gradient, end))
            found.append(bar.norm(dim=1) * _or_one(value.norm(dim=1)))
        return torch.stack(found).amax(0)

    def solution_difference(self, found: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
        """‖found − exact‖/‖exact‖ over all outputs of each instance, ``(B,)``; absolute where exact is 0.

        NaN, which stands for no solution, differs from numbers only.
        """
        f, e = (torch.cat([self._rows(t, self.batch is None) for t in ts], 1) for ts in (found, exact))
        off = torch.where(f.isnan() & e.isnan(), 0.0, f - e)
        return off.norm(dim=1) / _or_one(e.nan_to_num(0.0).norm(dim=1))

    def gradient_difference(
        self, found: Sequence[Tensor], exact: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """‖found − exact‖/‖exact‖ for each parameter, ``(B,)``, or ``(1,)`` where it is shared.

        A parameter's influence is ‖gradient‖ ‖value‖. Where it is less than 1e-4 of the largest (of
        ‖gradient‖ ‖value‖ of the outputs too), ‖exact‖ is taken as what would give it so much.

        Args:
            found: the contestant's gradients. exact: the reference's.
            outputs: of the reference.
        """
        alone = [self.batch is None or self.shared(number) for number in range(len(self.specs))]
        exact_rows = [self._rows(gradient, one) for gradient, one in zip(exact, alone, strict=True)]
        sizes = [
            value.reshape(rows.shape).norm(dim=1)
            for value, rows in zip(self.tensors, exact_rows, strict=True)
        ]
        influences = [rows.norm(dim=1) * size for rows, size in zip(exact_rows, sizes, strict=True)]
        influences = [self.influence(outputs), *(each.expand(self.instances) for each in influences)]
        largest = torch.stack(influences).amax(0)
        differences: dict[str, Tensor] = {}
        for number, (name, gradient) in enumerate(zip(self.names, found, strict=True)):
            e, size = exact_rows[number], sizes[number]
            floor = largest if len(size) == len(largest) else largest.amax().reshape(1)
            floor = NEGLIGIBLE * floor / torch.where(size > 0, size, 1.0)
            difference = (self._rows(gradient, alone[number]) - e).norm(dim=1)
            scale = torch.maximum(e.norm(dim=1), floor)
            differences[name] = torch.where(difference == 0, difference, difference / scale)
        return differences

    def _rows(self, tensor: Tensor, alone: bool) -> Tensor:
        """Flattened by instance, float64: ``(B, size)``, or ``(1, size)`` for a tensor without batch."""
        return tensor.double().reshape(1 if alone else self.instances, -1)


def _or_one(sizes: Tensor) -> Tensor:
    return torch.where(sizes > _ZERO, sizes, 1.0)
