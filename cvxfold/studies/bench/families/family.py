"""What a family of problems is: how to state one of a size, and how to draw its parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Generator, Tensor

Evaluate = Callable[..., Sequence[Tensor]]
"""From parameter tensors to output tensors, differentiably; may take ``warm_start`` and ``samples``."""


@dataclass(frozen=True)
class Stated:
    """A problem as CVXPY has it.

    Args:
        problem: with its parameters. parameters: in the order of a layer's arguments.
        variables: to return. gp: whether it is a geometric program.
    """

    problem: cp.Problem
    parameters: list[cp.Parameter]
    variables: list[cp.Variable]
    gp: bool = False


@dataclass(frozen=True)
class QuadraticProgram:
    """½xᵀQx + pᵀx with Gx ≤ h and Ax = b, for layers that take matrices; each ``(B, …)`` or without the B."""

    Q: Tensor
    p: Tensor
    G: Tensor
    h: Tensor
    A: Tensor
    b: Tensor


@dataclass(frozen=True)
class Polytope:
    """x with Ax = b and x ≥ lower, as arrays.

    Args:
        point: what is projected on it, (B, n) from the parameters' tensors, differentiably.
    """

    A: np.ndarray
    b: np.ndarray
    lower: np.ndarray
    point: Callable[..., Tensor]


@dataclass(frozen=True)
class Family:
    """A family of problems.

    Args:
        name: on the command line. title: in words.
        size_is: what the size counts.
        size: unless another is asked for. batches: likewise.
        state: a fresh problem of a size, at each call: no two layers share what cvxpy caches on it.
        sample: ``(size, batch, generator)`` to one float64 tensor ``(batch, *shape)`` for each parameter.
            Solutions are unique and have a derivative, with probability one.
        matrices: the same problem as a quadratic program in its first variable, from the parameters'
            tensors, differentiably; None where it is not one or where nobody needs it.
        projection: the same problem as the projection of a point onto a polytope, row by row; None where it
            is not one.
    """

    name: str
    title: str
    size_is: str
    size: int
    state: Callable[[int], Stated]
    sample: Callable[[int, int, Generator], list[Tensor]]
    batches: tuple[int, ...] = (1, 64)
    matrices: Callable[..., QuadraticProgram] | None = None
    projection: Callable[[Stated], Polytope] | None = None


def minimize(cost: Any, *constraints: Any) -> cp.Problem:
    """A minimization problem (cvxpy types ``x <= y`` as a bool, hence Any)."""
    return cp.Problem(cp.Minimize(cost), list(constraints))


def normal(generator: Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def uniform(generator: Generator, low: float, high: float, shape: Sequence[int]) -> Tensor:
    """Uniform numbers between two bounds in float64."""
    return low + (high - low) * torch.rand(*shape, dtype=torch.float64, generator=generator)


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Products ``(B, m)`` of matrices ``(B, m, n)`` and vectors ``(B, n)``."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
