"""An independent reference: solutions to about 1e-13 and the gradient of a linear loss, in numpy and scipy.

One instance at a time. CVXPY's own parameter tensors give the data, Clarabel solves at the tightest
tolerances, Newton's method finishes on the KKT conditions written in (x, u) with s = Π(u) and y = Π(u) − u,

    E(x, u) = (P x + q + Aᵀy,  A x + s − b) = 0,      E' = [[P, Aᵀ(D − I)], [A, D]],  D = DΠ(u),

and the adjoint solves E'ᵀ(λ, ν) = ∂loss/∂(x, u) with the same matrix. Residuals in long double, the solution
of least norm where E' is singular. Nothing here is shared with cvxfold, but for the projections in numpy that
its fuzzer has as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxfold.studies.fuzz.cones import Array, cones_of
from cvxfold.studies.reference.clarabel_solver import solve_by_clarabel
from cvxfold.studies.reference.linear import DENSE, accurate_solve
from cvxfold.studies.reference.recovery import recovery

_NEWTON_STEPS = 30
_MOST_ENTRIES = 1_500_000


@dataclass(frozen=True)
class ReferenceAnswer:
    """Values of the requested variables, gradients for the parameters, and how good they are."""

    values: list[Array]
    gradients: list[Array]
    kkt_residual: float  # ‖E‖ / (1 + ‖q‖ + ‖b‖)
    adjoint_residual: float  # ‖E'ᵀ(λ, ν) − rhs‖ / ‖rhs‖
    margin: float  # distance of u to the nearest kink of Π: small means nearly no derivative


@dataclass(frozen=True)
class ReferenceData:
    """½xᵀPx + qᵀx, Ax + s = b, s in a product of cones, in SCS's order and scaling."""

    P: sp.csc_array
    q: Array
    A: sp.csc_array
    b: Array


