"""A family with parameters, loss weights and the reference's answers; and how a layer compares with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from problems.families import Family
from problems.layers import family_of, layer_of
from problems.reference import Answer, reference

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Case:
    """Tensors ``(B, *shape)``: one per parameter, or one per variable."""

    family: Family
    params: Tensors
    weights: Tensors  # the loss is Σ ⟨weight, variable⟩
    values: Tensors
    gradients: Tensors
    answers: list[Answer]


@cache
def case(name: str, batch: int = 8, seed: int = 0) -> Case:
    """The family's instances and the reference's answers, computed once a session."""
    family = family_of(name)
    params = list(family.sample(batch, seed))
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(batch, *v.shape, dtype=torch.float64, generator=generator) for v in family.variables
    ]
    values, gradients, answers = reference(family, params, weights)
    return Case(family, params, weights, values, gradients, answers)


def weighted(weights: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Σ ⟨weight, output⟩."""
    return torch.stack([(w * v).sum() for w, v in zip(weights, outputs, strict=True)]).sum()


def evaluate(layer: Any, case: Case, **call: Any) -> tuple[Tensors, Tensors]:
    """The layer's values and the gradients of the case's loss, both detached."""
    params = [p.clone().requires_grad_() for p in case.params]
    outputs = layer(*params, **call)
    gradients = torch.autograd.grad(weighted(case.weights, outputs), params)
    return [v.detach() for v in outputs], list(gradients)


def errors(found: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> torch.Tensor:
    """‖found − exact‖ / ‖exact‖ over all tensors together, one entry per instance ``(B,)``."""
    batch = exact[0].shape[0]
    f = torch.cat([t.reshape(batch, -1) for t in found], 1)
    e = torch.cat([t.reshape(batch, -1) for t in exact], 1)
    return (f - e).norm(dim=1) / e.norm(dim=1)


def said(error: Any, *words: str) -> None:
    """The message of the caught error contains each of the words."""
    for word in words:
        whole_word = rf"(?<!\w){re.escape(word)}(?!\w)"
        assert re.search(whole_word, str(error.value)), f"{word!r} not in {error.value}"


def make_layer(case: Case, **options: Any) -> Any:
    """A cvxfold layer of the case's problem."""
    return layer_of(case.family, **options)
