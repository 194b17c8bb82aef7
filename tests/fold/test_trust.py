"""What is said of folded gradients that are not to be trusted, and of fixed points that are none."""

import warnings

import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold import ConvergenceError, ConvergenceWarning, DegenerateError, FixedPointError, Verdict
from problems.box_qp import problems, solved, start, step
from problems.folded import make_folded


def halve(x: Tensor, c: Tensor) -> Tensor:
    return 0.5 * (x + c)


def point(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_the_report_tells_both_passes_and_the_monitor_counts() -> None:
    Q, q = problems()
    q.requires_grad_()
    folded = make_folded(step, start=start, batched=True)
    with cvxfold.Monitor(folded) as monitor:
        x = folded(Q, q)
        assert folded.report.backward is None
        x.sum().backward()
    assert monitor.verdicts[Verdict.CONVERGED] == 4
    assert monitor.forward_calls == monitor.backward_calls == 1
    text = str(folded.report)
    assert "4 solved" in text
    assert "by accelerated iteration" in text
    assert "primal residual" not in text
    flat = folded.report.to_dict()
    assert flat["forward/residual_max"] <= 1e-8
    assert flat["backward/residual_max"] < 1e-9
    residual = (step(x.detach(), Q, q.detach()) - x.detach()).abs().amax(-1) / (1 + x.detach().abs().amax(-1))
    torch.testing.assert_close(folded.report.forward.residual, residual, rtol=1e-3, atol=1e-14)


def test_a_solver_that_solves_something_else_is_an_error() -> None:
    Q, q = problems()
    folded = make_folded(step, lambda Q, q: solved(Q, -q), batched=True, on_unconverged="ignore")
    with pytest.raises(FixedPointError, match=r"no fixed point of it for instances \[0, 1, 2, 3\].*limit=1"):
        folded(Q, q)
    folded = make_folded(
        step, lambda Q, q: solved(Q, q) + torch.tensor([0, 0, 9, 0]).view(-1, 1), batched=True
    )
    with pytest.raises(FixedPointError, match=r"instances \[2\]"):
        folded(Q, q)
    assert folded.report.forward.instances(cvxfold.Status.UNCONVERGED) == [2]


def test_a_solver_that_is_not_exact_is_told() -> None:
    Q, q = problems()
    q.requires_grad_()
    rough = make_folded(step, lambda Q, q: solved(Q, q) + 1e-4, batched=True)
    with pytest.warns(ConvergenceWarning, match="forward pass: .* did not reach the tolerance 1.0e-08"):
        x = rough(Q, q)
    with pytest.warns(ConvergenceWarning, match="not accurate enough"):
        x.sum().backward()
    assert Verdict.FORWARD_INEXACT in rough.report.backward.verdict
    with pytest.raises(ConvergenceError):
        make_folded(step, lambda Q, q: solved(Q, q) + 1e-4, batched=True, on_unconverged="raise")(Q, q)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_the_estimate_of_the_error_is_no_smaller_than_the_error(scale: float) -> None:
    """x ← ½(x + c + sin x) from a solver that is off: the derivative is known at the true fixed point."""
    c = point(scale)

    def update(x: Tensor, c: Tensor) -> Tensor:
        return 0.5 * (x + c - 0.5 * x**2)

    def root(c: Tensor) -> Tensor:
        return -1 + (1 + 2 * c).sqrt()

    expected = torch.autograd.grad(root(c).sum(), c)[0]
    for off in (1e-3, 1e-6):
        folded = make_folded(update, lambda c, off=off: root(c) + off, tol=1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (found,) = torch.autograd.grad(folded(c).sum(), c)
        error = float((found / expected - 1).abs())
        assert error > 0.05 * off
        assert error <= float(folded.report.backward.error) < 1e4 * error


def test_lfpi_diverges_and_says_what_works() -> None:
    c = point(1.0, 2.0)

    def expanding(x: Tensor, c: Tensor) -> Tensor:
        return 1.5 * x + c

    def solver(c: Tensor) -> Tensor:
        return -2 * c

    with pytest.warns(ConvergenceWarning, match=r"ρ\(Φ\) ≥ 1; 'gmres', 'bicgstab', 'anderson' and 'direct'"):
        make_folded(expanding, solver, backward="lfpi")(c).sum().backward()
    with pytest.raises(ConvergenceError, match=r"by a factor of 1\.5 an iteration"):
        make_folded(expanding, solver, backward="lfpi", on_unconverged="raise")(c).sum().backward()
    for method in ("gmres", "bicgstab", "anderson", "direct"):
        folded = make_folded(expanding, solver, backward=method, on_unconverged="raise")
        torch.testing.assert_close(torch.autograd.grad(folded(c).sum(), c)[0], -2 * torch.ones_like(c))


@pytest.mark.parametrize("through", ["x", "c"])
def test_a_kink_has_no_derivative(through: str) -> None:
    """A bound that is active with a zero multiplier: one-sided derivatives differ, and that is said."""
    c = point(0.5, 1.0, -2.0)

    def update(x: Tensor, c: Tensor) -> Tensor:
        free = 0.5 * (x + c) if through == "x" else c  # with Φ = 0 the kink is felt through c alone
        return free.clamp(-1, 1)

    folded = make_folded(update, start=torch.zeros_like, on_degenerate="raise")
    with pytest.raises(DegenerateError, match="on a kink"):
        folded(c).sum().backward()
    away = make_folded(update, start=torch.zeros_like, on_degenerate="raise", tol=1e-12)
    (found,) = torch.autograd.grad(away(c * 0.9).sum(), c)
    torch.testing.assert_close(found, torch.tensor([0.9, 0.9, 0.0], dtype=torch.float64))
    blind = make_folded(update, start=torch.zeros_like, on_degenerate="raise", probe=False)
    blind(c).sum().backward()


@pytest.mark.parametrize("size", [2, 80])
def test_a_fixed_point_that_is_not_unique_is_told(size: int) -> None:
    """F leaves the last entry as it is: the loss sees it, or does not."""
    c = torch.linspace(1, 2, size, dtype=torch.float64).requires_grad_()

    def update(x: Tensor, c: Tensor) -> Tensor:
        return torch.cat([0.5 * (x[:-1] + c[:-1]), x[-1:] + 0 * c[-1:]])

    folded = make_folded(update, start=torch.zeros_like, on_degenerate="raise")
    with pytest.raises(DegenerateError, match="not unique"):
        folded(c).sum().backward()
    (found,) = torch.autograd.grad(folded(c)[:-1].sum(), c)
    torch.testing.assert_close(found[:-1], torch.ones_like(c[:-1]), rtol=1e-7, atol=1e-8)


def test_one_bad_instance_leaves_the_others_alone() -> None:
    c = torch.tensor([[0.5], [1.0], [0.2]], dtype=torch.float64, requires_grad=True)
    folded = make_folded(
        lambda x, c: (0.5 * (x + c)).clamp(-1, 1),
        start=torch.zeros_like,
        batched=True,
        on_unconverged="ignore",
    )
    folded(c).sum().backward()
    assert folded.report.backward.verdict == [Verdict.CONVERGED, Verdict.DEGENERATE, Verdict.CONVERGED]


def test_folded_gradients_refuse_what_they_cannot_do() -> None:
    c = point(1.0, 2.0)
    folded = make_folded(halve, start=torch.zeros_like)
    with pytest.raises(NotImplementedError, match="batched=True"):
        torch.func.vmap(folded)(torch.ones(3, 2).double())
    x = folded(c)
    with pytest.raises(NotImplementedError, match="is_grads_batched"):
        torch.autograd.grad(x, c, torch.eye(2).double(), is_grads_batched=True)


def test_a_second_backward_pass_needs_the_graph_to_be_kept() -> None:
    c = point(1.0, 2.0)
    folded = make_folded(lambda x, c: 0.5 * (x + c * c), start=torch.zeros_like, tol=1e-13)
    x = folded(c)
    first = torch.autograd.grad(x.sum(), c, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(x.sum(), c, retain_graph=True), first)
    torch.autograd.grad(x.sum(), c)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(x.sum(), c)


def test_parameters_changed_in_between_are_noticed() -> None:
    c = point(1.0, 2.0)
    x = make_folded(lambda x, c: 0.5 * (x + c * c), start=torch.zeros_like)(c)
    with torch.no_grad():
        c += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()
