"""An independent reference: solutions to about 1e-13 and the gradient of a linear loss, in plain numpy.

One instance at a time. CVXPY's own parameter tensors give the data, Clarabel solves at the tightest
tolerances, Newton's method finishes on the KKT conditions written in (x, u) with s = Π(u) and y = Π(u) − u,

    E(x, u) = (P x + q + Aᵀy,  A x + s − b) = 0,      E' = [[P, Aᵀ(D − I)], [A, D]],  D = DΠ(u),

and the adjoint solves E'ᵀ(λ, ν) = ∂loss/∂(x, u) with the same dense matrix. Dense factorizations, residuals
in long double, least squares where E' is singular. Nothing here is shared with cvxfold, but for the
projections in numpy that its fuzzer has as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.linalg as sl
import scipy.sparse as sp

from cvxfold.studies.fuzz.cones import Array, cones_of, triangle

clarabel: Any = __import__("clarabel")  # its types are compiled and unknown to pyright
lapack: Any = sl.lapack


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

    P: Array
    q: Array
    A: Array
    b: Array


class KktReference:
    """Solves and differentiates one problem for many parameter values.

    Args:
        problem, parameters, variables: as a layer takes them.
        gp: whether it is a geometric program; its parameters must then all be factors, not exponents.
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
        self.cones = cones_of(self.tensors.cone_dims)
        assert (self.cones[-1].rows.stop if self.cones else 0) == self.m, "other cones are not handled here"
        self.row_order = _clarabel_order(self.tensors.cone_dims, self.m)
        assert chain is not None
        ids = {old: new[0] for old, new in chain.compose_param_id_map().items()}
        self.columns = [self.tensors.param_id_to_col[ids.get(p.id, p.id)] for p in parameters]
        # A symmetric parameter stands in the canonical form by its upper triangle.
        self.triangles = [np.triu_indices(p.shape[0]) if p.id in ids and not gp else None for p in parameters]
        self.recover = _recovery(fresh, chain, inverse, (self.n, self.m), self.variables)

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
        constraints = np.reshape(self.tensors.A @ vector, (m, n + 1), order="F")  # A_cvxpy x + b_cvxpy in K
        P = np.zeros((n, n))
        if self.tensors.P is not None:
            P = np.reshape(self.tensors.P @ vector, (n, n), order="F")
        return ReferenceData(
            0.5 * (P + P.T), (self.tensors.q @ vector)[:-1], -constraints[:, :-1], constraints[:, -1]
        )

    def pull(self, P: Array, q: Array, A: Array, b: Array) -> list[Array]:
        """Gradients for (P, q, A, b) to gradients for the parameters: the transpose of the affine map."""
        vector = self.tensors.A.T @ np.column_stack([-A, b]).flatten(order="F")
        vector = vector + self.tensors.q.T @ np.append(q, 0.0)
        if self.tensors.P is not None:
            vector = vector + self.tensors.P.T @ (0.5 * (P + P.T)).flatten(order="F")
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
        x, u = self.polish(data, *self.clarabel(data))
        s, D = self.project(u)
        y = s - u
        residual = _norm(self.conditions(data, x, u)) / (1 + _norm(data.q) + _norm(data.b))
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
        rhs = np.concatenate([x_bar, (D - np.eye(self.m)) @ y_bar])
        J = self.jacobian(data, D)
        w = _accurate_solve(J.T, rhs)
        lam, nu = w[: self.n], w[self.n :]
        gradients = self.pull(-np.outer(lam, x), -lam, -np.outer(y, lam) - np.outer(nu, x), nu)
        if self.gp:
            gradients = [g / np.asarray(v, float) for g, v in zip(gradients, values, strict=True)]
        adjoint = _norm(J.T @ w - rhs) / max(_norm(rhs), 1e-300)
        return ReferenceAnswer(found, gradients, residual, adjoint, self.margin(u))

    def clarabel(self, data: ReferenceData) -> tuple[Array, Array]:
        """Clarabel at the tightest tolerances it may reach; (x, u = s − y)."""
        cones = _clarabel_cones(self.tensors.cone_dims)
        order = self.row_order
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.max_iter = 500
        settings.presolve_enable = False
        settings.max_threads = 1
        for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
            setattr(settings, name, 1e-13)
        P, A = sp.csc_matrix(np.triu(data.P)), sp.csc_matrix(data.A[order])
        solution = clarabel.DefaultSolver(P, data.q, A, data.b[order], cones, settings).solve()
        accepted = ("Solved", "AlmostSolved", "InsufficientProgress")
        if str(solution.status) not in accepted:
            raise ArithmeticError(f"Clarabel: {solution.status}")
        u = np.empty(self.m)
        u[order] = np.array(solution.s) - np.array(solution.z)
        return np.array(solution.x), u

    def polish(self, data: ReferenceData, x: Array, u: Array) -> tuple[Array, Array]:
        """Newton on E(x, u) = 0 as long as it reduces the residual."""
        now = self.conditions(data, x, u)
        for _ in range(30):
            step = _accurate_solve(self.jacobian(data, self.project(u)[1]), -now)
            x_new, u_new = x + step[: self.n], u + step[self.n :]
            new = self.conditions(data, x_new, u_new)
            if not _norm(new) < _norm(now):
                break
            x, u, now = x_new, u_new, new
        return x, u

    def conditions(self, data: ReferenceData, x: Array, u: Array) -> Array:
        """E(x, u), summed in long double."""
        s = self.project(u)[0]
        wide = [v.astype(np.longdouble) for v in (data.P, data.q, data.A, data.b, x, s, s - u)]
        P, q, A, b, x, s, y = wide
        return np.concatenate([P @ x + q + A.T @ y, A @ x + s - b]).astype(float)

    def jacobian(self, data: ReferenceData, D: Array) -> Array:
        """E'(x, u)."""
        return np.block([[data.P, data.A.T @ (D - np.eye(self.m))], [data.A, D]])

    # the cones

    def project(self, u: Array) -> tuple[Array, Array]:
        """Π(u) and its Jacobian."""
        s, D = np.zeros(self.m), np.zeros((self.m, self.m))
        for cone in self.cones:
            rows = cone.rows
            s[rows], D[rows, rows], _ = cone.project(u[rows])
        return s, D

    def margin(self, u: Array) -> float:
        """About how far u is from the nearest point where Π has no derivative."""
        return min((cone.project(u[cone.rows])[2] for cone in self.cones), default=np.inf)


