"""A structure as a CVXPY problem, and instances as values of its parameters."""

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from cvxfold.studies.fuzz.cones import Array, triangle
from cvxfold.studies.fuzz.programs import RandomProgram
from cvxfold.studies.fuzz.structure import Quadratic, RandomStructure, blocks_of


@dataclass(frozen=True)
class Slot:
    """Where a parameter's values come from.

    Args:
        name: "q", "b", "A" or "L".
        rows: of A or b.
    """

    name: str
    rows: slice


@dataclass(frozen=True)
class Given:
    """Data of an instance at the scale it is given at: L ``(r, n)``, A ``(m, n)``, q ``(n,)``, b ``(m,)``."""

    L: Array
    A: Array
    q: Array
    b: Array


@dataclass(frozen=True)
class Modelled:
    """A CVXPY problem of a structure, its variable, and its parameters with their slots."""

    problem: cp.Problem
    x: cp.Variable
    parameters: list[cp.Parameter]
    slots: list[Slot]

    def values(self, instances: list[RandomProgram]) -> list[Array]:
        """For each parameter the values of all instances, ``(B, *shape)``."""
        given = [scaled(instance) for instance in instances]
        out = []
        for slot in self.slots:
            stacked = np.stack([getattr(one, slot.name)[slot.rows] for one in given])
            out.append(stacked)
        return out


def model(structure: RandomStructure, first: RandomProgram) -> Modelled:
    """The problem; constants are those of its first instance, which the others share.

    Args:
        structure: of the problem.
        first: any instance of it.
    """
    everything = slice(None)
    x, q = cp.Variable(structure.n, name="x"), cp.Parameter(structure.n, name="q")
    parameters, slots = [q], [Slot("q", everything)]
    given = scaled(first)
    objective: Any = q @ x
    match structure.quadratic:
        case Quadratic.FACTOR:
            L = cp.Parameter(given.L.shape, name="L")
            parameters.append(L)
            slots.append(Slot("L", everything))
            objective += 0.5 * cp.sum_squares(L @ x)
        case Quadratic.CONSTANT_FACTOR:
            objective += 0.5 * cp.sum_squares(given.L @ x)
        case Quadratic.CONSTANT_FORM:
            objective += 0.5 * cp.quad_form(x, cp.psd_wrap(given.L.T @ given.L))

    constraints: list[Any] = []
    alphas = np.array(structure.dims.p3d)
    for number, (kind, rows) in enumerate(blocks_of(structure.dims)):
        size = rows.stop - rows.start
        b = cp.Parameter(size, name=f"b{number}")
        A: Any = given.A[rows]
        if not structure.matrix_is_constant:
            A = cp.Parameter((size, structure.n), name=f"A{number}")
            parameters.append(A)
            slots.append(Slot("A", rows))
        parameters.append(b)
        slots.append(Slot("b", rows))
        constraints.append(_constraint(kind, A @ x, b, alphas))
    return Modelled(cp.Problem(cp.Minimize(objective), constraints), x, parameters, slots)


def _constraint(kind: str, Ax: Any, b: Any, alphas: Array) -> Any:
    """b − Ax in a cone."""
    if kind == "zero":
        return Ax == b
    if kind == "nonneg":
        return Ax <= b
    s = b - Ax
    if kind == "soc":
        return cp.SOC(s[0], s[1:])
    if kind == "psd":
        basis = _matrices(s.size)
        order = round(basis.shape[0] ** 0.5)
        return cp.reshape(basis @ s, (order, order), order="F") >> 0
    if kind == "exp":
        return cp.ExpCone(s[0::3], s[1::3], s[2::3])
    return cp.PowCone3D(s[0::3], s[1::3], s[2::3], alphas)


def _matrices(size: int) -> Array:
    """The map from a scaled lower triangle to its matrix's entries, ``(k², size)``."""
    order = int((np.sqrt(8 * size + 1) - 1) / 2)
    rows, columns = triangle(order)
    basis = np.zeros((order * order, size))
    for i, (r, c) in enumerate(zip(rows, columns, strict=True)):
        basis[[r + c * order, c + r * order], i] = 1.0 if r == c else np.sqrt(0.5)
    return basis


def scaled(instance: RandomProgram) -> Given:
    """The data at the scale they are given at, with the bad value if there is one."""
    E, C, c = instance.scaling.rows, instance.scaling.columns, instance.scaling.objective
    given = Given(
        np.sqrt(c) * instance.L * C, E[:, None] * instance.A * C, c * C * instance.q, E * instance.b
    )
    if instance.bad is not None:
        name, place, value = instance.bad
        data: Array = getattr(given, name)
        data.flat[int(place * data.size)] = value
    return given
