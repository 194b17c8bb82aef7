"""Folded iterations complain as layers do: in full once, then counts, and all of it in the report."""

import copy
import pickle
import warnings

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold import ConvergenceWarning, FlatGradientWarning, Verdict
from cvxfold.fold import Folded
from cvxfold.torch import CvxpyLayer
from problems.box_qp import problems, solved, step
from problems.families import minimize
from problems.folded import make_folded

BACKWARD = "backward pass: forward inexact"
FORWARD = "forward pass: unconverged"
OURS = (ConvergenceWarning, FlatGradientWarning)


def a_little_off(Q: Tensor, q: Tensor) -> Tensor:
    return solved(Q, q) + 1e-4


def texts_of(folded: Folded) -> list[str]:
    """What cvxfold warns of in one forward and one backward pass; others may warn in the meantime."""
    Q, q = problems()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folded(Q, q.requires_grad_()).sum().backward()
    return [str(one.message) for one in caught if issubclass(one.category, OURS)]


def test_in_full_once_and_then_by_growing_counts() -> None:
    folded = make_folded(step, a_little_off, batched=True)
    with cvxfold.Monitor(folded) as monitor:
        said = [texts_of(folded) for _ in range(12)]
        complaints = folded.report.complaints
    assert [len(texts) for texts in said] == [2, *[0] * 8, 2, 0, 0]
    assert "instances [0, 1, 2, 3] did not reach the tolerance 1.0e-08" in said[0][0]
    assert "not accurate enough" in said[0][1]
    assert said[9][0].startswith("forward pass: unconverged for the 10th time")
    assert said[9][1].startswith("backward pass: forward inexact for the 10th time")
    assert complaints.keys() == {FORWARD, BACKWARD}
    assert "did not reach the tolerance" in complaints[FORWARD]
    assert {kind: count for kind, (count, _) in monitor.complaints.items()} == {FORWARD: 12, BACKWARD: 12}
    assert "not accurate enough" in monitor.complaints[BACKWARD][1]


def test_errors_are_in_full_each_time_and_listeners_hear_of_them() -> None:
    Q, q = problems()
    folded = make_folded(step, a_little_off, batched=True, on_unconverged="raise")
    with cvxfold.Monitor(folded) as monitor:
        for _ in range(2):
            with pytest.raises(cvxfold.ConvergenceError, match="did not reach the tolerance"):
                folded(Q, q)
    assert monitor.forward_calls == 2
    assert monitor.complaints[FORWARD][0] == 2


def test_a_copy_says_it_anew() -> None:
    folded = make_folded(step, a_little_off, batched=True)
    assert len(texts_of(folded)) == 2
    assert texts_of(folded) == []
    for twin in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert len(texts_of(twin)) == 2


def test_two_complaints_of_one_verdict_are_both_said() -> None:
    """LFPI on x ← φRx + (I − φR)c, R a quarter turn: φ = 1.5 diverges, φ = 1 − 10⁻⁸ does not end."""
    phi = torch.tensor([[1.5], [1 - 1e-8]], dtype=torch.float64)
    c = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)

    def turned(x: Tensor) -> Tensor:
        return phi * torch.stack([-x[:, 1], x[:, 0]], dim=-1)

    folded = make_folded(
        lambda x, c: c + turned(x - c),
        lambda c: c,
        batched=True,
        backward="lfpi",
        backward_max_iters=200,
        probe=False,
    )
    with pytest.warns(ConvergenceWarning) as caught:
        folded(c).sum().backward()
    assert folded.report.backward.verdict == [Verdict.FAILED] * 2
    for text in (str(caught[0].message), folded.report.complaints["backward pass: failed"]):
        assert "instances [0] cannot be had by method 'lfpi'" in text
        assert "instances [1] did not reach the tolerance" in text


def test_a_flat_loss_is_said_of_a_layer_inside() -> None:
    """x* = ½x* + ½z, z a vertex of the unit box, which moves neither with x nor with c."""
    z, p = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(p @ z, z >= 0, z <= 1), [p], [z])
    c = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    folded = make_folded(lambda x, c: 0.5 * (x + layer(c + 0.1 * x)[0]), start=torch.zeros_like)
    x = folded(c)
    torch.testing.assert_close(x, torch.tensor([0.0, 1.0], dtype=torch.float64))
    with pytest.warns(FlatGradientWarning, match="all gradients of this batch are zero"):
        x.sum().backward()


def test_no_rescue_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another solver might do for a cone program is nothing to a folded iteration."""
    monkeypatch.setattr("cvxfold.report.report.why_no_rescue", lambda: "Clarabel is not installed")
    folded = make_folded(step, a_little_off, batched=True)
    assert len(texts_of(folded)) == 2
    assert "4 unconverged" in str(folded.report)
    assert "rescue" not in str(folded.report)
