"""The verdict on each gradient that is not degenerate: how good it is, and what would help."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import cvxfold
from cvxfold import Verdict
from cvxfold.fold import LFPI, Unrolled
from cvxfold.gradient.screen import least_felt, unfelt
from problems.cases import case, errors, evaluate, make_layer
from problems.degenerate import CASES, Problem, Values, backward, linear_program, verdict
from problems.marks import long


@pytest.mark.parametrize("name", ["dense_qp20", "robust_portfolio", "semidefinite_program", "multi_label"])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_the_forward_error_is_estimated(name: str, tol: float) -> None:
    """Within a factor of 30 of the gradient's true error, and never far below it, at the median."""
    c = case(name, 16)
    layer = make_layer(c, refine=False, tol=tol, acceleration=0, on_unconverged="ignore")
    _, gradients = evaluate(layer, c)
    true = errors(gradients, c.gradients)
    told = layer.report.backward.forward_error
    ratio = (told / true).log10()
    assert true.max() > 1e-7, "the forward pass is inexact, or this tests nothing"
    assert -0.5 < float(ratio.median()) < 1.5
    assert (ratio > -1.5).float().mean() > 0.9
    flagged = [one is Verdict.FORWARD_INEXACT for one in verdict(layer)]
    assert all(flag for flag, e in zip(flagged, true.tolist(), strict=True) if e > 1e-4)


def test_an_inexact_forward_pass_is_warned_of_with_its_remedy() -> None:
    c = case("dense_qp20", 4)
    with pytest.warns(cvxfold.ConvergenceWarning, match="not accurate enough.*refine=True"):
        evaluate(make_layer(c, refine=False, tol=1e-3), c)


def test_the_true_cause_is_told_where_the_forward_pass_stopped_early(engine: str) -> None:
    """The gradients of a tolerance that nothing reaches are good; no error that is nothing is blamed."""
    c = case("dense_qp20", 4)
    layer = make_layer(c, refine=False, tol=1e-15, max_iters=200, acceleration=0)
    with pytest.warns(cvxfold.ConvergenceWarning) as caught:
        _, gradients = evaluate(layer, c)
    assert errors(gradients, c.gradients).max() < 1e-7
    assert layer.report.forward.status == [cvxfold.Status.UNCONVERGED] * 4
    assert verdict(layer) == [Verdict.FORWARD_INEXACT] * 4
    (text,) = (str(one.message) for one in caught if str(one.message).startswith("backward pass"))
    assert "the forward pass did not reach its tolerance" in text
    assert "estimated error" not in text


def test_slow_names_the_iterations_that_are_missing() -> None:
    c = case("dense_qp20", 4)
    with pytest.warns(cvxfold.ConvergenceWarning, match="more iterations") as caught:
        evaluate(make_layer(c, backward="lfpi", backward_max_iters=40), c)
    more = int(str(caught[0].message).split("about ")[1].split(" more")[0].replace(",", ""))
    layer = make_layer(c, backward="lfpi")
    evaluate(layer, c)
    needed = int(layer.report.backward.iterations.max()) - 40
    assert more == pytest.approx(needed, rel=0.3)


def test_one_step_is_labelled_as_an_approximation() -> None:
    c = case("dense_qp20", 4)
    layer = make_layer(c, backward="jacobian_free")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, gradients = evaluate(layer, c)
    report = layer.report.backward
    assert report.verdict == [Verdict.APPROXIMATE] * 4
    assert "approximation" in report.method
    assert (report.residual > 0.05).all()
    assert (errors(gradients, c.gradients) > 0.05).all()


def test_the_backward_pass_has_a_step_of_its_own() -> None:
    """γ only changes how fast the adjoint is found: here, at ρ = 1, 1.2 is faster than 1, and 0.5 slower."""
    c = case("dense_qp20", 4)
    counts = {}
    for step in (0.5, 1.0, 1.2):
        layer = make_layer(c, backward=LFPI(step=step), penalty=1.0, engine="tensors")
        _, gradients = evaluate(layer, c)
        assert errors(gradients, c.gradients).max() < 1e-7
        counts[step] = int(layer.report.backward.iterations.max())
    assert counts[1.2] < counts[1.0] < counts[0.5]


