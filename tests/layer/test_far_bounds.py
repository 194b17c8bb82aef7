"""Bounds that are far beyond all other data cost nothing, and hold all the same where they are active."""

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.families import minimize
from problems.marks import needs_lanes, sliced

F64 = torch.float64
BATCH, SIZE, ROWS = 12, 5, 8
BOUNDS = sliced([1e5, 1e8, 1e10, 1e15], lambda bound: bound == 1e10)


def solved(layer: CvxpyLayer, engine: str) -> bool:
    """Whether all instances are, the lanes engine's without another solver."""
    report = layer.report
    assert report is not None
    alone = engine == "tensors" or not report.forward.rescued.any()
    return set(report.forward.status) == {cvxfold.Status.SOLVED} and alone


class Vertices:
    """min qᵀx with A x ≤ b, in a box: the first rows meet in the solution."""

    def __init__(self, bound: float, seed: int = 3) -> None:
        x, A, b, q, box = (
            cp.Variable(SIZE),
            cp.Parameter((ROWS, SIZE)),
            cp.Parameter(ROWS),
            cp.Parameter(SIZE),
            cp.Parameter(),
        )
        self.constraint, self.upper = A @ x <= b, x <= box
        problem = minimize(q @ x, self.constraint, self.upper, x >= -box)
        duals = [constraint.dual_variables[0] for constraint in (self.constraint, self.upper)]
        self.layer = CvxpyLayer(problem, [A, b, q, box], [x, *duals])
        generator = torch.Generator().manual_seed(seed)
        rows, at = (
            torch.randn(BATCH, *size, dtype=F64, generator=generator) for size in ((ROWS, SIZE), (SIZE,))
        )
        slack, self.y = (0.1 + 2 * torch.rand(BATCH, ROWS, dtype=F64, generator=generator) for _ in range(2))
        slack[:, :SIZE], self.y[:, SIZE:] = 0, 0
        self.rows, self.at = rows, at
        b_given = torch.einsum("bij,bj->bi", rows, at) + slack
        q_given = -torch.einsum("bij,bi->bj", rows, self.y)
        self.values = [rows, b_given, q_given, torch.tensor(bound, dtype=F64)]


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_vertex_within_a_far_box(engine: str, bound: float) -> None:
    """x = A₁⁻¹b₁, whose derivative on b₁ is A₁⁻ᵀx̄; by a bound nothing moves."""
    case = Vertices(bound)
    leaves = [value.clone().requires_grad_() for value in case.values]
    x, y, of_bound = case.layer(*leaves)
    assert solved(case.layer, engine)
    torch.testing.assert_close(x.detach(), case.at, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(y.detach(), case.y, rtol=1e-9, atol=1e-9)
    assert of_bound.abs().max() < 1e-12
    weights = torch.randn(BATCH, SIZE, dtype=F64, generator=torch.Generator().manual_seed(1))
    _, on_b, _, on_box = torch.autograd.grad((weights * x).sum(), leaves)
    right = torch.linalg.solve(case.rows[:, :SIZE].mT, weights)
    torch.testing.assert_close(on_b[:, :SIZE], right, rtol=1e-8, atol=1e-8)
    assert on_b[:, SIZE:].abs().max() < 1e-20
    assert on_box.abs() < 1e-20
    report = case.layer.report
    assert report is not None
    assert report.backward is not None
    assert set(report.backward.verdict) == {cvxfold.Verdict.CONVERGED}


@needs_lanes
@pytest.mark.parametrize("bound", BOUNDS)
def test_as_little_work_as_without_the_box(bound: float) -> None:
    def steps(case: Vertices) -> Tensor:
        case.layer(*case.values)
        report = case.layer.report
        assert report is not None
        return report.forward.newton_steps

    assert steps(Vertices(bound)).sum() <= 1.5 * steps(Vertices(10.0)).sum()


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_far_bound_that_is_active(engine: str, bound: float, cold: bool) -> None:
    """max x₁ + 2 x₂ + 3 x₃ where x₁ ± x₂ ≤ 1 and x₁ ≥ −1: x₁ = −1, x₂ = 2; only its far bound holds x₃."""
    x, q, b = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    upper = x <= b
    rows = [x[0] + x[1] <= 1, x[0] - x[1] <= 1, x[0] >= -1]
    problem, dual = minimize(-q @ x, upper, *rows), upper.dual_variables[0]
    layer = CvxpyLayer(problem, [q, b], [x, dual])
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    for far in [bound] if cold else [bound, 1.01 * bound, 2.0, bound]:
        leaves = [
            weights.clone().requires_grad_(),
            torch.tensor([far, far, far], dtype=F64, requires_grad=True),
        ]
        found, y = layer(*leaves, warm_start=not cold)
        report = layer.report
        assert report is not None
        assert report.forward.status == [cvxfold.Status.SOLVED]
        assert solved(layer, engine) or far > 1e8  # entries of 1 beside those of 1e10
        right = torch.tensor([-1.0, 2.0, far], dtype=F64)
        torch.testing.assert_close(found.detach(), right, rtol=1e-9, atol=1e-6)
        _, on_b = torch.autograd.grad(found.sum(), leaves)
        if far > 2:
            torch.testing.assert_close(on_b, torch.tensor([0.0, 0.0, 1.0], dtype=F64), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(
                y.detach(), torch.tensor([0.0, 0.0, 3.0], dtype=F64), rtol=1e-9, atol=1e-9
            )


@pytest.mark.usefixtures("engine")
def test_active_bounds_of_any_size_beside_each_other() -> None:
    """max wᵀx where l ≤ x ≤ h and x₁ + x₂ ≤ 1.5, w₁ < w₂: x₂ = h₂ and x₁ = 1.5 − h₂, else x = h.

    With −w for w, x = l. One instance has no solution.
    """
    x, q, low, high = cp.Variable(4), cp.Parameter(4), cp.Parameter(4), cp.Parameter(4)
    problem = minimize(q @ x, x <= high, x >= low, cp.sum(x[:2]) <= 1.5)
    layer = CvxpyLayer(problem, [q, low, high], [x], on_unsolvable="nan")
    w = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64).expand(6, 4)
    upper = torch.ones(6, 4, dtype=F64)
    upper[1, 3], upper[2, 2:], upper[3, 2], upper[4, 0] = 1e9, torch.tensor([1e6, 1e9]), 1e12, -2.0
    upper.requires_grad_()
    (found,) = layer(-w, torch.full((4,), -1.0, dtype=F64), upper)
    good = torch.arange(6) != 4
    assert torch.equal(~found.isnan().any(1), good)
    right = torch.cat([1.5 - upper[:, 1:2], upper[:, 1:]], 1).detach()
    torch.testing.assert_close(found[good].detach(), right[good], rtol=1e-9, atol=1e-9)
    found[good].sum().backward()
    gradient = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=F64) * good.unsqueeze(1)
    assert upper.grad is not None
    torch.testing.assert_close(upper.grad, gradient, rtol=1e-9, atol=1e-9)

    lower = torch.tensor([[1.0, -1, 1, 1e9], [-1, 0, 1e12, 1e6]], dtype=F64, requires_grad=True)
    (found,) = layer(w[:2], lower, torch.tensor(1e13, dtype=F64).expand(4))
    torch.testing.assert_close(found.detach(), lower.detach(), rtol=1e-9, atol=1e-9)
    found.sum().backward()
    assert lower.grad is not None
    torch.testing.assert_close(lower.grad, torch.ones(2, 4, dtype=F64), rtol=1e-9, atol=1e-9)


