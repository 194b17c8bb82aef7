"""Proofs that there is no solution, at the edge of what rounding leaves of them."""

from typing import Any

import cvxpy as cp
import pytest
import torch

import cvxfold
from cvxfold.engines.tensors.certificates import infeasibility
from cvxfold.engines.tensors.prepare import Preparation
from cvxfold.problem.program import Program
from cvxfold.studies.fuzz.programs import Ending
from cvxfold.studies.fuzz.solve import replay
from cvxfold.torch import CvxpyLayer
from problems.families import minimize


def test_a_proof_is_more_than_what_rounding_leaves() -> None:
    """Aᵀδy = 0 and bᵀδy = −6e-17, of terms of size 0.1 that cancel: this proved the program infeasible."""
    x, b = cp.Variable(), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.square(x), x <= b[0], -x <= b[1]), [b], [x])
    bounds = torch.tensor([[0.1, -0.1], [0.1, -0.2]], dtype=torch.float64)
    _, values, _ = layer.program(bounds)
    given = Program(layer.session.entries, values, 2)
    prepared = Preparation(given.structure).prepare(values.P, values.A)
    program, scaling = prepared.program(values.q, given.right_hand_side, 2)
    zero = program.A.values[..., 0].abs()
    multiplier = (zero.flip(-1) / zero.amax(-1, keepdim=True)).expand(2, -1).clone()
    support = program.b * multiplier
    multiplier[0, 0] *= -float(support[0, 1] / support[0, 0]) * (1 - 2.0**-52)
    proofs = infeasibility(program, scaling, multiplier)
    assert float((program.b * multiplier).sum(-1)[1]) < -1e-3
    assert proofs.isinf().tolist() == [True, False]
    assert [str(status) for status in _statuses(layer, [[0.1, -0.1], [0.1, -0.2]])] == [
        "solved",
        "infeasible",
    ]


def _statuses(layer: CvxpyLayer, values: list[list[float]]) -> list[Any]:
    with pytest.raises(cvxfold.InfeasibleError):
        layer(torch.tensor(values, dtype=torch.float64))
    assert layer.report is not None
    return layer.report.forward.status


def test_an_unbounded_program_that_was_called_infeasible() -> None:
    """One variable, two second-order cones and an exponential one; the objective falls by 1e-6 a unit."""
    case = replay(0, 772)
    layer = case.layer()
    layer(*case.values)
    assert layer.report is not None
    for status, instance in zip(layer.report.forward.status, case.instances, strict=True):
        expected = {Ending.SOLUTION: "solved", Ending.UNBOUNDED: "unbounded"}[instance.ending]
        assert str(status) == expected
