"""Gradients and their error estimates against outside truth: closed forms at any scale, and Clarabel."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import mpmath
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.marks import long

F64 = torch.float64
Array = NDArray[np.float64]
WRONG, ROUNDING = 1e-5, 1e-14  # an error that must be told; one below which nothing is to be told


@dataclass(frozen=True)
class Answers:
    """Of some instances, each ``(B,)``: the error of the gradient, its estimate, whether it is flagged."""

    error: Tensor
    estimate: Tensor
    flagged: Tensor

    @classmethod
    def together(cls, parts: Sequence["Answers"]) -> "Answers":
        """All instances, one after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__annotations__))

    def check(self) -> None:
        """No wrong gradient is unflagged, and few estimates are too small or much too large."""
        told = self.flagged | (self.estimate >= self.error)
        assert told[self.error > WRONG].all(), self
        error, estimate = self.error[~self.flagged], self.estimate[~self.flagged]
        covered = estimate.clamp_min(ROUNDING) >= error
        assert covered.double().mean() >= 0.995, self

    def check_that_estimates_are_near(self) -> None:
        """Most estimates are within a hundred times of the error."""
        error, estimate = self.error[~self.flagged], self.estimate[~self.flagged]
        near = estimate <= 100 * error.clamp_min(ROUNDING)
        assert near.double().mean() >= 0.9, self


def answers(layer: CvxpyLayer, values: list[Tensor], right: Callable[[], Tensor]) -> Answers:
    """Of the sum of the first variable, in the first parameter; ``right`` is the gradient, ``(B, ·)``."""
    leaves = [value.clone().requires_grad_() for value in values]
    (x,) = layer(*leaves)
    (found,) = torch.autograd.grad(x.sum(), leaves[:1])
    report, truth = layer.report, right()
    assert report is not None
    assert report.backward is not None
    flagged = [
        status is not cvxfold.Status.SOLVED or verdict is not cvxfold.Verdict.CONVERGED
        for status, verdict in zip(report.forward.status, report.backward.verdict, strict=True)
    ]
    batch = len(leaves[0])
    off, size = ((v.reshape(batch, -1)).norm(dim=1) for v in (found - truth, truth))
    return Answers(off / size, report.backward.error, torch.tensor(flagged))


Atom = tuple[Callable[[Any, Any], Any], Callable[[Tensor], Tensor]]
CLOSED: dict[str, Atom] = {  # the objective, and dx/da
    "ax − √x": (lambda a, x: a * x - cp.sqrt(x), lambda a: -0.5 * a**-3),
    "ax − log x": (lambda a, x: a * x - cp.log(x), lambda a: -(a**-2.0)),
    "ax + 1/x": (lambda a, x: a * x + cp.inv_pos(x), lambda a: -0.5 * a**-1.5),
    "exp x − ax": (lambda a, x: cp.exp(x) - a * x, lambda a: 1 / a),
    "x^1.5 − ax": (lambda a, x: cp.power(x, 1.5) - a * x, lambda a: a / 1.125),
    "x^4 − ax": (lambda a, x: cp.power(x, 4) - a * x, lambda a: (a / 4) ** (1 / 3) / (3 * a)),
    "(x − a)²": (lambda a, x: cp.square(x - a), torch.ones_like),
    "huber(x) − ax/10⁶": (lambda a, x: cp.huber(x, 10) - 1e-6 * a * x, lambda a: 0 * a + 0.5e-6),
}


def closed_form(name: str, exponents: tuple[int, int]) -> Answers:
    """Three instances a decade."""
    objective, derivative = CLOSED[name]
    x, a = cp.Variable(), cp.Parameter(nonneg=True)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(objective(a, x))),
        [a],
        [x],
        on_unconverged="ignore",
        on_unsolvable="nan",
        time_limit=20,
    )
    low, high = exponents
    values = torch.logspace(low, high, 3 * (high - low) + 1, dtype=F64)
    if name.startswith("huber"):
        values = values.clamp_max(1e6)
    return answers(layer, [values], lambda: derivative(values))


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(engine: str, name: str) -> None:
    closed_form(name, (-2, 2)).check()


@long
def test_closed_forms_over_all_scales(engine: str) -> None:
    """296 instances, of which one estimate may fall short."""
    each = [closed_form(name, (-6, 6)) for name in CLOSED]
    together = Answers.together(each)
    together.check()
    together.check_that_estimates_are_near()


