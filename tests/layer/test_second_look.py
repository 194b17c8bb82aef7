"""Of two adjoints of the compiled engine's doubtful instances the one that leaves less counts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cvxfold import Verdict
from cvxfold.engines.lanes.batch import CompiledBatch
from cvxfold.gradient import adjoint as adjoints
from cvxfold.gradient.screen import Screen
from cvxfold.layer import backward
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, evaluate, make_layer
from problems.marks import needs_lanes

pytestmark = needs_lanes


def worse(*given: Any) -> adjoints.FoldedAdjoint:
    """An adjoint off by a thousandth, as ill-conditioning may leave it, and that says so."""
    found = adjoints.fold(*given)
    left: Tensor = torch.full_like(found.residual, 1e-3)
    system = replace(found.system, residual=left, converged=torch.zeros_like(found.system.converged))
    return replace(found, p=1.001 * found.p, v=0.999 * found.v, system=system)


@pytest.mark.parametrize("again", [False, True], ids=["", "create_graph"])
@pytest.mark.parametrize("name", ["dense_qp20", "mpc"])
def test_a_worse_adjoint_does_not_count(name: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful = property(lambda seen: torch.ones_like(seen.on_kink))
    monkeypatch.setattr(Screen, "suspicious", doubtful)
    passed = CompiledBatch.backward

    def all_doubtful(*given: Any, **named: Any) -> tuple[Tensor, int]:
        figures, _ = passed(*given, **named)
        return figures, len(figures)

    monkeypatch.setattr(CompiledBatch, "backward", all_doubtful)
    monkeypatch.setattr(backward, "fold", worse)
    c = case(name, 4)
    layer: CvxpyLayer = make_layer(c, engine="lanes")
    if again:
        inputs = [p.clone().requires_grad_() for p in c.params]
        terms = [(w * v).sum() for w, v in zip(c.weights, layer(*inputs), strict=True)]
        gradients = list(torch.autograd.grad(torch.stack(terms).sum(), inputs, create_graph=True))
    else:
        _, gradients = evaluate(layer, c)
    assert errors(gradients, c.gradients).max() < 1e-7
    record = layer.report.backward
    assert record is not None
    assert record.verdict == [Verdict.CONVERGED] * 4
    assert (record.residual < 1e-9).all()