def _recovery(
    problem: cp.Problem, chain: Any, inverse: Any, sizes: tuple[int, int], variables: Sequence[cp.Variable]
) -> list[Array]:
    """Each variable as a linear map of (x, y): what cvxpy unpacks from the unit vectors.

    In a geometric program that is the variable's logarithm.
    """
    info = {"status_val": 1, "solve_time": 0.0, "setup_time": 0.0, "iter": 0, "pobj": 0.0}
    n, m = sizes
    duals = [v for constraint in problem.constraints for v in constraint.dual_variables]
    before = [(v, v.value) for v in (*problem.variables(), *duals)]
    geometric = any(type(step).__name__ == "Dgp2Dcp" for step in chain.reductions)
    columns = []
    for unit in np.eye(n + m):
        problem.unpack_results({"x": unit[:n], "y": unit[n:], "s": np.zeros(m), "info": info}, chain, inverse)
        values = [np.asarray(v.value, float).flatten(order="F") for v in variables]
        columns.append([np.log(value) for value in values] if geometric else values)
    for v, value in before:
        v.save_value(value)
    return [np.stack(of_one, axis=1) for of_one in zip(*columns, strict=True)]


def _accurate_solve(M: Array, rhs: Array) -> Array:
    """M z = rhs by LU with refinement in long double; the minimum-norm solution where M is singular."""
    wide = M.astype(np.longdouble)
    factor, pivots, info = lapack.dgetrf(M)
    rcond = lapack.dgecon(factor, np.abs(M).sum(axis=0).max())[0] if info == 0 else 0.0

    def once(r: Array) -> Array:
        if rcond > 1e-13:
            return np.asarray(sl.lu_solve((factor, pivots), r))
        return np.asarray(sl.lstsq(M, r, cond=1e-11, lapack_driver="gelsy")[0])  # type: ignore[index]

    z = once(rhs)
    for _ in range(3):
        z = z + once((rhs - wide @ z.astype(np.longdouble)).astype(float))
    return z


def _norm(v: Array) -> float:
    return float(np.linalg.norm(v))


def _clarabel_cones(dims: Any) -> list[Any]:
    """Clarabel's objects for the cones of a problem, in SCS's order, from cvxpy's dimensions."""
    kinds: list[Any] = []
    if dims.zero:
        kinds.append(partial(clarabel.ZeroConeT, dims.zero))
    if dims.nonneg:
        kinds.append(partial(clarabel.NonnegativeConeT, dims.nonneg))
    kinds += [partial(clarabel.SecondOrderConeT, size) for size in dims.soc]
    kinds += [partial(clarabel.PSDTriangleConeT, order) for order in dims.psd]
    kinds += [clarabel.ExponentialConeT] * dims.exp
    kinds += [partial(clarabel.PowerConeT, alpha) for alpha in dims.p3d]
    return [kind() for kind in kinds]


def _clarabel_order(dims: Any, m: int) -> Array:
    """Clarabel has the upper triangles of matrices, column by column: for each of its rows the row here."""
    order = np.arange(m)
    start = dims.zero + dims.nonneg + sum(dims.soc)
    for k in dims.psd:
        rows, columns = triangle(k)
        size = len(rows)
        order[start : start + size] = start + np.lexsort((columns, rows))
        start += size
    return order
