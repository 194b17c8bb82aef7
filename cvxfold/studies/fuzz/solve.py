"""One structure through the public layer, forward and backward, and the judgements on its instances."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cvxfold.studies.fuzz.gradients import of_parts
from cvxfold.studies.fuzz.judge import Judgement, LayerAnswer, judge
from cvxfold.studies.fuzz.problem import Modelled, model
from cvxfold.studies.fuzz.programs import RandomProgram, draw_instances
from cvxfold.studies.fuzz.structure import RandomStructure, draw_structure
from cvxfold.torch import CvxpyLayer


@dataclass(frozen=True)
class Case:
    """A structure with its instances, ready to be solved.

    Args:
        structure: what the batch has in common. instances: with their right answers.
        modelled: the CVXPY problem and the parameters' slots.
        values: one tensor ``(B, *shape)`` for each parameter, with ``requires_grad``.
        weights: of the loss ⟨weight, x⟩, ``(B, n)``, at the scale the data are given at.
    """

    structure: RandomStructure
    instances: list[RandomProgram]
    modelled: Modelled
    values: list[torch.Tensor]
    weights: torch.Tensor

    def layer(self, **options: Any) -> CvxpyLayer:
        """The layer; unsolvable instances are to return NaN."""
        modelled = self.modelled
        options = {"on_unconverged": "ignore", "on_unsolvable": "nan", **options}
        return CvxpyLayer(modelled.problem, modelled.parameters, [modelled.x], **options)


def replay(seed: int, number: int, batch: int = 8) -> Case:
    """Structure ``number`` of a seed, as it was solved.

    Example:
        >>> case = replay(0, 12)
        >>> layer = case.layer()
        >>> (x,) = layer(*case.values)
        >>> torch.autograd.grad(x, case.values, case.weights)
        >>> print(layer.report)
    """
    structure = draw_structure(seed, number)
    instances = draw_instances(structure, batch)
    modelled = model(structure, instances[0])
    values = [torch.from_numpy(value).clone().requires_grad_() for value in modelled.values(instances)]
    weights = torch.from_numpy(np.stack([i.scaling.columns * i.weight for i in instances]))
    return Case(structure, instances, modelled, values, weights)


def answers(case: Case, time_limit: float | None = None) -> list[LayerAnswer]:
    """Solve and differentiate; what the layer says of each instance.

    Args:
        case: to be solved. time_limit: of the layer's forward pass, in seconds.
    """
    layer = case.layer(time_limit=time_limit)
    (x,) = layer(*case.values)
    gradients = torch.autograd.grad(x, case.values, case.weights)
    report = layer.report
    assert report.backward is not None
    estimate = getattr(report.backward, "error", None)
    out = []
    for i in range(len(case.instances)):
        parts = [gradient[i].numpy() for gradient in gradients]
        out.append(
            LayerAnswer(
                str(report.forward.status[i]),
                str(report.backward.verdict[i]),
                np.nan if estimate is None else float(estimate[i]),
                x[i].detach().numpy(),
                of_parts(case.structure, parts, case.modelled.slots),
            )
        )
    return out


def examine_structure(seed: int, number: int, batch: int, time_limit: float | None = None) -> list[Judgement]:
    """The outcomes of a structure's instances; an exception is an outcome of all of them."""
    case = replay(seed, number, batch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cvxpy, of large constants
            found = answers(case, time_limit)
    except Exception as error:
        words = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
        return [
            Judgement(seed, number, i, one.kind, one.ending.value, "crashed", words)
            for i, one in enumerate(case.instances)
        ]
    slots = case.modelled.slots
    return [
        judge(case.structure, i, instance, slots, answer)
        for i, (instance, answer) in enumerate(zip(case.instances, found, strict=True))
    ]
