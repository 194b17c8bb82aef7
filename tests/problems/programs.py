"""A program whose parameters enter in every way there is, and its data as plain arrays."""

from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

from cvxfold.problem.parametrize import Parametrization
from cvxfold.problem.structure import Canonical
from cvxfold.problem.values import ProgramValues


def problem() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """Parameters that enter one to one, through a dense matrix, twice, symmetric, and as a scalar."""
    rng = np.random.default_rng(0)
    x = cp.Variable(4)
    L, c, S, gamma = (
        cp.Parameter((3, 4), name="L"),
        cp.Parameter(6, name="c"),
        cp.Parameter((2, 2), symmetric=True, name="S"),
        cp.Parameter(nonneg=True, name="gamma"),
    )
    objective = cp.sum_squares(L @ x - 1) + gamma * cp.sum(x) + (rng.standard_normal((4, 6)) @ c) @ x
    constraints = [
        S @ x[:2] <= 1,
        cp.norm(L @ x) <= 3 + gamma,
        cp.sum(x) == 1,
        x >= rng.standard_normal((4, 6)) @ c - 5,
    ]
    return cp.Problem(cp.Minimize(objective), constraints), [gamma, S, c, L], x


def values_of(canonical: Canonical, tensors: list[Tensor]) -> ProgramValues:
    return Parametrization(canonical, torch.device("cpu"))(tensors)


def draw(parameters: list[cp.Parameter], batch: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.rand(batch, *p.shape, dtype=torch.float64, generator=generator) for p in parameters]
    return [
        t + t.mT if p.is_symmetric() and p.ndim == 2 else t for t, p in zip(tensors, parameters, strict=True)
    ]


def dense(canonical: Canonical, values: ProgramValues, instance: int) -> tuple[np.ndarray, ...]:
    """P, q, A, b of one instance as dense arrays."""
    structure = canonical.structure
    P, A = np.zeros((structure.n, structure.n)), np.zeros((structure.m, structure.n))
    b = np.zeros(structure.m)

    def pick(value: Tensor) -> np.ndarray:
        return value[instance if value.shape[0] > 1 else 0].numpy()

    P[tuple(structure.P_entries)] = pick(values.P)
    A[tuple(structure.A_entries)] = pick(values.A)
    b[structure.b_entries] = pick(values.b)
    return P, pick(values.q), A, b


def with_fixed() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """The same problem with two of its variables set by parameters, one with a coefficient."""
    given, parameters, x = problem()
    start = cp.Parameter(2)
    more: list[Any] = [x[0] == start[0], -2 * x[2] == start[1]]
    return cp.Problem(given.objective, given.constraints + more), [*parameters, start], x
