"""The option ``engine``, and what lanes leave to the tensor engine."""

from typing import Any

import pytest
import torch

import cvxfold
from cvxfold.engines.lanes import library
from problems.families import FAMILIES
from problems.layers import layer_of
from problems.marks import needs_lanes
from problems.quadratic import answers, assert_close, quadratic, sample


@pytest.mark.parametrize("bad", ["lane", "cpu", None, True, 1])
def test_bad_names_are_told(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^engine: expected .*lanes.*tensors"):
        quadratic(engine=bad)
    with pytest.raises(ValueError, match=r"^engine: expected"):
        cvxfold.FoldedSolver(engine=bad)


def test_lanes_that_are_not_there_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is asked for, the tensor engine serves."""
    monkeypatch.setattr(library, "why_not", lambda: "there is no compiled part")
    with pytest.raises(ValueError, match=r"engine: .*there is no compiled part"):
        quadratic(engine="lanes")
    layer = quadratic()
    layer(*sample(2))
    assert layer.report.engine == "tensors"


@needs_lanes
@pytest.mark.parametrize(("asked", "serves"), [("auto", "lanes"), ("lanes", "lanes"), ("tensors", "tensors")])
def test_the_report_tells_who_served(asked: Any, serves: str) -> None:
    layer = quadratic(engine=asked)
    answers(layer, sample(3))
    assert layer.report.engine == serves
    assert f"by {serves}" in str(layer.report)


@needs_lanes
@pytest.mark.parametrize(
    "options",
    [
        {"refine": False},
        {"max_iters": 3},
        {"verbose": True},
        {"solver": "CLARABEL"},
        {"backward": "unrolled"},
    ],
    ids=str,
)
def test_what_lanes_do_not_do_the_tensor_engine_does(options: dict[str, Any]) -> None:
    found, expected = (
        answers(quadratic(engine=engine, on_unconverged="ignore", **options), sample(4))
        for engine in ("lanes", "tensors")
    )
    assert_close(found, expected, 1e-6)


@needs_lanes
@pytest.mark.parametrize("options", [{"proximal": 0.1}, {"backward": "gmres"}, {"backward": "lfpi"}], ids=str)
def test_gradients_that_lanes_leave_to_the_tensor_engine(options: dict[str, Any]) -> None:
    layers = [quadratic(engine=engine, **options) for engine in ("lanes", "tensors")]
    assert_close(answers(layers[0], sample(4)), answers(layers[1], sample(4)), 1e-6)
    assert layers[0].report.engine == "lanes"


@needs_lanes
def test_both_engines_agree_through_a_shared_penalty_and_a_relaxation() -> None:
    family = FAMILIES["portfolio"]()
    params = [p.requires_grad_() for p in family.sample(5, 0)]
    found = []
    for engine in ("lanes", "tensors"):
        for more in ({}, {"penalty": 0.3}, {"relaxation": 1.2}):
            outputs = layer_of(family, engine=engine, **more)(*params)
            loss = torch.stack([out.sin().sum() for out in outputs]).sum()
            found.append([*(out.detach() for out in outputs), *torch.autograd.grad(loss, params)])
    for other in found[1:]:
        assert_close(other, found[0], 1e-8)