def test_what_is_far_by_a_chain_of_equations(engine: str) -> None:
    """x₁ = 1 and x_{k+1} = 10 x_k leave no room within a nearer bound, but within this one."""
    x, first = cp.Variable(8), cp.Parameter()
    chain = [x[0] == first, *(x[k + 1] == 10 * x[k] for k in range(7))]
    layer = CvxpyLayer(minimize(cp.sum(x), *chain, x <= 1e12), [first], [x])
    (found,) = layer(torch.tensor(1.0, dtype=F64))
    assert solved(layer, engine)
    room = 1e-12 if engine == "lanes" else 1e-6  # of 10, beside bounds of 1e12
    torch.testing.assert_close(found, 10.0 ** torch.arange(8, dtype=F64), rtol=room, atol=0)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("bound", BOUNDS)
def test_that_there_is_no_solution_is_said_as_ever(bound: float) -> None:
    x, b, box = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    problem = minimize(-x[0], x[1] <= box, x[1] >= -box, cp.sum(x) >= b[0], x[0] <= b[1])
    layer = CvxpyLayer(problem, [b, box], [x])
    (found,) = layer(torch.tensor([1.0, 2.0], dtype=F64), torch.tensor(bound, dtype=F64))
    assert abs(float(found[0]) - 2) < 1e-8
    with pytest.raises(cvxfold.InfeasibleError):
        layer(torch.tensor([3 * bound, 2.0], dtype=F64), torch.tensor(bound, dtype=F64))
    endless = CvxpyLayer(minimize(-x[0], x[1] <= box, cp.sum(x) >= b[0], x[0] >= b[1]), [b, box], [x])
    with pytest.raises(cvxfold.UnboundedError):
        endless(torch.tensor([1.0, 2.0], dtype=F64), torch.tensor(bound, dtype=F64))


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("kind", ["second order", "exponential", "semidefinite"])
def test_beside_curved_cones(engine: str, kind: str, bound: float) -> None:
    """cᵀx over a ball: −c/‖c‖. Σ −log x on Σ x = 1: 1/n. diag(c)·X of trace 1: that of the smallest c."""
    box, c, x = cp.Parameter(), cp.Parameter(3), cp.Variable(3)
    X, given = cp.Variable((3, 3), PSD=True), torch.tensor([3.0, 1.0, 2.0], dtype=F64)
    problem, wanted, right = {
        "second order": (minimize(c @ x, cp.norm(x) <= 1, x <= box, x >= -box), x, -given / given.norm()),
        "exponential": (
            minimize(-cp.sum(cp.log(x)) + 0 * (c @ x), cp.sum(x) == 1, x <= box),
            x,
            torch.full((3,), 1 / 3, dtype=F64),
        ),
        "semidefinite": (
            minimize(c @ cp.diag(X), cp.trace(X) == 1, cp.vec(X, order="F") <= box),
            X,
            torch.diag((given == 1).to(F64)),
        ),
    }[kind]
    layer = CvxpyLayer(problem, [c, box], [wanted])
    (found,) = layer(given, torch.tensor(bound, dtype=F64))
    assert solved(layer, engine)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)


@needs_lanes
def test_each_instance_by_its_own_limit() -> None:
    """The bits of an instance do not depend on whether its neighbours' bounds are far."""
    case = Vertices(1e9)
    box = torch.where(torch.arange(BATCH) % 3 == 0, 1e9, 10.0).to(F64)
    values = [*case.values[:3], box]
    together = [output.clone() for output in case.layer(*values)]
    for k in range(BATCH):
        alone = case.layer(*(value[k : k + 1] for value in values))
        for one, all_ in zip(alone, together, strict=True):
            assert torch.equal(one[0], all_[k])
