"""A parametrized problem in SCS's form, as cvxpy makes it, with tags that tell where its leaves stand."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
from cvxpy import settings
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpy.reductions.solvers.conic_solvers.diffcp_conif import DIFFCP
from cvxpy.reductions.solvers.conic_solvers.scs_conif import SCS
from cvxpy.utilities import scopes

from cvxfold.problem.refusals import MIXED_INTEGER, refuse_misread_cones
from cvxfold.problem.tags import Argument, Tag, argument_of, tagged

_REDUCED = ("symmetric", "PSD", "NSD", "diag", "sparsity", "hermitian")


class CvxpyError(Exception):
    """cvxpy failed on a problem; its own error is the cause."""


@dataclass(frozen=True)
class Compilation:
    """What cvxpy made of a problem.

    Args:
        program: cvxpy's ``ParamConeProg``: q and the reduced maps to P and [−A | b], of all parameters with a
            trailing 1, and the cones.
        parameters: what stands in the canonical form for each of the layer's parameters: itself or, in a
            geometric program, its logarithm.
        logs: which of them are logarithms.
        leaves: the tags of variables, and of parameters that cvxpy does not store entry by entry; by id.
        duals: the tags of dual variables, by id.
    """

    program: Any
    parameters: Sequence[cp.Parameter]
    logs: Sequence[bool]
    leaves: Mapping[int, Tag]
    duals: Mapping[int, Tag]


class _Unevaluated:
    """In front of one of cvxpy's solvers: its form, without data at the values that parameters have.

    A layer has no use for those, and cvxpy takes some time for them where parameters are large.
    """

    def name(self) -> Any:
        """Of none of cvxpy's own, as it asks of who is none of them."""
        solver: Any = super()
        return f"CVXFOLD_{solver.name()}"

    def apply(self, problem: Any) -> Any:
        """The program, its reduced maps made, and what the solver keeps."""
        prepared: Any = getattr(self, "_prepare_data_and_inv_data", None)
        if prepared is None:
            solver: Any = super()
            return solver.apply(problem)
        program, data, kept = prepared(problem)
        program.reduced_P.cache()
        program.reduced_A.cache()
        return data, kept


class _Quadratic(_Unevaluated, SCS):
    pass


class _Linear(_Unevaluated, DIFFCP):
    pass


@dataclass(frozen=True)
class Form:
    """The form that cvxpy is asked for: SCS's or, with a linear objective, diffcp's.

    Args:
        quadratic: whether the objective is quadratic, and may have a form with a parameter as its matrix.
    """

    quadratic: bool = True

    @property
    def solver(self) -> Any:
        """Whose form it is."""
        return _Quadratic() if self.quadratic else _Linear()


def compiled(
    problem: cp.Problem,
    variables: Sequence[cp.Variable],
    parameters: Sequence[cp.Parameter],
    form: Form,
    *,
    gp: bool = False,
    **options: Any,
) -> Compilation:
    """Have cvxpy canonicalize a problem, without a look at values.

    Args:
        problem: DPP, and not to be shared: cvxpy keeps things on it.
        variables: to return: the problem's, or dual variables of its constraints, or some without entries.
        parameters: all of the problem's, and some without entries.
        form: that is asked for.
        gp: whether it is a geometric program.
        options: ``verbose`` and ``canon_backend`` of ``get_problem_data``.

    Raises:
        CvxpyError: cvxpy failed on it, for the reason that is its cause.
        ValueError: it is mixed-integer, or has cones that cvxpy misorders.
    """
    with scopes.quad_form_dpp_scope() if form.quadratic else nullcontext():
        return _compiled(problem, variables, parameters, form, gp=gp, **options)


def _compiled(
    problem: cp.Problem,
    variables: Sequence[cp.Variable],
    parameters: Sequence[cp.Parameter],
    form: Form,
    *,
    gp: bool,
    **options: Any,
) -> Compilation:
    once = {variable.id: variable for variable in variables}  # some may be asked for more than once
    found = [(variable, argument_of(problem, variable)) for variable in once.values()]
    leaves = [variable for variable, argument in found if argument is None]
    duals = [variable for variable, argument in found if argument is not None]
    arguments = [argument for _, argument in found if argument is not None]
    parts = [parameter for parameter in parameters if is_stored_in_parts(parameter)]
    stand_in: Mapping[Any, Any] = {}
    variable_of: Mapping[Any, Any] = {}
    if gp:
        reduction: Any = Dgp2Dcp(problem)
        with _attempted():
            problem, _ = reduction.apply(problem)
        stand_in, variable_of = reduction.canon_methods._parameters, reduction.canon_methods._variables
        ids = reduction.cons_id_map
        arguments = [Argument(ids.get(each.constraint, each.constraint), each.position) for each in arguments]
    tagged_leaves = [*(variable_of.get(leaf, leaf) for leaf in leaves), *parts]
    extended, of_leaves, of_arguments = tagged(problem, tagged_leaves, arguments)
    data, chain, inverse = _problem_data(extended, form, options)
    if data[settings.PARAM_PROB].is_mixed_integer():
        raise ValueError(MIXED_INTEGER)
    refuse_misread_cones(chain, inverse)
    return Compilation(
        data[settings.PARAM_PROB],
        [stand_in.get(parameter, parameter) for parameter in parameters],
        [parameter in stand_in for parameter in parameters],
        {leaf.id: tag for leaf, tag in zip([*leaves, *parts], of_leaves, strict=True)},
        {dual.id: tag for dual, tag in zip(duals, of_arguments, strict=True)},
    )


def _problem_data(problem: cp.Problem, form: Form, options: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    with _attempted():
        try:
            return problem.get_problem_data(solver=form.solver, gp=False, **options)
        except cp.SolverError:  # some atoms, as perspective, look for the solver by its name
            name = "SCS" if form.quadratic else "DIFFCP"
            return problem.get_problem_data(solver=name, gp=False, **options)


@contextmanager
def _attempted() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any type: cvxpy lets through what numpy, scipy and assertions raise
        raise CvxpyError from error


def is_stored_in_parts(parameter: cp.Parameter) -> bool:
    """Whether cvxpy stores a parameter otherwise than entry by entry: by a triangle, or in two parts."""
    return parameter.is_complex() or any(parameter.attributes[name] for name in _REDUCED)
