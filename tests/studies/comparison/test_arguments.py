"""What a comparison is asked: the loss, the modes, the options, and errors in them."""

import math
from dataclasses import replace
from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.studies.comparison.contestants import MODES, USUAL_MODES
from cvxfold.studies.comparison.inherited import merged, solve_options
from cvxfold.torch import CvxpyLayer
from problems.comparisons import BEST, quick
from problems.families import minimize
from problems.layers import family_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:diffcp", "ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda x: x, "expected a tensor of one number, got shape"),
        (lambda x: 1.0, "expected a tensor of one number, got float"),
        (lambda x: torch.zeros(()), "does not depend on the outputs"),
        (lambda x: x.nothing, "loss: AttributeError"),
        (lambda x: (x * math.nan).sum(), "expected a finite number, got nan"),
    ],
)
def test_a_bad_loss_is_an_error(loss: Any, words: str) -> None:
    family = family_of("dense_qp5")
    with pytest.raises(ValueError, match=words):
        quick(family, family.sample(2, 0), loss=loss)


def test_bad_arguments_are_errors() -> None:
    family = family_of("dense_qp5")
    values = family.sample(2, 0)
    for options, words in (
        ({"upstream": ("exact",)}, "upstream: expected some of"),
        ({"methods": ()}, "methods: expected at least one"),
        ({"methods": ("nonsense",)}, "backward: expected one of"),
        ({"finite_differences": -1}, "finite_differences: expected how many"),
        ({"layer_options": {"backward": "lfpi"}}, "layer_options: backward is what the methods are"),
    ):
        with pytest.raises(ValueError, match=words):
            quick(family, values, **options)
    with pytest.raises(ValueError, match="values: expected a list"):
        quick(family, values[0])
    with pytest.raises(ValueError, match="A tensor must be provided"):
        quick(family, values[:2])


@pytest.mark.parametrize("rtol", [0.0, -1.0, math.nan, math.inf, "tight"])
def test_a_bad_tolerance_is_found_before_anything_runs(rtol: Any) -> None:
    family = family_of("dense_qp5")
    ran: list[str] = []
    with pytest.raises(ValueError, match=f"rtol: expected a positive number, got {rtol!r}"):
        quick(family, family.sample(2, 0), rtol=rtol, progress=lambda what, *_: ran.append(what))
    assert not ran


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_gradients_need_not_be_enabled(without: Any) -> None:
    family = family_of("dense_qp5")
    expected = quick(family, family.sample(2, 0), finite_differences=2)
    with without():
        values = [value.clone() for value in family.sample(2, 0)]  # inference tensors, under that mode
        inside = quick(family, values, finite_differences=2)
    for found in (inside, quick(family, values, finite_differences=2)):
        assert found.right == expected.right == ("cvxfold auto", BEST)
        assert found.agrees(1e-6)
        assert found[BEST].gradient_differences == pytest.approx(
            expected[BEST].gradient_differences, abs=1e-6
        )


def test_a_problem_without_parameters_is_an_error() -> None:
    x = cp.Variable(2)
    with pytest.raises(ValueError, match="parameters: there is nothing to differentiate"):
        cvxfold.compare(minimize(cp.sum_squares(x - 1)), [], [x], [])


def test_modes_of_ones_own() -> None:
    family = family_of("dense_qp5")
    mine = {"mine": {"solve_method": "SCS", "eps": 1e-9, "mode": "dense"}, "rough": {"eps": 1e-1}}
    comparison = quick(family, family.sample(2, 0), upstream=mine)
    assert [row.name for row in comparison.rows[1:]] == ["cvxpylayers mine", "cvxpylayers rough"]
    assert comparison["cvxpylayers mine"].agrees(1e-6)
    assert not comparison["cvxpylayers rough"].agrees(1e-6)
    assert set(MODES) - set(USUAL_MODES) == {"clarabel"}


def test_a_layer_is_compared_as_it_solves() -> None:
    """Its solutions are rough, so that cvxpylayers' differ from them by as much, unless told otherwise."""
    family = family_of("dense_qp5")
    values = list(family.sample(2, 0))
    arguments = (family.problem, family.parameters, family.variables)
    layer = CvxpyLayer(*arguments, refine=False, tol=1e-3, engine="tensors")
    options: dict[str, Any] = {"methods": ("auto",), "upstream": ("tight, dense",)}
    exact, found = CvxpyLayer(*arguments)(*values)[0], layer(*values)[0]
    off = ((found - exact).norm(dim=1) / exact.norm(dim=1)).max()
    row = cvxfold.compare(layer, values, **options)[BEST]
    assert row.solution_difference is not None
    assert off > 1e-5
    assert abs(row.solution_difference / float(off) - 1) < 1e-2
    better = cvxfold.compare(layer, values, **options, layer_options={"tol": 1e-9, "refine": True})
    assert better.agrees(1e-6)


@pytest.mark.parametrize(
    "given",
    [
        {"refine": False, "tol": 1e-3, "max_iters": 77, "penalty": 0.3, "relaxation": 1.2, "acceleration": 0},
        {"rescue": False, "on_unsolvable": "nan", "proximal": 1e-3, "time_limit": 9.0, "backward_tol": 1e-5},
        {"solver_args": {"eps_abs": 1e-5, "eps_rel": 1e-6, "eps_infeas": 1e-4}},
        {"solver": "SCS", "tol": 1e-4, "solver_args": {"eps_abs": 1e-9, "n_jobs_forward": 2}},
        {"solver": "SCS", "tol": 1e-4, "solver_args": {"eps_rel": 1e-9, "max_iters": 50}},
        {"solver_args": {"solve_method": "SCS", "eps": 1e-3}},
    ],
)
def test_what_a_layer_passes_on(given: dict[str, Any]) -> None:
    """All but how it differentiates and complains."""
    family = family_of("dense_qp5")
    arguments = (family.problem, family.parameters, family.variables)
    layer = CvxpyLayer(*arguments, **given, backward="gmres", backward_max_iters=5, on_unconverged="raise")
    again = CvxpyLayer(*arguments, **solve_options(layer)).options
    adjoint = replace(layer.options.adjoint, max_iters=None)
    expected = replace(layer.options, backward=again.backward, on_unconverged="warn", adjoint=adjoint)
    assert again == expected


def test_options_given_hold_before_those_of_a_layer() -> None:
    family = family_of("dense_qp5")
    arguments = (family.problem, family.parameters, family.variables)
    layer = CvxpyLayer(*arguments, tol=1e-3, max_iters=77, solver_args={"eps_infeas": 1e-4})

    def forward(given: dict[str, Any]) -> Any:
        return CvxpyLayer(*arguments, **merged(solve_options(layer), given)).options.forward

    assert forward({"tol": 1e-5}) == replace(layer.options.forward, eps_abs=1e-5, eps_rel=1e-5)
    assert forward({"solver_args": {"eps": 1e-6}}).eps_rel == 1e-6
    assert forward({"solver": "SCS"}).eps_abs == 1e-3
    assert forward({"solver_args": {"solve_method": "CLARABEL"}}).max_iters == 77


def test_whether_a_program_is_geometric_is_the_layers_own() -> None:
    family = family_of("dense_qp5")
    values = list(family.sample(2, 0))
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    with pytest.raises(ValueError, match="layer_options: gp: the layer was made with gp=False"):
        cvxfold.compare(layer, values, layer_options={"gp": True})
    assert cvxfold.compare(layer, values, upstream=(), layer_options={"gp": False}).agrees()
