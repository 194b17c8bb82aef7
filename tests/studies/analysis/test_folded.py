"""``cvxfold.analyze`` of a folded iteration, where everything is known in closed form."""

import math

import pytest
import torch

import cvxfold
from cvxfold import Verdict
from cvxfold.fold import LFPI
from problems.box_qp import problems, start, step
from problems.fixed_points import rotations
from problems.folded import make_folded


def test_a_linear_iteration_is_seen_through() -> None:
    M = rotations(3, 4, 0.8)
    c = torch.ones(3, 8, dtype=torch.float64)
    folded = make_folded(
        lambda x, c: (M @ x.unsqueeze(-1)).squeeze(-1) + c, start=torch.zeros_like, batched=True, tol=1e-13
    )
    found = cvxfold.analyze(folded, c, tol=1e-6)
    torch.testing.assert_close(found.spectral_radius, torch.linalg.eigvals(M).abs().amax(-1))
    eye = torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(found.smallest_singular_value, torch.linalg.svdvals(eye - M).amin(-1))
    assert (found.backward_rate / 0.8 - 1).abs().max() < 0.05
    assert (found.forward_rate / 0.8 - 1).abs().max() < 0.05
    assert found.verdict == [Verdict.CONVERGED] * 3
    assert found["gmres"].most <= 9
    assert "spectral radius" in str(found)
    assert found.to_dict()["rows"] == 8
    with pytest.raises(ValueError, match="loss: expected a scalar"):
        cvxfold.analyze(folded, c, loss=lambda x: x)


def test_the_forecast_is_what_lfpi_takes() -> None:
    Q, q = problems()
    q.requires_grad_()
    folded = make_folded(step, start=start, batched=True, backward=LFPI(), backward_tol=1e-6)
    found = cvxfold.analyze(folded, Q, q, loss=lambda x: (x**3 + x).sum(), tol=1e-6)
    x = folded(Q, q)
    assert folded.report.to_dict().get("backward/seconds") is None  # the analysis has left no trace
    (x**3 + x).sum().backward()
    torch.testing.assert_close(
        folded.report.backward.iterations.double(), found["lfpi"].iterations, rtol=0, atol=1
    )


def test_a_diverging_iteration_is_forecast_never() -> None:
    folded = make_folded(lambda x, c: 1.5 * x + c, lambda c: -2 * c)
    found = cvxfold.analyze(folded, torch.ones(2, dtype=torch.float64))
    assert found.unroll_depth == math.inf
    assert found["gmres"].most == 1