@pytest.mark.parametrize("method", ["jacobian_free", LFPI(), "gmres"], ids=str)
def test_what_the_method_left_unsolved_is_not_the_forward_passs_fault(method: Any) -> None:
    c = case("dense_qp20", 8)
    shares = {}
    for backward_method in ("auto", method):
        layer = make_layer(
            c, refine=False, backward=backward_method, backward_tol=1e-2, on_unconverged="ignore"
        )
        evaluate(layer, c)
        shares[str(backward_method)] = layer.report.backward.forward_error
    # To first order, at points of which each engine has its own: another's x belongs to its u.
    torch.testing.assert_close(shares[str(method)], shares["auto"], rtol=0.05, atol=1e-10)


def test_the_names_of_methods_are_those_that_are_typed() -> None:
    from typing import get_args

    from cvxfold.fold import METHODS
    from cvxfold.layer.options import BackwardMethod

    names = {name for part in get_args(BackwardMethod) for name in get_args(part)}
    assert names == {*METHODS, "unrolled"}


def test_more_iterations_are_advised_only_where_they_would_help() -> None:
    c = case("dense_qp20", 4)
    for options, expected in (
        ({"backward": "lfpi", "backward_max_iters": 1}, Verdict.SLOW),
        ({"backward": Unrolled(1)}, Verdict.SLOW),
        ({"backward": "direct", "backward_tol": 1e-17}, Verdict.FAILED),
        ({"backward": "lfpi", "backward_tol": 1e-17, "backward_max_iters": 2_000}, Verdict.FAILED),
    ):
        layer = make_layer(c, on_unconverged="ignore", **options)
        evaluate(layer, c)
        assert layer.report.backward.verdict == [expected] * 4, options
        assert (layer.report.backward.rate < 1).all()


def test_there_is_no_error_where_there_is_no_gradient() -> None:
    """An estimate would be read as one; summaries leave these instances to the verdicts."""
    make, bad = linear_program, [torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)]
    layer, _ = backward(make, bad, on_unconverged="ignore")
    report = layer.report
    assert verdict(layer) == [Verdict.DEGENERATE, Verdict.CONVERGED]
    assert report is not None
    assert report.backward is not None
    assert report.backward.error.isinf().tolist() == [True, False]
    assert math.isfinite(report.to_dict()["backward/error_max"])


def test_of_two_complaints_the_sharper_one_is_raised_and_both_are_heard() -> None:
    bad = [torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)]
    both = {"backward": Unrolled(3), "backward_tol": 1e-12}
    with pytest.raises(cvxfold.DegenerateError):
        backward(linear_program, bad, on_unconverged="raise", on_degenerate="raise", **both)
    with (
        pytest.warns(cvxfold.ConvergenceWarning, match="degenerate"),
        pytest.raises(cvxfold.ConvergenceError),
    ):
        backward(linear_program, bad, on_unconverged="raise", on_degenerate="warn", **both)


@long
@pytest.mark.parametrize(("make", "bad", "good"), CASES)
def test_lfpi_with_all_its_iterations(make: Callable[[], Problem], bad: Values, good: Values) -> None:
    """Of which each takes thousands, whichever engine has solved."""
    layer, _ = backward(make, bad, backward="lfpi", on_unconverged="ignore")
    assert verdict(layer) == [Verdict.DEGENERATE]


def test_nothing_is_unfelt_beside_a_gradient_that_does_not_exist() -> None:
    """Where J is singular an adjoint may be of any size, which hides no error of the others in the batch."""
    sizes, singular = torch.tensor([1.0, 1e12]), torch.tensor([False, True])
    off = torch.tensor([1e-3, 1e-3]), torch.ones(2), sizes
    assert float(least_felt(sizes, singular)) == pytest.approx(1e-9)
    assert unfelt(*off, singular).tolist() == [False, False]
    assert unfelt(*off, torch.zeros(2, dtype=torch.bool)).tolist() == [True, False]
