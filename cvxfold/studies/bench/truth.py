"""The reference of a cell, and how far an answer is from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.passes import one_pass
from cvxfold.studies.reference.kkt import KktReference
from cvxfold.torch import CvxpyLayer

MOST_CHECKED = 3
"""Instances of a batch that are compared with the reference, spread over it."""

MOST_COMPARED = 64
"""Instances of a batch on a device that are compared with cvxfold on the CPU, likewise."""

_ADJOINT = 1e-8  # residual beyond which the reference's gradient is none


@dataclass(frozen=True)
class CellTruth:
    """Solutions and gradients of some instances of a batch, found independently.

    Args:
        instances: which ones.
        values: for each of them one array a variable. gradients: one array a parameter.
    """

    instances: list[int]
    values: list[list[np.ndarray]]
    gradients: list[list[np.ndarray]]

    def forward_error(self, outputs: Sequence[Tensor]) -> float:
        """‖found − exact‖ / ‖exact‖ over all outputs together, the largest of the instances."""
        return max(
            (_error(outputs, i, exact) for i, exact in zip(self.instances, self.values, strict=True)),
        )

    def gradient_error(self, gradients: Sequence[Tensor]) -> float:
        """The same of the gradients of all parameters together."""
        return max(
            (_error(gradients, i, exact) for i, exact in zip(self.instances, self.gradients, strict=True)),
        )


def truth(family: Family, size: int, values: Sequence[Tensor], weights: Sequence[Tensor]) -> CellTruth | str:
    """The reference's answers, or why there are none.

    Args:
        family, size: of the problem.
        values: of its parameters, each ``(B, *shape)``, on the CPU.
        weights: of the loss Σ ⟨weight, output⟩, likewise.
    """
    stated = family.state(size)
    instances = _spread(len(values[0]), MOST_CHECKED)
    try:
        reference = KktReference(stated.problem, stated.parameters, stated.variables, stated.gp)
        if reference.too_large:
            return f"too large to check ({reference.n} variables and {reference.m} rows in standard form)"
        answers = [
            reference.solve([value[i].numpy() for value in values], [weight[i].numpy() for weight in weights])
            for i in instances
        ]
    except ArithmeticError as error:
        return f"not checked: {error}"
    left = max(answer.adjoint_residual for answer in answers)
    if not left <= _ADJOINT:
        return f"not checked: the reference's adjoint has a residual of {left:.1e}"
    return CellTruth(instances, [one.values for one in answers], [one.gradients for one in answers])


def on_host(family: Family, size: int, values: Sequence[Tensor], weights: Sequence[Tensor]) -> CellTruth:
    """What cvxfold finds on the CPU, for more instances: no proof, but a check of what a device finds.

    Args:
        family, size, values, weights: as in :func:`truth`.
    """
    instances = _spread(len(values[0]), MOST_COMPARED)
    stated = family.state(size)
    layer = CvxpyLayer(stated.problem, stated.parameters, stated.variables, gp=stated.gp)
    done = one_pass(layer, [value[instances] for value in values], [weight[instances] for weight in weights])
    found, gradients = ([one.numpy() for one in tensors] for tensors in (done.outputs, done.gradients))
    places = range(len(instances))
    return CellTruth(
        instances,
        [[one[place] for one in found] for place in places],
        [[one[place] for one in gradients] for place in places],
    )


def _spread(batch: int, most: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, batch - 1, min(batch, most))})


def _error(found: Sequence[Tensor], instance: int, exact: Sequence[np.ndarray]) -> float:
    """NaN counts as infinitely wrong."""
    ours = torch.cat([one[instance].detach().reshape(-1).double().cpu() for one in found]).numpy()
    theirs = np.concatenate([one.ravel() for one in exact])
    error = float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-300))
    return error if np.isfinite(error) else float("inf")
