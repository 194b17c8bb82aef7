"""Any other solver that cvxpy has installed, through a cvxpy problem in cone form."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxfold.cones.dims import ConeDims
from cvxfold.engines.external.instance import Instance, Outcome
from cvxfold.engines.outcome import Status

_STATUS = {
    cp.OPTIMAL: Status.SOLVED,
    cp.OPTIMAL_INACCURATE: Status.UNCONVERGED,
    cp.INFEASIBLE: Status.INFEASIBLE,
    cp.INFEASIBLE_INACCURATE: Status.INFEASIBLE,
    cp.UNBOUNDED: Status.UNBOUNDED,
    cp.UNBOUNDED_INACCURATE: Status.UNBOUNDED,
}


_MOST_KEPT = 8  # forms of different structure or solver
_idle: OrderedDict[Hashable, list["CompiledForm"]] = OrderedDict()
_guard = Lock()


def solve(solver: str, instance: Instance, arguments: dict[str, Any]) -> Outcome:
    """Solve by a solver of cvxpy's, in a form that is compiled once for each structure and thread.

    Raises:
        ValueError: the solver does not take such problems, or does not know an argument.
    """
    A, P = instance.A, instance.P
    places = tuple(part.tobytes() for part in (A.indices, A.indptr, P.indices, P.indptr))
    key = (solver, instance.cones, places)
    with _guard:
        idle = _idle.get(key)
        form = idle.pop() if idle else None
    if form is None:
        form = CompiledForm(solver, instance)
    try:
        return form.solve(instance, arguments)
    finally:
        with _guard:
            _idle.setdefault(key, []).append(form)
            _idle.move_to_end(key)
            while len(_idle) > _MOST_KEPT:
                _idle.popitem(last=False)


class CompiledForm:
    """A cvxpy problem in cone form whose data are parameters, so that cvxpy compiles it once.

    A's entries a are a vector: A x = R (a ∘ S x), S and R picking their columns and adding up their rows. P
    stands as FᵀF on the variables that it reaches, so that solvers without quadratic objectives serve.

    Args:
        solver: its name. instance: one of the structure.
    """

    def __init__(self, solver: str, instance: Instance) -> None:
        m, n = instance.cones.rows, len(instance.q)
        rows, columns = _entries(instance.A)
        order, nnz = np.arange(len(rows)), len(rows)
        self._solver = solver
        self._x, self._q, self._b = cp.Variable(n), cp.Parameter(n), cp.Parameter(m)
        self._a = cp.Parameter(nnz)
        self._reached = np.unique(instance.P.indices)
        k = len(self._reached)
        self._F = cp.Parameter((k, k))
        cost: Any = self._q @ self._x
        if k:
            cost = cost + 0.5 * cp.sum_squares(self._F @ self._x[self._reached])
        slack: Any = self._b
        if nnz:
            pick = sp.csr_array((np.ones(nnz), (order, columns)), shape=(nnz, n))
            add = sp.csr_array((np.ones(nnz), (rows, order)), shape=(m, nnz))
            slack = slack - add @ cp.multiply(self._a, pick @ self._x)
        self._constraints, self._places = _constraints(instance.cones, slack)
        self._problem = cp.Problem(cp.Minimize(cost), self._constraints)

    def solve(self, instance: Instance, arguments: dict[str, Any]) -> Outcome:
        """Solve an instance of the same structure, as if it were the first."""
        m, n = instance.cones.rows, len(instance.q)
        self._q.value, self._b.value, self._a.value = instance.q, instance.b, instance.A.data
        if len(self._reached):
            self._F.value = _factor(instance.P[self._reached][:, self._reached].toarray())
        try:
            self._problem.solve(solver=self._solver, **({"warm_start": False} | arguments))
        except cp.SolverError as error:
            if "Try another solver" in str(error):  # it ran and failed: one instance's matter
                return Outcome(np.zeros(n), np.zeros(m), np.zeros(m), Status.UNCONVERGED, 0)
            raise ValueError(f"solver: {self._solver!r} cannot solve this problem: {error}") from error
        status = _STATUS.get(self._problem.status, Status.UNCONVERGED)
        if self._x.value is None:
            return Outcome(np.zeros(n), np.zeros(m), np.zeros(m), status, 0)
        y = np.zeros(m)
        for constraint, rows in zip(self._constraints, self._places, strict=True):
            y[rows] = _dual(constraint)
        stats = self._problem.solver_stats
        x = np.array(self._x.value)
        iterations = int(stats.num_iters or 0) if stats else 0
        return Outcome(x, instance.b - instance.A @ x, y, status, iterations)


def _entries(matrix: sp.csc_array) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the stored entries, in their order."""
    return matrix.indices, np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))


def _factor(P: np.ndarray) -> np.ndarray:
    """F with FᵀF = P, for a positive semidefinite P."""
    values, vectors = np.linalg.eigh(P)
    return np.sqrt(values.clip(0.0))[:, None] * vectors.T


def _constraints(dims: ConeDims, slack: Any) -> tuple[list[Any], list[np.ndarray]]:
    """Each cone's constraint on b − Ax, and its rows."""
    constraints: list[Any] = []
    places: list[np.ndarray] = []
    start = 0

    def take(count: int) -> Any:
        nonlocal start
        rows = np.arange(start, start + count)
        start += count
        places.append(rows)
        return slack[rows]

    if dims.zero:
        constraints.append(cp.Zero(-take(dims.zero)))
    if dims.nonnegative:
        constraints.append(cp.NonNeg(take(dims.nonnegative)))
    for size in dims.second_order:
        s = take(size)
        constraints.append(cp.SOC(s[0], s[1:]) if size > 1 else cp.NonNeg(s))
    for order in dims.semidefinite:
        s = take(order * (order + 1) // 2)
        constraints.append(cp.PSD(cp.reshape(_unpacking(order) @ s, (order, order), order="F")))
    for _ in range(dims.exponential):
        s = take(3)
        constraints.append(cp.ExpCone(s[0], s[1], s[2]))
    for alpha in dims.power:
        s = take(3)
        constraints.append(cp.PowCone3D(s[0], s[1], s[2], alpha))
    return constraints, places


def _unpacking(order: int) -> np.ndarray:
    """The matrix that maps a scaled lower triangle to the full symmetric matrix, both by columns."""
    columns, rows = np.triu_indices(order)
    full = np.zeros((order * order, len(rows)))
    weight = np.where(rows == columns, 1.0, 0.5**0.5)
    full[rows + order * columns, np.arange(len(rows))] = weight
    full[columns + order * rows, np.arange(len(rows))] = weight
    return full


def _dual(constraint: Any) -> np.ndarray:
    if isinstance(constraint, cp.PSD):
        value = np.asarray(constraint.dual_value)
        columns, rows = np.triu_indices(len(value))
        return np.where(rows == columns, 1.0, 2**0.5) * 0.5 * (value + value.T)[rows, columns]
    return np.concatenate([np.ravel(variable.value) for variable in constraint.dual_variables])
