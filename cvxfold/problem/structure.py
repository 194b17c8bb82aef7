"""A canonicalized problem: its structure, and how the user's tensors enter and leave it."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from cvxfold.cones.dims import ConeDims
from cvxfold.problem.attributes import DeclaredSet

IndexArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Structure:
    """What all instances of a cone program share: sizes, cones and the places of the stored entries.

    Args:
        n: variables. m: rows.
        cones: sizes of the cones.
        P_entries: rows and columns of P's stored entries, ``(2, nnz P)``; A_entries likewise.
        A_constants: A's stored entries that no parameter reaches, NaN elsewhere, ``(nnz A,)``.
        b_entries: rows of b's stored entries.
    """

    n: int
    m: int
    cones: ConeDims
    P_entries: IndexArray
    A_entries: IndexArray
    A_constants: np.ndarray
    b_entries: IndexArray


@dataclass(frozen=True)
class Moving:
    """Which stored entries of P, q, A and b a parameter reaches, as masks."""

    P: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray

    @classmethod
    def of(cls, *maps: sp.csr_array) -> "Moving":
        """By the maps from the parameter vector, with a trailing 1, to the entries."""
        return cls(*(np.diff(sp.csr_array(data[:, :-1]).indptr) > 0 for data in maps))


@dataclass(frozen=True)
class ParameterSpec:
    """A user's parameter: its name and shape, its slot in the parameter vector, its transformation.

    Args:
        triangle: rows and columns of the upper triangle that stands for a symmetric parameter, or None.
        log: whether the canonical problem contains its logarithm (geometric programs).
        domain: the narrowest of :data:`cvxfold.problem.attributes.NAMES` that it is declared to be, or None.
        declared: the set that it is declared to lie in.
    """

    name: str
    shape: tuple[int, ...]
    columns: slice
    triangle: tuple[IndexArray, IndexArray] | None
    log: bool
    domain: str | None
    declared: DeclaredSet = field(default_factory=DeclaredSet)


@dataclass(frozen=True)
class OutputSpec:
    """Where a returned variable stands in x or y.

    Args:
        packing: "full" for the column-major entries, "triangle" for the row-major upper triangle of a
            symmetric variable, "svec" for the scaled lower triangle of a semidefinite constraint's dual,
            "listed" where ``places`` tells.
        exp: whether x holds its logarithm (geometric programs).
        places: where among the entries each entry of the variable stands, row by row.
        signs: 1 where an entry of the variable is nonnegative by a constraint of its own, −1 where it is
            nonpositive, else 0, row by row; None where none is.
    """

    source: Literal["primal", "dual"]
    entries: slice
    shape: tuple[int, ...]
    packing: Literal["full", "triangle", "svec", "listed"]
    exp: bool
    places: IndexArray | None = None
    signs: np.ndarray | None = None


@dataclass(frozen=True)
class Canonical:
    """A canonicalized problem: data = map @ (parameter vector, 1) for each of P, q, A and b."""

    structure: Structure
    parameters: tuple[ParameterSpec, ...]
    outputs: tuple[OutputSpec, ...]
    P: sp.csr_array
    q: sp.csr_array
    A: sp.csr_array
    b: sp.csr_array

    @property
    def moving(self) -> Moving:
        """Which stored entries a parameter reaches."""
        return Moving.of(self.P, self.q, self.A, self.b)
