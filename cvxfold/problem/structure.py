"""A canonicalized problem: its structure, and how the user's tensors enter and leave it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from cvxfold.cones.dims import ConeDims
from cvxfold.problem.attributes import DeclaredSet

IndexArray = np.ndarray[Any, np.dtype[np.int64]]

_ANYTHING = DeclaredSet()


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
    """How the stored entries of P, q, A and b move with the parameters.

    Args:
        maps: from the parameter vector to the entries of P, q, A and b, without constants.
        columns: of each parameter in that vector; none where they are not known.
    """

    maps: tuple[sp.csr_array, ...]
    columns: tuple[slice, ...] = ()

    @classmethod
    def of(cls, *maps: sp.csr_array, columns: Sequence[slice] = ()) -> "Moving":
        """By the maps from the parameter vector, with a trailing 1, to the entries of P, q, A and b."""
        return cls(tuple(sp.csr_array(data[:, :-1]) for data in maps), tuple(columns))

    @property
    def masks(self) -> list[np.ndarray]:
        """Which stored entries of P, q, A and b a parameter reaches."""
        return [np.diff(each.indptr) > 0 for each in self.maps]

    def asked(self, wanted: Sequence[bool]) -> "Moving":
        """By the parameters that are ``wanted`` alone."""
        width: Any = self.maps[0].shape
        keep = np.zeros(width[1], dtype=bool)
        for columns, wants in zip(self.columns, wanted, strict=True):
            keep[columns] = wants
        return Moving(tuple(of_columns(each, keep) for each in self.maps), self.columns)


def of_columns(matrix: Any, keep: np.ndarray) -> sp.csr_array:
    """A matrix of the same shape with nothing stored but the columns of the mask ``keep``."""
    rows: Any = sp.coo_array(matrix)
    kept = keep[rows.coords[1]]
    places = rows.coords[0][kept], rows.coords[1][kept]
    return sp.csr_array((rows.data[kept], places), shape=matrix.shape)


def with_columns(matrix: sp.csr_array, order: IndexArray, place: IndexArray) -> sp.csr_array:
    """A matrix's columns ``order``, by one look at each entry: scipy sorts the order for each matrix.

    Args:
        matrix: canonical. order: of columns, each once at most.
        place: of each of the matrix's columns in ``order``; -1 where it is left out.
    """
    columns, data, starts = place[matrix.indices], matrix.data, matrix.indptr
    kept = columns >= 0
    if not kept.all():
        starts = np.concatenate([[0], np.cumsum(kept)])[starts]
        columns, data = columns[kept], data[kept]
    found = sp.csr_array((data, columns, starts), shape=(len(starts) - 1, len(order)))
    found.sort_indices()
    return found


@dataclass(frozen=True)
class ParameterSpec:
    """A user's parameter: its name and shape, its slot in the parameter vector, its transformation.

    Args:
        places: for each of its columns, the entry that stands there, counted row by row in ``raw_shape``;
            None where all stand there, column by column.
        log: whether the canonical problem contains its logarithm (geometric programs).
        domain: the narrowest of :data:`cvxfold.problem.attributes.NAMES` that it is declared to be, or None.
        declared: the set that it is declared to lie in.
        field: the numbers that its entries are.
    """

    name: str
    shape: tuple[int, ...]
    columns: slice
    places: IndexArray | None
    log: bool
    domain: str | None
    declared: DeclaredSet = _ANYTHING
    field: Literal["real", "complex", "imaginary"] = "real"

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Of its real numbers: real and imaginary parts side by side, last, where it is complex."""
        return self.shape if self.field == "real" else (*self.shape, 2)


@dataclass(frozen=True)
class OutputSpec:
    """How a returned variable is made of x or y: each entry is a sum of some of their entries with factors.

    Args:
        shape: of the variable.
        index: places in x or y, ``(terms, entries, parts)``: entries row by row; one part, or two, real and
            imaginary, where the variable is complex.
        factors: on what stands there, of the same shape.
        exp: whether x holds its logarithm (geometric programs).
        signs: 1 where a term is nonnegative by a constraint of its own, −1 where it is nonpositive, else 0,
            of the shape of ``index``; None where none is.
    """

    source: Literal["primal", "dual"]
    shape: tuple[int, ...]
    index: IndexArray
    factors: np.ndarray
    exp: bool
    signs: np.ndarray | None = None

    @property
    def is_complex(self) -> bool:
        """Whether its entries are complex numbers."""
        return self.index.shape[2] == 2

    @property
    def is_its_terms(self) -> bool:
        """Whether they are all there is to it: one for each entry, and no logarithm."""
        return self.index.shape[0] == 1 and not self.is_complex and not self.exp

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value of each term, like ``index``; infinite where it has no sign."""
        signs = np.zeros(self.index.shape) if self.signs is None else self.signs
        return np.where(signs > 0, 0.0, -np.inf), np.where(signs < 0, 0.0, np.inf)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Of its terms: ``(terms, *shape, 2)``, without what is one."""
        terms, _, _ = self.index.shape
        return (*((terms,) if terms > 1 else ()), *self.shape, *((2,) if self.is_complex else ()))


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
        """How the stored entries move with the parameters."""
        columns = [spec.columns for spec in self.parameters]
        return Moving.of(self.P, self.q, self.A, self.b, columns=columns)