@pytest.mark.parametrize("spread", [3, 6, 9])
def test_entries_of_any_size_beside_each_other(engine: str, spread: int) -> None:
    """min ‖x − c‖², x ≥ l: c or l, entry by entry."""
    x, c, low = cp.Variable(4), cp.Parameter(4), cp.Parameter(4)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= low]), [c, low], [x])
    size, side = torch.logspace(-spread, 0, 4, dtype=F64), torch.tensor([1.0, -1, 1, -1], dtype=F64)
    given = (size * side).unsqueeze(0).requires_grad_()
    (found,) = layer(given, (0.5 * size).unsqueeze(0))
    (gradient,) = torch.autograd.grad(found.sum(), [given])
    right = torch.where(side > 0, size, 0.5 * size)
    assert ((found.detach()[0] - right).abs() <= 1e-5 * right).all()
    assert ((gradient[0] - (side > 0).double()).abs() <= 1e-9).all()
    report = layer.report
    assert report is not None
    assert report.backward is not None
    assert report.backward.verdict == [cvxfold.Verdict.CONVERGED]


n, SEED = 4, int(os.environ.get("CVXFOLD_TEST_SEED", "0"))
MODELS: dict[str, Callable[[Any, Any, Array], tuple[Any, list[Any]]]] = {  # of c, x and a random matrix
    "log_sum_exp": (lambda c, x, M: (cp.log_sum_exp(M @ x) + cp.sum_squares(x - c), [])),
    "entropy": (lambda c, x, M: (c @ x - cp.sum(cp.entr(x)), [cp.sum(x) == 1])),
    "norm": (lambda c, x, M: (cp.norm(M @ x - 1) + cp.sum_squares(x - c), [x <= 1])),
    "sum_largest": (lambda c, x, M: (cp.sum_largest(M @ x, 2) + cp.sum_squares(x - c), [x >= -1])),
    "quad_over_lin": (lambda c, x, M: (cp.quad_over_lin(M @ x, 1 + cp.sum(x)) + c @ x, [x >= 0.1, x <= 1])),
    "geo_mean": (lambda c, x, M: (cp.sum_squares(x - c) - cp.geo_mean(1 + x), [x >= -0.9])),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [2, pytest.param(40, marks=long)])
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_modelling_atoms_at_mixed_scales(engine: str, name: str, count: int) -> None:
    """The directional derivative, by differences of cvxpy with Clarabel at 1e-12, where both sides agree.

    What its values may be off by, over the step, is room: x is far from 1e-12 where an objective is flat
    (norm, quad_over_lin: up to 2e-5). ``CVXFOLD_TEST_SEED`` draws others.
    """
    rng, step = np.random.default_rng([len(name), SEED] if SEED else len(name)), 1e-4
    scales = 10.0 ** rng.uniform(-2, 1, n)
    x, c = cp.Variable(n), cp.Parameter(n)
    of_size_one = cp.multiply(1 / scales, x)
    objective, constraints = MODELS[name](c, of_size_one, rng.standard_normal((3, n)))
    problem = cp.Problem(cp.Minimize(objective), constraints)
    layer = CvxpyLayer(problem, [c], [x], on_unconverged="ignore")
    values = rng.standard_normal((count, n))
    leaf = torch.tensor(values, requires_grad=True)
    weights = torch.tensor(rng.standard_normal((count, n)) / scales)
    (found,) = layer(leaf)
    (gradient,) = torch.autograd.grad((found * weights).sum(), [leaf])
    report = layer.report
    assert report is not None
    assert report.backward is not None
    for i in range(count):
        direction = rng.standard_normal(n)

        def loss(t: float, i: int = i, direction: Array = direction) -> float:
            c.value = values[i] + t * direction
            problem.solve("CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
            assert x.value is not None
            return float(weights[i].numpy() @ x.value)

        ahead, here, behind = (loss(t) for t in (step, 0.0, -step))
        right, left = (ahead - here) / step, (here - behind) / step
        apart = abs(here - float(weights[i] @ found[i].detach()))
        size = float((weights[i] * found[i].detach()).abs().sum())
        assert report.forward.status[i] is not cvxfold.Status.SOLVED or apart <= 1e-4 * size
        if abs(right - left) > 1e-2 * abs(right + left):
            continue  # a kink between them
        mine = float(gradient[i].numpy() @ direction)
        sizes = float(np.linalg.norm(gradient[i]) * np.linalg.norm(direction))
        flagged = report.backward.verdict[i] is not cvxfold.Verdict.CONVERGED
        untold = 0.5 * abs(right - left) + 2 * apart / step
        off = max(0.0, abs(mine - 0.5 * (right + left)) - untold)
        assert flagged or off / max(sizes, 1e-3) <= max(1e-3, float(report.backward.error[i]))


@pytest.mark.parametrize("violated", [0.0, 1e-17, 2.2e-16, 1e-14])
def test_a_step_that_does_not_move(engine: str, violated: float) -> None:
    """One step of sequential quadratic programming from a solution: all terms of some rows are rounding."""
    size = 5
    d, slope = cp.Variable(size), cp.Parameter(size)
    sum_, x = cp.Parameter(1), cp.Parameter(size)
    objective = 0.5 * cp.sum_squares(1.3 * d) + slope @ d
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(objective), [sum_ + cp.sum(d) == 0, x + d >= 0]), [slope, sum_, x], [d]
    )
    at = torch.tensor([0.3, 0.7, 0, 0, 0], dtype=F64)
    slopes = torch.tensor([1, 1, 2, 3, 4], dtype=F64)
    (step,) = layer(slopes, torch.tensor([violated], dtype=F64), at)
    assert (step.detach().abs() <= violated + 1e-15).all()
    report = layer.report
    assert report is not None
    assert report.forward.status == [cvxfold.Status.SOLVED]
    assert not report.forward.rescued.any()


