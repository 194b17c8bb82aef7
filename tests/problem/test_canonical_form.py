"""Canonical forms add up, or are refused, and so are sets that are not convex."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from cvxpy.constraints.finite_set import FiniteSet
from cvxpy.transforms.partial_optimize import partial_optimize

from cvxfold.problem.canonical import canonicalize
from cvxfold.problem.structure import Structure
from cvxfold.problem.sums import check
from cvxfold.torch import CvxpyLayer
from problems.families import minimize


def sound() -> tuple[Structure, dict[str, sp.csr_array]]:
    """A form of a small problem, as cvxpy makes it."""
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = minimize(cp.sum_squares(x - p) + cp.norm(x), x >= p, cp.sum(x) == 1)
    made = canonicalize(problem, [p], [x])
    return made.structure, {"P": made.P, "q": made.q, "A": made.A, "b": made.b}


def test_a_form_that_adds_up_passes() -> None:
    structure, maps = sound()
    check(structure, maps, structure.m)


def _with_places(name: str, value: int) -> Callable[[Structure], Structure]:
    def changed(structure: Structure) -> Structure:
        places = getattr(structure, name).copy()
        places[..., -1] = value
        return replace(structure, **{name: places})

    return changed


STRUCTURES = {
    "outside of its shape": _with_places("A_entries", 99),
    "P has 1 entries outside": _with_places("P_entries", 99),
    "b has 1 entries outside": _with_places("b_entries", -1),
    "A has entries twice": lambda one: replace(
        one, A_entries=np.concatenate([one.A_entries[:, :1], one.A_entries[:, :-1]], axis=1)
    ),
    "rows, its cones": lambda one: replace(one, cones=replace(one.cones, zero=one.cones.zero + 1)),
}


@pytest.mark.parametrize("message", STRUCTURES)
def test_places_and_cones(message: str) -> None:
    structure, maps = sound()
    with pytest.raises(ValueError, match=message):
        check(STRUCTURES[message](structure), maps, structure.m)


@pytest.mark.parametrize("name", ["P", "q", "A", "b"])
def test_the_shapes_of_maps(name: str) -> None:
    structure, maps = sound()
    with pytest.raises(ValueError, match="different numbers of columns"):
        check(structure, {**maps, name: sp.csr_array(maps[name][:, 1:])}, structure.m)
    with pytest.raises(ValueError, match=f"the map to {name} has"):
        check(structure, {**maps, name: sp.csr_array(maps[name][1:])}, structure.m)


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 2, 2), (3, 3, 3), (2, 3, 3)], ids=str)
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_norms_along_other_axes_of_a_stack_are_refused(axis: int, shape: tuple[int, ...]) -> None:
    """Some of whose sizes agree, and which are wrong all the same."""
    X, p = cp.Variable(shape), cp.Parameter(shape)
    objective = cp.sum_squares((X - p).flatten(order="F")) + cp.sum(cp.norm(X, axis=axis))
    with pytest.raises(
        ValueError, match=rf"is taken along axis {axis % 3} of an expression of shape \({shape[0]}, "
    ):
        CvxpyLayer(cp.Problem(cp.Minimize(objective)), [p], [X])


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 2, 2)], ids=str)
def test_norms_along_the_first_axis_of_a_stack(shape: tuple[int, ...]) -> None:
    """Σ ½ |x − p|² + |x| over vectors x: (1 − 1/|p|)₊ p."""
    X, p = cp.Variable(shape), cp.Parameter(shape)
    objective = 0.5 * cp.sum_squares((X - p).flatten(order="F")) + cp.sum(cp.norm(X, axis=0))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective)), [p], [X])
    value = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = (1 - 1 / value.norm(dim=0, keepdim=True)).clamp_min(0) * value
    assert (layer(value)[0] - expected).abs().max() < 1e-7


def finite_set(x: Any) -> list[Any]:
    return [FiniteSet(x, [0, 1, 3])]


def test_finite_sets_are_refused() -> None:
    x, p = cp.Variable(), cp.Parameter()
    with pytest.raises(ValueError, match=r"FiniteSet\(.* makes it mixed-integer"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - p)), finite_set(x)), [p], [x])


def test_a_finite_set_inside_of_an_expression_is_refused() -> None:
    x, y, p = cp.Variable(), cp.Variable(), cp.Parameter()
    inner = cp.Problem(cp.Minimize(cp.square(x - y)), finite_set(y))
    hidden = partial_optimize(inner, opt_vars=[y])
    with pytest.raises(ValueError, match="makes it mixed-integer"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - p) + hidden)), [p], [x])


@pytest.mark.parametrize("attributes", [{"boolean": True}, {"integer": True}, {"boolean": [(0,)]}], ids=str)
def test_integer_variables_are_refused(attributes: dict[str, Any]) -> None:
    x, p = cp.Variable(2, **attributes), cp.Parameter(2)
    with pytest.raises(ValueError, match="integer or boolean"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x])