@dataclass(frozen=True)
class _Entries:
    """A matrix with some entries, each affine in the parameters.

    Args:
        rows, columns: of each entry. by_parameters: ``(entries, parameters and 1)``.
    """

    rows: Array
    columns: Array
    by_parameters: sp.csr_array

    @classmethod
    def of(cls, tensor: Any, rows: int) -> _Entries:
        """Of cvxpy's, which has a row for each entry there might be, column by column."""
        flat: Any = sp.coo_array(tensor)
        places, numbers = np.unique(flat.coords[0], return_inverse=True)
        by_parameters = sp.csr_array(
            (flat.data, (numbers, flat.coords[1])), (len(places), np.shape(tensor)[1])
        )
        return cls(places % max(rows, 1), places // max(rows, 1), by_parameters)


class KktReference:
    """Solves and differentiates one problem for many parameter values.

    Args:
        problem, parameters, variables: as a layer takes them.
        gp: whether it is a geometric program; its parameters must then all be factors, not exponents.

    Raises:
        ArithmeticError: it is large, and its variables are no entries of the cone program's.
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[cp.Variable],
        gp: bool = False,
    ) -> None:
        fresh = cp.Problem(problem.objective, problem.constraints)
        before = [p.value for p in parameters]
        for p in parameters:
            p.value = np.ones(p.shape)
        data, chain, inverse = fresh.get_problem_data(cp.SCS, gp=gp, solver_opts={"use_quad_obj": True})
        for p, value in zip(parameters, before, strict=True):
            p.value = value
        self.gp = gp
        self.tensors = data["param_prob"]
        self.parameters, self.variables = list(parameters), list(variables)
        self.n = self.tensors.x.size
        self.m = self.tensors.constr_size
        dims = self.tensors.cone_dims
        cones = cones_of(dims)
        assert (cones[-1].rows.stop if cones else 0) == self.m, "other cones are not handled here"
        self.equations, self.half_lines = dims.zero, dims.zero + dims.nonneg
        self.curved = [cone for cone in cones if cone.rows.start >= self.half_lines]
        assert chain is not None
        ids = {old: new[0] for old, new in chain.compose_param_id_map().items()}
        self.columns = [self.tensors.param_id_to_col[ids.get(p.id, p.id)] for p in parameters]
        # A symmetric parameter stands in the canonical form by its upper triangle.
        self.triangles = [np.triu_indices(p.shape[0]) if p.id in ids and not gp else None for p in parameters]
        none = sp.coo_array((self.n**2, self.tensors.total_param_size + 1))
        self.in_constraints = _Entries.of(self.tensors.A, self.m)  # of (−A, b)
        self.in_P = _Entries.of(none if self.tensors.P is None else self.tensors.P, self.n)
        self.recover = recovery(fresh, chain, inverse, (self.n, self.m), self.variables)

    @property
    def too_large(self) -> bool:
        """Whether factors of E' would be: many entries in what is too large to be dense."""
        entries = len(self.in_constraints.rows) + len(self.in_P.rows)
        return self.n + self.m > DENSE and entries > _MOST_ENTRIES

    # the data, and the transposed data map

    def data(self, values: Sequence[Array]) -> ReferenceData:
        """The cone program at these parameter values (affine in them, which is what DPP means)."""
        vector = np.zeros(self.tensors.total_param_size + 1)
        vector[-1] = 1.0
        for col, upper, value in zip(self.columns, self.triangles, values, strict=True):
            full = np.log(value) if self.gp else np.asarray(value, float)
            entries = full.flatten(order="F") if upper is None else full[upper]
            vector[col : col + len(entries)] = entries
        n, m = self.n, self.m
        at, entries = self.in_constraints, self.in_constraints.by_parameters @ vector
        matrix = at.columns < n  # A_cvxpy x + b_cvxpy in K
        A = sp.csc_array((-entries[matrix], (at.rows[matrix], at.columns[matrix])), (m, n))
        b = np.zeros(m)
        b[at.rows[~matrix]] = entries[~matrix]
        P = sp.csc_array((self.in_P.by_parameters @ vector, (self.in_P.rows, self.in_P.columns)), (n, n))
        return ReferenceData(sp.csc_array(0.5 * (P + P.T)), (self.tensors.q @ vector)[:-1], A, b)

    def pull(self, lam: Array, nu: Array, x: Array, y: Array) -> list[Array]:
        """Gradients for the parameters: the transpose of the affine map.

        It is applied to P̄ = −λxᵀ, q̄ = −λ, Ā = −(yλᵀ + νxᵀ) and b̄ = ν.
        """
        at, wide_x, wide_lam = self.in_constraints, np.append(x, 0.0), np.append(lam, 0.0)
        constraints = y[at.rows] * wide_lam[at.columns] + nu[at.rows] * wide_x[at.columns]
        constraints = np.where(at.columns < self.n, constraints, nu[at.rows])
        vector = at.by_parameters.T @ constraints
        vector = vector - self.tensors.q.T @ np.append(lam, 0.0)
        at = self.in_P
        half = lam[at.rows] * x[at.columns] + lam[at.columns] * x[at.rows]
        vector = vector - at.by_parameters.T @ (0.5 * half)
        out = []
        for p, col, upper in zip(self.parameters, self.columns, self.triangles, strict=True):
            if upper is None:
                out.append(np.reshape(vector[col : col + p.size], p.shape, order="F"))
            else:
                gradient = np.zeros(p.shape)
                gradient[upper] = vector[col : col + len(upper[0])]
                out.append(gradient)
        return out

    # the solve

    def solve(self, values: Sequence[Array], weights: Sequence[Array]) -> ReferenceAnswer:
        """The solution at ``values`` and the gradient of Σ ⟨weight, variable⟩.

        Raises:
            ArithmeticError: it was not found.
        """
        data = self.data(values)
        start = solve_by_clarabel(data.P, data.q, data.A, data.b, self.tensors.cone_dims)
        x, u, (s, D), now = self.polish(data, *start)
        y = s - u
        residual = _norm(now) / (1 + _norm(data.q) + _norm(data.b))
        if not residual < 1e-10:
            raise ArithmeticError(f"the reference itself did not converge: {residual:.1e}")

        x_bar, y_bar = np.zeros(self.n), np.zeros(self.m)
        found = []
        for linear, weight, var in zip(self.recover, weights, self.variables, strict=True):
            value, slope = linear @ np.concatenate([x, y]), np.asarray(weight).flatten(order="F")
            if self.gp:
                value = np.exp(value)
                slope = slope * value
            pulled = linear.T @ slope
            x_bar, y_bar = x_bar + pulled[: self.n], y_bar + pulled[self.n :]
            found.append(np.reshape(value, var.shape, order="F"))
        rhs = np.concatenate([x_bar, D @ y_bar - y_bar])
        transposed = sp.csc_array(self.jacobian(data, D).T)
        w = accurate_solve(transposed, rhs)
        gradients = self.pull(w[: self.n], w[self.n :], x, y)
        if self.gp:
            gradients = [g / np.asarray(v, float) for g, v in zip(gradients, values, strict=True)]
        adjoint = _norm(transposed @ w - rhs) / max(_norm(rhs), 1e-300)
        return ReferenceAnswer(found, gradients, residual, adjoint, self.margin(u))

    def polish(
        self, data: ReferenceData, x: Array, u: Array
    ) -> tuple[Array, Array, tuple[Array, sp.csc_array], Array]:
        """Newton on E(x, u) = 0 as long as it reduces the residual.

        Returns:
            x; u; Π(u) and its Jacobian; E(x, u).
        """
        projected = self.project(u)
        now = self.conditions(data, x, u, projected[0])
        for _ in range(_NEWTON_STEPS):
            step = accurate_solve(self.jacobian(data, projected[1]), -now)
            x_new, u_new = x + step[: self.n], u + step[self.n :]
            projected_new = self.project(u_new)
            new = self.conditions(data, x_new, u_new, projected_new[0])
            if not _norm(new) < _norm(now):
                break
            x, u, projected, now = x_new, u_new, projected_new, new
        return x, u, projected, now

    def conditions(self, data: ReferenceData, x: Array, u: Array, s: Array) -> Array:
        """E(x, u) for s = Π(u), summed in long double."""
        P, q, A, b = (part.astype(np.longdouble) for part in (data.P, data.q, data.A, data.b))
        x, s, y = (part.astype(np.longdouble) for part in (x, s, s - u))
        return np.concatenate([P @ x + q + A.T @ y, A @ x + s - b]).astype(float)

    def jacobian(self, data: ReferenceData, D: sp.csc_array) -> sp.csc_array:
        """E'(x, u)."""
        turned = data.A.T @ (D - sp.eye_array(self.m, format="csc"))
        return sp.csc_array(sp.block_array([[data.P, turned], [data.A, D]]))

    # the cones

    def project(self, u: Array) -> tuple[Array, sp.csc_array]:
        """Π(u) and its Jacobian."""
        line = u[: self.half_lines]
        inside = (line > 0) & (np.arange(len(line)) >= self.equations)
        s = np.zeros(self.m)
        s[: self.half_lines] = np.where(inside, line, 0.0)
        blocks: list[Any] = [sp.diags_array(inside.astype(float))] if len(line) else []
        for cone in self.curved:
            s[cone.rows], block, _ = cone.project(u[cone.rows])
            blocks.append(block)
        return s, sp.csc_array(sp.block_diag(blocks)) if blocks else sp.csc_array((0, 0))

    def margin(self, u: Array) -> float:
        """About how far u is from the nearest point where Π has no derivative."""
        lines = float(np.abs(u[self.equations : self.half_lines]).min(initial=np.inf))
        return min([lines, *(cone.project(u[cone.rows])[2] for cone in self.curved)])


def _norm(v: Array) -> float:
    return float(np.linalg.norm(v))
