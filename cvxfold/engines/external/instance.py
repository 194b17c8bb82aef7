"""One cone program as the solvers take it, and what they give back."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cvxfold.batches.near import fetched
from cvxfold.cones.dims import ConeDims
from cvxfold.engines.outcome import Status
from cvxfold.problem.program import Program


@dataclass(frozen=True)
class Instance:
    """minimize ½ xᵀP x + qᵀx subject to A x + s = b, s ∈ K, in sparse storage.

    Args:
        P: symmetric, both triangles, ``(n, n)``. q: ``(n,)``. A: ``(m, n)``. b: ``(m,)``.
        cones: K, in SCS's order and scaling.
    """

    P: sp.csc_array
    q: np.ndarray
    A: sp.csc_array
    b: np.ndarray
    cones: ConeDims


@dataclass(frozen=True)
class Outcome:
    """What a solver found for one instance: a point or a certificate, its verdict, and its iterations."""

    x: np.ndarray
    s: np.ndarray
    y: np.ndarray
    status: Status
    iterations: int


def instances(program: Program) -> Iterator[Instance]:
    """The instances of a batch, one after the other."""
    P, q, A, b = (value.numpy() for value in fetched(*program.values.detached()))
    structure = program.structure
    n, m = structure.n, structure.m
    for i in range(program.batch):
        P_i, q_i, A_i, b_i = (value[i if len(value) > 1 else 0] for value in (P, q, A, b))
        stored = sp.coo_array((P_i, tuple(structure.P_entries)), shape=(n, n)).tocsc()
        dense_b = np.zeros(m)
        dense_b[structure.b_entries] = b_i
        yield Instance(
            sp.csc_array(0.5 * (stored + stored.T)),
            q_i,
            sp.coo_array((A_i, tuple(structure.A_entries)), shape=(m, n)).tocsc(),
            dense_b,
            structure.cones,
        )
