"""CVXPY problem → structure of a cone program.

cvxpy canonicalizes it for SCS, with a quadratic objective; where its rules for those do not take the problem,
in the same form with a linear one, which it makes for diffcp. It hands over sparse matrices that map the
parameter vector, with a trailing 1, to the stored entries of P and [−A | b] in column order and to q; they
are split here into one affine map for each of P, q, A, b.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxfold.cones.dims import ConeDims
from cvxfold.problem.attributes import NAMES, DeclaredSet
from cvxfold.problem.compilation import CvxpyError, Form, compiled
from cvxfold.problem.empty import without_empty_parts
from cvxfold.problem.infinite import require_finite, without_bounds_at_infinity
from cvxfold.problem.location import AffineForm, Location
from cvxfold.problem.quadratic_forms import allows_quadratic_objective, with_forms_of_variables
from cvxfold.problem.refusals import check_dpp, check_parts, explained, refuse
from cvxfold.problem.signs import with_signs
from cvxfold.problem.structure import Canonical, IndexArray, ParameterSpec, Structure
from cvxfold.problem.sums import check

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
        TypeError: no problem, or something that is no parameter.
        ValueError: the problem is not DPP or not supported, a parameter or variable is not the problem's, or
            the canonical form needs a cone that is not supported, or a constant other than a bound is not
            finite.
    """
    check_parts(problem, parameters, variables)
    refuse(problem, variables)
    # A problem of our own around the same expressions: what cvxpy caches on a Problem stays ours.
    own = without_empty_parts(problem)
    own = own if gp else with_forms_of_variables(own)
    conic = not gp and not allows_quadratic_objective(own) and own.is_dpp()
    form = Form(quadratic=not conic)
    check_dpp(own, problem, gp=gp, quadratic=form.quadratic)
    options = {"verbose": verbose, "canon_backend": canon_backend}
    try:
        compilation = compiled(own, variables, parameters, form, gp=gp, **options)
    except CvxpyError as error:
        reason: Any = error.__cause__
        raise explained(reason, problem, gp) from reason
    location = Location(AffineForm(*maps_of(compilation.program)), compilation)
    where = [location.columns(number, parameter) for number, parameter in enumerate(parameters)]
    columns = [each for each, _ in where]
    if unknown := location.unknown(columns):
        raise ValueError(_TWO_ROLES if gp else f"problem: {unknown} entries of its parameters are unknown")
    bare = location.bare(columns)
    ends = np.cumsum([len(each) for each in columns])
    specs = tuple(
        ParameterSpec(
            parameter.name(),
            tuple(parameter.shape),
            slice(int(end) - len(each), int(end)),
            places,
            log,
            next((name for name in NAMES if parameter.attributes[name]), None),
            DeclaredSet.of(parameter),
            _field(parameter),
        )
        for parameter, end, (each, places), log in zip(parameters, ends, where, compilation.logs, strict=True)
    )
    structure, A, b = without_bounds_at_infinity(bare.structure, bare.A, bare.b)
    require_finite(bare.P, bare.q, A, b)
    outputs = tuple(with_signs(location.output(variable, gp), structure) for variable in variables)
    return Canonical(structure, specs, outputs, bare.P, bare.q, A, b)


def _field(parameter: cp.Parameter) -> Literal["real", "complex", "imaginary"]:
    if parameter.is_imag():
        return "imaginary"
    return "complex" if parameter.is_complex() else "real"


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
    context: Any,
) -> tuple[Structure, sp.csr_array, sp.csr_array, sp.csr_array, sp.csr_array]:
    """The structure in a canonical form, and the maps to P, q, A and b.

    The entries of b follow those of A in the vector of [−A | b].

    Args:
        context: cvxpy's ``ParamConeProg``, or cvxpylayers' context, which has the same names.

    Raises:
        ValueError: it has cones that are not supported, or does not add up.
    """
    cones = _cone_dims(context.cone_dims)
    P, P_entries = _quadratic(context)
    q = sp.csr_array(context.q)[:-1]
    A, A_entries, b, b_entries = _constraints(context, q.shape[1])
    structure = Structure(q.shape[0], cones.rows, cones, P_entries, A_entries, _constants(A), b_entries)
    index: Any = context.reduced_A.problem_data_index
    check(structure, {"P": P, "q": q, "A": A, "b": b}, None if index is None else int(index[2][0]))
    return structure, P, q, A, b


def _quadratic(context: Any) -> tuple[sp.csr_array, IndexArray]:
    reduced: Any = context.reduced_P
    if reduced.problem_data_index is None:
        q: Any = context.q
        return sp.csr_array((0, q.shape[1])), np.empty((2, 0), dtype=np.int64)
    return sp.csr_array(reduced.reduced_mat), _places(reduced.problem_data_index)


def _constraints(context: Any, width: int) -> tuple[sp.csr_array, IndexArray, sp.csr_array, IndexArray]:
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
    shape: Any = data.shape
    of_constants = np.flatnonzero(data.indices == shape[1] - 1)
    rows = np.searchsorted(data.indptr, of_constants, side="right") - 1
    parametric = np.diff(data.indptr) > np.bincount(rows, minlength=shape[0])
    return np.where(parametric, np.nan, np.bincount(rows, data.data[of_constants], minlength=shape[0]))


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
