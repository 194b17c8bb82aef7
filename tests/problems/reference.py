"""The independent reference (``cvxfold.studies.reference``) for a family of the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cvxfold.studies.reference.kkt import KktReference as Reference
from cvxfold.studies.reference.kkt import ReferenceAnswer as Answer
from problems.families import Family

__all__ = ["Answer", "Reference", "reference"]


def reference(
    family: Family, params: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[Answer]]:
    """Values ``(B, *shape)`` per variable, gradients ``(B, *shape)`` per parameter, the single answers."""
    solver = Reference(family.problem, family.parameters, family.variables)
    answers = [
        solver.solve([p[i].numpy() for p in params], [w[i].numpy() for w in weights])
        for i in range(params[0].shape[0])
    ]
    values = [torch.from_numpy(np.stack(v)) for v in zip(*[a.values for a in answers], strict=True)]
    gradients = [torch.from_numpy(np.stack(g)) for g in zip(*[a.gradients for a in answers], strict=True)]
    return values, gradients, answers
