"""Gradients in the four parts of the data, and how far two of them are from each other."""

from dataclasses import dataclass

import numpy as np

from cvxfold.studies.fuzz.cones import Array, complementary, cones_of
from cvxfold.studies.fuzz.problem import Slot
from cvxfold.studies.fuzz.programs import RandomProgram
from cvxfold.studies.fuzz.reference import ReferenceAdjoint
from cvxfold.studies.fuzz.structure import RandomStructure


@dataclass(frozen=True)
class Gradient:
    """Of a loss with respect to q ``(n,)``, b ``(m,)``, A ``(m, n)`` and L ``(r, n)``; None: a constant."""

    q: Array
    b: Array
    A: Array | None
    L: Array | None

    def __sub__(self, other: "Gradient") -> "Gradient":
        return Gradient(
            self.q - other.q,
            self.b - other.b,
            None if self.A is None or other.A is None else self.A - other.A,
            None if self.L is None or other.L is None else self.L - other.L,
        )

    @property
    def norm(self) -> float:
        """Of all parts together."""
        parts = [part.ravel() for part in (self.q, self.b, self.A, self.L) if part is not None]
        return float(np.linalg.norm(np.concatenate(parts)))

    def consistent(self, null: Array) -> "Gradient":
        """What is felt along movements that keep dependent equations consistent.

        Args:
            null: their left null vectors, orthonormal, ``(m, k)``.
        """
        A = None if self.A is None else self.A - null @ (null.T @ self.A)
        return Gradient(self.q, self.b - null @ (null.T @ self.b), A, self.L)

    def given(self, instance: RandomProgram) -> "Gradient":
        """With respect to the data at the scale they are given at."""
        E, C, c = instance.scaling.rows, instance.scaling.columns, instance.scaling.objective
        return Gradient(
            self.q / (c * C),
            self.b / E,
            None if self.A is None else self.A / E[:, None] / C,
            None if self.L is None else self.L / (np.sqrt(c) * C),
        )

    def natural(self, instance: RandomProgram) -> "Gradient":
        """The inverse of :meth:`given`."""
        E, C, c = instance.scaling.rows, instance.scaling.columns, instance.scaling.objective
        return Gradient(
            self.q * (c * C),
            self.b * E,
            None if self.A is None else self.A * E[:, None] * C,
            None if self.L is None else self.L * (np.sqrt(c) * C),
        )


def of_adjoint(
    structure: RandomStructure, instance: RandomProgram, side: ReferenceAdjoint, slots: list[Slot]
) -> Gradient:
    """The gradient at the natural scale, for what is a parameter."""
    names = {slot.name for slot in slots}
    _, y = complementary(cones_of(structure.dims), instance.u)
    p, v, x, L = side.p, side.v, instance.x, instance.L
    return Gradient(
        -p,
        v,
        -(np.outer(v, x) + np.outer(y, p)) if "A" in names else None,
        -(np.outer(L @ p, x) + np.outer(L @ x, p)) if "L" in names else None,
    )


def of_parts(structure: RandomStructure, parts: list[Array], slots: list[Slot]) -> Gradient:
    """The gradient that came back for one instance, one array for each parameter."""
    m, n = structure.m, structure.n
    names = {slot.name for slot in slots}
    shapes = {"q": (n,), "b": (m,), "A": (m, n), "L": (structure.factor_rows, n)}
    whole = {name: np.zeros(shape) for name, shape in shapes.items()}
    for slot, part in zip(slots, parts, strict=True):
        whole[slot.name][slot.rows] = part
    return Gradient(
        whole["q"], whole["b"], whole["A"] if "A" in names else None, whole["L"] if "L" in names else None
    )
