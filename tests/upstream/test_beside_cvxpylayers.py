"""Beside cvxpylayers: the same answers within its accuracy, and no interference through a shared Problem."""

import contextlib
import itertools
from dataclasses import replace

import cvxpy as cp
import pytest
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

import cvxfold
from problems.cases import Case, case, errors, evaluate, make_layer
from problems.families import FAMILIES, portfolio, scalars
from problems.layers import upstream_of
from problems.marks import sliced

# diffcp warns about SCS's "inaccurate" at 1e-10, cvxpylayers about its use of __array__
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")

NAMES = [n for n in FAMILIES if n not in ("dense_qp50", "dense_qp100")]
EXACT = {"eps": 1e-10, "mode": "dense"}  # cvxpylayers at its best: measured 4e-9


def _plugin(c: Case) -> UpstreamLayer:
    solver = cvxfold.FoldedSolver()
    return UpstreamLayer(c.family.problem, c.family.parameters, c.family.variables, solver=solver)


@pytest.mark.parametrize("name", NAMES)
def test_same_answers(name: str) -> None:
    c = case(name, 4, 1)
    theirs, their_gradients = evaluate(upstream_of(c.family), c)
    exact, exact_gradients = evaluate(upstream_of(c.family), c, solver_args=EXACT)
    ours, our_gradients = evaluate(make_layer(c), c)
    assert errors(ours, exact).max() < 1e-7
    assert errors(our_gradients, exact_gradients).max() < 1e-7
    assert errors(ours, theirs).max() < 1e-2
    assert errors(our_gradients, their_gradients).max() < 1e-1


@pytest.mark.parametrize("name", ["dense_qp20", "mpc"])
def test_closer_to_the_truth_than_upstream(name: str) -> None:
    c = case(name)
    upstream = errors(evaluate(upstream_of(c.family), c)[1], c.gradients).max()
    ours = errors(evaluate(make_layer(c), c)[1], c.gradients).max()
    assert ours < 1e-3 * upstream


@pytest.mark.parametrize("shapes", ["all", "none", "first", "last"])
def test_same_shapes(shapes: str) -> None:
    """Batched, unbatched and mixed calls return what upstream returns."""
    family = scalars()
    params = family.sample(3, 0)
    batched = {"all": (0, 1, 2), "none": (), "first": (0,), "last": (2,)}[shapes]
    call = [p if i in batched else p[0] for i, p in enumerate(params)]
    theirs = UpstreamLayer(family.problem, family.parameters, family.variables)(*call)
    c = Case(family, call, [], [], [], [])
    ours = make_layer(c)(*call)
    assert [v.shape for v in ours] == [v.shape for v in theirs]
    assert type(ours) is type(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=5e-3, rtol=5e-3)


ORDERS = list(itertools.permutations(["ours", "plugin", "theirs", "theirs mutating", "cvxpy"]))


@pytest.mark.parametrize("order", sliced(ORDERS, lambda order: ORDERS.index(order) % 15 > 0))
def test_layers_from_one_problem_in_any_order(order: tuple[str, ...]) -> None:
    """A layer that cvxpylayers builds for another solver permutes the data cached on the Problem; ours must
    not see it, and must leave nothing for the others to see."""
    c = case("portfolio", 4, 2)
    family = portfolio()  # a fresh Problem: nothing cached
    fresh = Case(family, c.params, c.weights, c.values, c.gradients, c.answers)
    layers = []
    for builder in order:
        if builder == "theirs mutating":
            for _ in range(2):
                with contextlib.suppress(RuntimeError):  # fails only after it has changed the cached matrices
                    UpstreamLayer(family.problem, family.parameters, family.variables, solver="SCS")
        elif builder == "cvxpy":
            for p, value in zip(family.parameters, c.params, strict=True):
                p.value = value[0].numpy()
            family.problem.solve(cp.CLARABEL)
            found = torch.from_numpy(family.variables[0].value)
            torch.testing.assert_close(found, c.values[0][0], atol=1e-5, rtol=0)
        else:
            makers = {"ours": make_layer, "plugin": _plugin, "theirs": lambda c: upstream_of(c.family)}
            layers.append((builder, makers[builder](fresh)))
    for builder, layer in layers:
        values, gradients = evaluate(layer, fresh)
        assert errors(values, c.values).max() < (1e-2 if builder == "theirs" else 1e-7)
        assert errors(gradients, c.gradients).max() < (1e-1 if builder == "theirs" else 1e-7)


def test_two_layers_of_one_problem_with_different_outputs() -> None:
    c = case("scalars", 3)
    family = c.family
    first = make_layer(c)
    reversed_ = Case(
        replace(family, parameters=family.parameters[::-1], variables=family.variables[::-1]),
        *(c.params[::-1], c.weights[::-1], c.values[::-1], c.gradients[::-1], c.answers),
    )
    second = make_layer(reversed_)
    for layer, cs in ((second, reversed_), (first, c)):
        values, gradients = evaluate(layer, cs)
        assert errors(values, cs.values).max() < 1e-7
        assert errors(gradients, cs.gradients).max() < 1e-7