@pytest.mark.parametrize("infinite", [1e12, 1e15, 1e17, 1e20])
def test_a_bound_that_stands_for_none(engine: str, infinite: float) -> None:
    """What rounding beside it could hide is not called solved."""
    x, c, high = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 1, x <= high]),
        [c, high],
        [x],
        on_unconverged="ignore",
    )
    given = torch.tensor([0.5, 3.0, 2.0], dtype=F64)
    (found,) = layer(given, torch.tensor([infinite, 2, infinite], dtype=F64))
    report = layer.report
    assert report is not None
    right = (found - torch.tensor([1.0, 2, 2], dtype=F64)).abs() <= 1e-5
    assert right.all() or report.forward.status == [cvxfold.Status.UNCONVERGED], found


@pytest.mark.parametrize("smallest", [1e-6, 1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("bounded", [False, True])
def test_least_squares_that_data_hardly_determine(engine: str, smallest: float, bounded: bool) -> None:
    """min ½‖L x − c‖², whose x = L⁻¹c has fewer digits than its equations; some bounds are far away."""
    size, rng = 5, np.random.default_rng(6)
    x, L, c = cp.Variable(size), cp.Parameter((size, size)), cp.Parameter(size)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(L @ x - c)), [x >= -100] if bounded else [])
    layer = CvxpyLayer(problem, [L, c], [x], on_unconverged="ignore", on_degenerate="ignore")
    for _ in range(4):
        left, right = (np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(2))
        matrix = left @ np.diag([1, 1, 0.5, 0.1, smallest**0.5]) @ right
        target, weight = matrix @ rng.standard_normal(size), rng.standard_normal(size)
        leaves = [torch.tensor(matrix, requires_grad=True), torch.tensor(target, requires_grad=True)]
        (found,) = layer(*leaves)
        gradients = torch.autograd.grad((torch.tensor(weight) * found).sum(), leaves)
        with mpmath.workdps(50):
            exact = mpmath.matrix(matrix.tolist())
            point, p = (
                np.array([float(v) for v in mpmath.lu_solve(M, mpmath.matrix(list(of)))])
                for M, of in ((exact, target), (exact.T, weight))
            )
        truth = np.concatenate([-np.outer(p, point).ravel(), p])
        off = np.linalg.norm(np.concatenate([g.numpy().ravel() for g in gradients]) - truth)
        report = layer.report
        assert report is not None
        assert report.backward is not None
        assert float(report.backward.error[0]) >= off / np.linalg.norm(truth)
        if smallest >= 1e-8:  # an eigenvalue that is small is no null space
            assert report.backward.verdict[0] is not cvxfold.Verdict.DEGENERATE
