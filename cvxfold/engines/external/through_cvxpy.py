"""Any other solver that cvxpy has installed, through a cvxpy problem in cone form."""

from typing import Any

import cvxpy as cp
import numpy as np

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


def solve(solver: str, instance: Instance, arguments: dict[str, Any]) -> Outcome:
    """Solve by a solver of cvxpy's.

    Raises:
        ValueError: the solver does not take such problems, or does not know an argument.
    """
    m, n = instance.cones.rows, len(instance.q)
    x = cp.Variable(n)
    cost = instance.q @ x
    if instance.P.nnz:
        cost = cost + 0.5 * cp.quad_form(x, instance.P, assume_PSD=True)
    constraints, places = _constraints(instance, x)
    problem = cp.Problem(cp.Minimize(cost), constraints)
    try:
        problem.solve(solver=solver, **arguments)
    except cp.SolverError as error:
        if "Try another solver" in str(error):  # it ran and failed: one instance's matter
            return Outcome(np.zeros(n), np.zeros(m), np.zeros(m), Status.UNCONVERGED, 0)
        raise ValueError(f"solver: {solver!r} cannot solve this problem: {error}") from error
    status = _STATUS.get(problem.status, Status.UNCONVERGED)
    if x.value is None:
        return Outcome(np.zeros(n), np.zeros(m), np.zeros(m), status, 0)
    y = np.zeros(m)
    for constraint, rows in zip(constraints, places, strict=True):
        y[rows] = _dual(constraint)
    iterations = problem.solver_stats.num_iters if problem.solver_stats else None
    return Outcome(x.value, instance.b - instance.A @ x.value, y, status, int(iterations or 0))


def _constraints(instance: Instance, x: cp.Variable) -> tuple[list[Any], list[np.ndarray]]:
    """Each cone's constraint on b − Ax, and its rows."""
    dims = instance.cones
    constraints: list[Any] = []
    places: list[np.ndarray] = []
    start = 0

    def take(count: int) -> Any:
        nonlocal start
        rows = np.arange(start, start + count)
        start += count
        places.append(rows)
        return instance.b[rows] - instance.A[rows] @ x

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
