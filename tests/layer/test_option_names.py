"""Options are known by name: wrong ones are told, with the nearest right one."""

from typing import Any

import pytest

import cvxfold
from cvxfold.layer.options import OPTIONS, LayerOptions, PluginOptions
from problems.families import FAMILIES
from problems.layers import layer_of


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("tolerance", "tol"),
        ("max_iter", "max_iters"),
        ("backwards", "backward"),
        ("refined", "refine"),
        ("backward_max_iter", "backward_max_iters"),
        ("backward_tolerance", "backward_tol"),
    ],
)
def test_an_unknown_option_names_the_nearest_one(wrong: str, right: str) -> None:
    family = FAMILIES["constant_qp"]()
    makers: list[Any] = [lambda **given: layer_of(family, **given), cvxfold.FoldedSolver]
    for make in makers:
        with pytest.raises(TypeError, match=f"unknown option '{wrong}'; did you mean '{right}'"):
            make(**{wrong: 1})


def test_an_unknown_option_of_a_comparison_does_too() -> None:
    family = FAMILIES["constant_qp"]()
    compare: Any = cvxfold.compare
    with pytest.raises(TypeError, match="'finite_difference'; did you mean 'finite_differences'"):
        compare(family.problem, family.parameters, family.variables, [], finite_difference=3)


def test_every_option_is_in_the_table_and_documented() -> None:
    assert set(OPTIONS) == set(PluginOptions.__annotations__) | set(LayerOptions.__annotations__)
    described = (LayerOptions.__doc__ or "") + (PluginOptions.__doc__ or "")
    assert [name for name in OPTIONS if f"{name}:" not in described] == []


def test_defaults_are_what_a_layer_uses() -> None:
    family = FAMILIES["constant_qp"]()
    defaults = {name: option.default for name, option in OPTIONS.items()}
    assert dict(layer_of(family).options.given) == defaults
