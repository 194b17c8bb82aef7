"""The requested variables as linear maps of a cone program's solution."""

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxfold.studies.fuzz.cones import Array
from cvxfold.studies.reference.linear import DENSE

_INFO = {"status_val": 1, "solve_time": 0.0, "setup_time": 0.0, "iter": 0, "pobj": 0.0}


def recovery(
    problem: cp.Problem, chain: Any, inverse: Any, sizes: tuple[int, int], variables: Sequence[cp.Variable]
) -> list[sp.csr_array]:
    """Each variable, column by column, as a linear map of (x, y): what cvxpy unpacks from vectors.

    In a geometric program that is the variable's logarithm. Of a large program the variables have to be
    entries of x or y, up to their signs.

    Args:
        problem, chain, inverse: as cvxpy has canonicalized it. sizes: of x and y.

    Raises:
        ArithmeticError: it is large and they are not.
    """
    n, m = sizes
    duals = [v for constraint in problem.constraints for v in constraint.dual_variables]
    before = [(v, v.value) for v in (*problem.variables(), *duals)]
    geometric = any(type(step).__name__ == "Dgp2Dcp" for step in chain.reductions)

    def unpacked(z: Array) -> list[Array]:
        data = {"x": z[:n], "y": z[n:], "s": np.zeros(m), "info": _INFO}
        problem.unpack_results(data, chain, inverse)
        values = [np.asarray(v.value, float).flatten(order="F") for v in variables]
        return [np.log(value) for value in values] if geometric else values

    try:
        if n + m <= DENSE:
            columns = [unpacked(unit) for unit in np.eye(n + m)]
            return [sp.csr_array(np.stack(of_one, axis=1)) for of_one in zip(*columns, strict=True)]
        if geometric:
            raise ArithmeticError("a geometric program too large for the reference")
        numbers, probe = np.arange(1.0, n + m + 1), np.random.default_rng(0).standard_normal(n + m)
        return [
            _entries(found, value, probe)
            for found, value in zip(unpacked(numbers), unpacked(probe), strict=True)
        ]
    finally:
        for v, value in before:
            v.save_value(value)


def _entries(found: Array, value: Array, probe: Array) -> sp.csr_array:
    """The map that takes the numbers from 1 on to ``found``, and ``probe`` to ``value``, one entry a row."""
    places = np.abs(found).astype(int) - 1
    clear = (np.abs(found) == places + 1) & (places >= 0) & (places < len(probe))
    if not clear.all() or not (np.sign(found) * probe[places] == value).all():
        raise ArithmeticError("variables that are no entries of a program too large for the reference")
    rows = np.arange(len(found))
    return sp.csr_array((np.sign(found), (rows, places)), (len(found), len(probe)))
