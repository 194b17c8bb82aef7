"""A small quadratic program as a layer, its values, and its answers: for tests in other processes too."""

from typing import Any

import torch
from torch import Tensor

from cvxfold.torch import CvxpyLayer
from problems.families import FAMILIES


def quadratic(**options: Any) -> Any:
    """A dense QP in 5 variables with 6 parameters."""
    family = FAMILIES["dense_qp5"]()
    return CvxpyLayer(family.problem, family.parameters, family.variables, **options)


def sample(batch: int, seed: int = 0) -> list[Tensor]:
    """Parameters of that; the matrix of the objective is shared by the batch."""
    L, *rest = FAMILIES["dense_qp5"]().sample(batch, seed)
    return [p.requires_grad_() for p in (L[0].clone(), *rest)]


def answers(layer: Any, params: list[Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of a loss in them."""
    outputs = layer(*params)
    loss = torch.stack([(v.nan_to_num() * v.nan_to_num().cos()).sum() for v in outputs]).sum()
    return [*(v.detach() for v in outputs), *torch.autograd.grad(loss, params)]


def assert_close(found: list[Tensor], exact: list[Tensor], tol: float) -> None:
    for one, other in zip(found, exact, strict=True):
        scale = 1 + float(other.nan_to_num().abs().amax())
        torch.testing.assert_close(one, other, rtol=tol, atol=tol * scale, equal_nan=True)
