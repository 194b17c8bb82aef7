"""CVXPY problem → structure of a cone program. The one module that touches cvxpylayers' internals.

cvxpylayers' ``parse_args`` does the canonicalization (for SCS, with a quadratic objective). It hands over
sparse matrices that map the parameter vector, with a trailing 1, to the stored entries of P and [−A | b]
in column order and to q; they are split here into one affine map for each of P, q, A, b.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpylayers.interfaces.base import SolverInterface
from cvxpylayers.utils.parse_args import LayersContext, VariableRecovery, parse_args

from cvxfold.cones.dims import ConeDims
from cvxfold.problem.attributes import NAMES, DeclaredSet
from cvxfold.problem.empty import without_empty_parts
from cvxfold.problem.quadratic_forms import allows_quadratic_objective, with_forms_of_variables
from cvxfold.problem.refusals import check_parts, explained
from cvxfold.problem.signs import with_signs
from cvxfold.problem.structure import Canonical, IndexArray, OutputSpec, ParameterSpec, Structure

_TWO_ROLES = (
    "parameters: one of them is both a factor and an exponent of the geometric program, which its canonical "
    "form cannot tell apart; use a parameter for each and call the layer with the same tensor for both"
)


def canonicalize(
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    *,
    gp: bool = False,
    verbose: bool = False,
    canon_backend: str | None = None,
) -> Canonical:
    """Canonicalize a DPP problem, leaving it as it was found.

    Args:
        problem: a DPP-compliant problem (log-log DPP for ``gp``).
        parameters: all its parameters, in the order of the layer's arguments.
        variables: the variables (or dual variables of constraints) to return.
        gp: whether it is a geometric program.
        verbose: let cvxpy print its compilation.
        canon_backend: cvxpy's canonicalization backend.

    Raises:
        ValueError: the problem is not DPP, a parameter or variable is not the problem's, or the canonical
            form needs a cone that is not supported.
    """
    check_parts(problem, parameters, variables)
    if problem.is_mixed_integer():
        raise ValueError("problem: has integer or boolean variables; its solution map has no derivative")
    for variable in problem.variables():
        if any(variable.attributes[name] for name in ("diag", "sparsity", "hermitian", "complex", "imag")):
            raise ValueError(
                f"variable {variable.name()}: diag, sparse and complex variables are not supported"
            )
    # A problem of our own around the same expressions: what cvxpy caches on a Problem stays ours.
    own = without_empty_parts(problem)
    own = own if gp else with_forms_of_variables(own)
    present = [parameter for parameter in parameters if parameter.size]
    asked = [variable for variable in variables if variable.size]
    conic = not gp and not allows_quadratic_objective(own) and own.is_dpp()
    try:
        context = parse_args(
            own,
            asked,
            present,
            None,
            gp=gp,
            verbose=verbose,
            canon_backend=canon_backend,
            custom_solver=_Canonicalizer() if not conic else _ConicCanonicalizer(),
        )
    except Exception as error:
        raise explained(error, problem, gp) from error
    structure, P, q, A, b = maps_of(context)
    outputs = tuple(
        _cone_dual(variable, recovery, problem) or _output(recovery, gp)
        for variable, recovery in zip(asked, context.var_recover, strict=True)
    )
    specs = _parameter_specs(context)
    vector: Any = context.q  # of the parameter vector with a trailing 1
    columns, known = vector.shape[1] - 1, sum(spec.columns.stop - spec.columns.start for spec in specs)
    if columns != known:
        raise ValueError(_TWO_ROLES if gp else f"problem: expected {known} parameter entries, got {columns}")
    of_present, of_asked = iter(specs), iter(outputs)
    specs = tuple(next(of_present) if each.size else _empty_spec(each) for each in parameters)
    outputs = tuple(next(of_asked) if each.size else _empty_output(each) for each in variables)
    outputs = tuple(with_signs(spec, structure) for spec in outputs)
    return Canonical(structure, specs, outputs, P, q, A, b)


def _empty_spec(parameter: cp.Parameter) -> ParameterSpec:
    return ParameterSpec(parameter.name(), tuple(parameter.shape), slice(0, 0), None, False, None)


def _empty_output(variable: cp.Variable) -> OutputSpec:
    return OutputSpec("primal", slice(0, 0), tuple(variable.shape), "full", False)


def as_it_was(reduced: Any) -> tuple[Any, IndexArray | None]:
    """A map that cvxpy keeps on the Problem as cvxpy made it, where another layer has reordered it.

    cvxpylayers' layers for other solvers permute the rows of this map in place, for whoever comes next.

    Args:
        reduced: cvxpy's ``ReducedMat`` from parameters to stored entries.

    Returns:
        The map in its own order, and for each of its rows the row of ``reduced`` that holds it; None where
        nothing was changed. Equal rows are interchangeable.

    Raises:
        ValueError: the rows are not the same.
    """
    fresh = type(reduced)(reduced.matrix_data, reduced.var_len, reduced.quad_form)
    fresh.cache()
    if fresh.reduced_mat is None or fresh.problem_data_index is None:
        return fresh, None
    now, then = _row_keys(reduced.reduced_mat), _row_keys(fresh.reduced_mat)
    if now == then:
        return fresh, None
    where: dict[Any, list[int]] = {}
    for row, key in enumerate(now):
        where.setdefault(key, []).append(row)
    try:
        return fresh, np.array([where[key].pop() for key in then])
    except (KeyError, IndexError):
        raise ValueError(
            "problem: its cached canonical form was changed by a layer for another solver; give this layer a "
            "problem of its own, cp.Problem(problem.objective, problem.constraints)"
        ) from None


def _row_keys(matrix: Any) -> list[Any]:
    rows = sp.csr_array(matrix, copy=True)
    rows.sort_indices()
    return [(rows.indices[i:j].tobytes(), rows.data[i:j].tobytes()) for i, j in pairwise(rows.indptr)]


def maps_of(
    context: LayersContext,
) -> tuple[Structure, sp.csr_array, sp.csr_array, sp.csr_array, sp.csr_array]:
    """The structure in cvxpylayers' context, and the maps to P, q, A and b.

    The entries of b follow those of A in cvxpylayers' vector of [−A | b].
    """
    cones = _cone_dims(context.cone_dims)
    P, P_entries = _quadratic(context)
    q = sp.csr_array(context.q)[:-1]
    A, A_entries, b, b_entries = _constraints(context, q.shape[1])
    structure = Structure(q.shape[0], cones.rows, cones, P_entries, A_entries, _constants(A), b_entries)
    return structure, P, q, A, b


class _Canonicalizer(SolverInterface):
    """Asks ``parse_args`` for SCS's form with a quadratic objective; never solves."""

    canon_solver = "SCS"
    supports_quad_obj = True

    def solve_torch_batch(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("used for canonicalization only")

    derivative_torch_batch: Callable[..., Any] = solve_torch_batch


class _ConicCanonicalizer(_Canonicalizer):
    """Asks for the same form with a linear objective, which cvxpy makes for diffcp."""

    canon_solver = "DIFFCP"
    supports_quad_obj = False


def _quadratic(context: LayersContext) -> tuple[sp.csr_array, IndexArray]:
    reduced: Any = context.reduced_P
    if reduced.problem_data_index is None:
        q: Any = context.q
        return sp.csr_array((0, q.shape[1])), np.empty((2, 0), dtype=np.int64)
    return sp.csr_array(reduced.reduced_mat), _places(reduced.problem_data_index)


def _constraints(
    context: LayersContext, width: int
) -> tuple[sp.csr_array, IndexArray, sp.csr_array, IndexArray]:
    reduced: Any = context.reduced_A
    if reduced.problem_data_index is None:
        empty = sp.csr_array((0, width))
        return empty, np.empty((2, 0), dtype=np.int64), empty, np.empty(0, dtype=np.int64)
    stored = sp.csr_array(reduced.reduced_mat)
    places = _places(reduced.problem_data_index)
    offset = reduced.problem_data_index[2][1] - 1  # the column of b in [−A | b]
    split = int(np.searchsorted(places[1], offset))
    A = sp.csr_array(-stored[:split])
    return A, places[:, :split], sp.csr_array(stored[split:]), places[0, split:]


def _constants(data: sp.csr_array) -> np.ndarray:
    parametric = np.diff(sp.csr_array(data[:, :-1]).indptr) > 0
    return np.where(parametric, np.nan, np.asarray(data[:, [-1]].todense()).ravel())


def _places(index: tuple[Any, Any, Any]) -> IndexArray:
    """Rows and columns, ``(2, nnz)``, of the entries of a compressed-column structure."""
    rows, column_pointers, _ = index
    columns = np.repeat(np.arange(len(column_pointers) - 1), np.diff(column_pointers))
    return np.stack([np.asarray(rows, dtype=np.int64), columns.astype(np.int64)])


def _cone_dims(dims: Any) -> ConeDims:
    if dims.pnd:
        raise ValueError("problem: its canonical form has n-dimensional power cones, which SCS does not take")
    return ConeDims(
        int(dims.zero),
        int(dims.nonneg),
        tuple(int(size) for size in dims.soc),
        tuple(int(order) for order in dims.psd),
        int(dims.exp),
        tuple(float(alpha) for alpha in dims.p3d),
    )


def _parameter_specs(context: LayersContext) -> tuple[ParameterSpec, ...]:
    triangles = [
        None if triangle is None else (np.array(triangle[0]), np.array(triangle[1]))
        for triangle in context.param_triu_indices
    ]
    sizes = [
        parameter.size if triangle is None else len(triangle[0])
        for parameter, triangle in zip(context.parameters, triangles, strict=True)
    ]
    order = np.argsort(context.user_order_to_col_order)
    starts = np.zeros(len(sizes), dtype=np.int64)
    starts[order] = np.cumsum([0, *(sizes[i] for i in order)])[:-1]
    logs = context.gp_log_mask or (False,) * len(sizes)
    return tuple(
        ParameterSpec(
            parameter.name(),
            tuple(parameter.shape),
            slice(int(start), int(start) + size),
            triangle,
            log,
            next((name for name in NAMES if parameter.attributes[name]), None),
            DeclaredSet.of(parameter),
        )
        for parameter, start, size, triangle, log in zip(
            context.parameters, starts, sizes, triangles, logs, strict=True
        )
    )


def _output(recovery: VariableRecovery, gp: bool) -> OutputSpec:
    entries = recovery.primal if recovery.source == "primal" else recovery.dual
    assert entries is not None
    packing: dict[str, Literal["full", "triangle", "svec"]] = {
        "reshape": "full",
        "svec_primal": "triangle",
        "svec_dual": "svec",
    }
    return OutputSpec(
        recovery.source,
        entries,
        tuple(recovery.shape),
        packing[recovery.unpack_fn],
        gp and recovery.source == "primal",
    )


def _cone_dual(variable: cp.Variable, recovery: VariableRecovery, problem: cp.Problem) -> OutputSpec | None:
    """The dual of one argument of a cone constraint: the arguments' rows alternate, cone by cone.

    cvxpylayers takes them for consecutive. cvxpy's own unpacking, asked to unpack 0, 1, 2, …, tells.
    """
    for constraint in problem.constraints:
        duals = constraint.dual_variables
        position = next((i for i, dual in enumerate(duals) if dual is variable), None)
        if position is None or not isinstance(constraint, cp.SOC | cp.ExpCone | cp.PowCone3D):
            continue
        assert recovery.dual is not None
        before = [dual.value for dual in duals]
        labels = np.arange(constraint.size, dtype=float)
        is_power = isinstance(constraint, cp.PowCone3D)  # whose multipliers come as columns of three
        constraint.save_dual_value(labels.reshape(3, -1, order="F") if is_power else labels)
        places = np.asarray(variable.value).astype(np.int64).ravel()
        for dual, value in zip(duals, before, strict=True):
            dual.save_value(value)
        start = recovery.dual.start - sum(dual.size for dual in duals[:position])
        entries = slice(start, start + constraint.size)
        return OutputSpec("dual", entries, tuple(recovery.shape), "listed", False, places)
    return None
