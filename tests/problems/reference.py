"""The independent reference (``cvxfold.studies.reference``) for a family of the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cvxfold.studies.reference.kkt import KktReference as Reference
from cvxfold.studies.reference.kkt import ReferenceAnswer as Answer
from problems.families import Family

__all__ = ["Answer", "Reference", "reference"]

_solvers: dict[int, tuple[Family, Reference]] = {}


def _solver(family: Family) -> Reference:
    """Of a family that is asked again, the one that there is: it is only read."""
    if id(family) not in _solvers:
        _solvers[id(family)] = family, Reference(family.problem, family.parameters, family.variables)
    return _solvers[id(family)][1]


def reference(
    family: Family, params: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[Answer]]:
    """Values ``(B, *shape)`` per variable, gradients ``(B, *shape)`` per parameter, the single answers."""
    solver = _solver(family)
    answers = [
        solver.solve([p[i].numpy() for p in params], [w[i].numpy() for w in weights])
        for i in range(params[0].shape[0])
    ]
    values = [torch.from_numpy(np.stack(v)) for v in zip(*[a.values for a in answers], strict=True)]
    gradients = [torch.from_numpy(np.stack(g)) for g in zip(*[a.gradients for a in answers], strict=True)]
    return values, gradients, answers
