"""Folded iterations against implicit differentiation and finite differences."""

import copy
import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from cvxfold import Verdict
from cvxfold.fold import LFPI, METHODS, Unrolled
from problems.box_qp import HIGH, LOW, implicit, problems, solved, start, step
from problems.fixed_points import EXACT
from problems.folded import make_folded

TIGHT = {"tol": 1e-12, "backward_tol": 1e-11}


def loss_gradient(x: Tensor) -> Tensor:
    return 3 * x**2 + 1


def gradients(folded: Any, *params: Tensor) -> tuple[Tensor, ...]:
    x = folded(*params)
    return torch.autograd.grad((x**3 + x).sum(), params)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("method", EXACT)
def test_every_method_gives_the_implicit_gradient(method: str, batched: bool) -> None:
    Q, q = (value.requires_grad_() for value in problems())
    folded = make_folded(step, start=start, batched=batched, backward=method, **TIGHT)
    x = folded(Q, q)
    expected_x = solved(Q.detach(), q.detach())
    torch.testing.assert_close(x.detach(), expected_x, rtol=0, atol=1e-11)
    found = torch.autograd.grad((x**3 + x).sum(), (Q, q))
    for got, expected in zip(
        found, implicit(Q.detach(), q.detach(), expected_x, loss_gradient(expected_x)), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)
    backward = folded.report.backward
    assert len(backward.verdict) == (4 if batched else 1)
    assert set(backward.verdict) == {Verdict.CONVERGED}
    assert float(backward.error.max()) < 1e-6


def test_a_large_iterate_is_folded_by_products() -> None:
    """More entries than are factored densely: GMRES, and the same gradient."""
    Q, q = (value.requires_grad_() for value in problems(2, 90))
    folded = make_folded(step, start=start, batched=True, **TIGHT)
    x = folded(Q, q)
    found = torch.autograd.grad((x**3 + x).sum(), (Q, q))
    assert folded.report.backward.method == "gmres"
    expected = implicit(Q.detach(), q.detach(), x.detach(), loss_gradient(x.detach()))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_a_black_box_in_front_of_a_nonconvex_program() -> None:
    """SciPy finds a local minimum of ½xᵀQx + pᵀsin x over a box; finite differences of it decide."""
    generator = np.random.default_rng(3)
    n = 5
    Q = generator.normal(size=(n, n))
    Q = (Q + Q.T) / 2  # indefinite
    p = generator.normal(size=n)
    begin = generator.uniform(-1, 1, n)
    called = []

    def solver(Q: Tensor, p: Tensor) -> np.ndarray:
        called.append(torch.is_grad_enabled() or Q.requires_grad)
        Qn, pn = Q.numpy(), p.numpy()
        x = minimize(
            lambda x: 0.5 * x @ Qn @ x + pn @ np.sin(x),
            begin,
            jac=lambda x: Qn @ x + pn * np.cos(x),
            bounds=[(-1, 1)] * n,
            method="L-BFGS-B",
        ).x
        free = np.abs(x) < 1
        for _ in range(8):  # Newton's method where no bound is active, to rounding
            H = (Qn - np.diag(pn * np.sin(x)))[free][:, free]
            x[free] -= np.linalg.solve(H, (Qn @ x + pn * np.cos(x))[free])
        return x

    def update(x: Tensor, Q: Tensor, p: Tensor) -> Tensor:
        return (x - 0.1 * (Q @ x + p * x.cos())).clamp(-1, 1)

    params = [torch.tensor(Q, requires_grad=True), torch.tensor(p, requires_grad=True)]
    folded = make_folded(update, solver)
    x = folded(*params)
    assert called == [False]
    assert bool((x.detach().abs() == 1).any())
    assert bool((x.detach().abs() < 1).any())
    (on_p,) = torch.autograd.grad((x**3 + x).sum(), params[1])
    differences = []
    for i in range(n):
        e = torch.zeros(n, dtype=torch.float64)
        e[i] = 1e-5
        up, down = (torch.tensor(solver(params[0].detach(), params[1].detach() + s * e)) for s in (1, -1))
        differences.append(float(((up**3 + up).sum() - (down**3 + down).sum()) / 2e-5))
    torch.testing.assert_close(on_p, torch.tensor(differences, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert folded.report.backward.verdict == [Verdict.CONVERGED]


Point = namedtuple("Point", ["left", "right"])


def test_structures_of_iterates_and_parameters() -> None:
    """x is a named tuple with a dictionary in it, parameters are nested; the linear system is known."""
    generator = torch.Generator().manual_seed(0)
    A = (0.3 * torch.randn(5, 5, dtype=torch.float64, generator=generator)).requires_grad_()
    b = torch.randn(5, dtype=torch.float64, generator=generator).requires_grad_()

    def update(x: Any, params: dict[str, Any], scale: int, name: str) -> Any:
        assert name == "a word"
        whole = torch.cat([x.left.flatten(), x.right["r"], x.right["s"].unsqueeze(0)])
        out = params["A"][0] @ whole + params["b"] * scale
        return Point(out[:2].reshape(2, 1), {"r": out[2:4], "s": out[4]})

    begin = Point(torch.zeros(2, 1).double(), {"r": torch.zeros(2).double(), "s": torch.zeros(()).double()})
    folded = make_folded(update, start=begin, **TIGHT)
    x = folded({"A": (A,), "b": b}, 2, "a word")
    assert isinstance(x, Point)
    assert x.left.shape == (2, 1)
    loss = x.left.sum() + (x.right["s"] ** 2)  # x.right["r"] is not looked at
    found = torch.autograd.grad(loss, (A, b))
    whole = torch.linalg.solve(torch.eye(5).double() - A, 2 * b)
    expected = torch.autograd.grad(whole[:2].sum() + whole[4] ** 2, (A, b))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_what_the_update_closes_over_gets_its_gradient() -> None:
    """A deep equilibrium model: the weights are those of a Module."""
    torch.manual_seed(0)
    cell = torch.nn.Linear(4, 4).double()
    with torch.no_grad():
        cell.weight.mul_(0.5)

    class Cell(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cell

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            return torch.tanh(self.inner(x) + c)

    c = torch.randn(3, 4).double()  # needs no gradient itself
    folded = make_folded(Cell(), start=torch.zeros_like, batched=True, **TIGHT)
    assert {id(p) for p in folded.parameters()} == {id(p) for p in cell.parameters()}
    folded(c).square().sum().backward()
    found = [p.grad.clone() for p in cell.parameters() if p.grad is not None]
    x = torch.zeros_like(c)
    for _ in range(300):
        x = torch.tanh(cell(x) + c)
    expected = torch.autograd.grad(x.square().sum(), list(cell.parameters()))
    torch.testing.assert_close(found, list(expected), rtol=1e-7, atol=1e-10)
    for p in cell.parameters():
        p.requires_grad_(False)
    fresh = make_folded(Cell(), start=torch.zeros_like, batched=True)
    assert not fresh(c).requires_grad


def test_views_broadcasts_and_types() -> None:
    Q, q = problems(3, 6)
    shared = Q[0]
    expected = gradients(
        make_folded(step, start=start, batched=True, **TIGHT),
        shared.repeat(3, 1, 1).requires_grad_(),
        q.clone().requires_grad_(),
    )
    base = shared.mT.contiguous().requires_grad_()
    wide = torch.stack([q, q], dim=-1).requires_grad_()
    folded = make_folded(step, start=start, batched=True, **TIGHT)
    x = folded(base.mT.expand(3, 6, 6), wide[..., 1])  # not contiguous, and broadcast
    on_base, on_wide = torch.autograd.grad((x**3 + x).sum(), (base, wide))
    torch.testing.assert_close(on_base.mT, expected[0].sum(0), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(on_wide[..., 1], expected[1], rtol=1e-8, atol=1e-10)
    single = make_folded(step, start=start, batched=True)
    found = gradients(single, Q[:1].float().requires_grad_(), q.float().requires_grad_())
    assert {one.dtype for one in found} == {torch.float32}
    exact = gradients(folded, Q[:1].clone().requires_grad_(), q.clone().requires_grad_())
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)
    assert set(single.report.backward.verdict) == {Verdict.CONVERGED}


def test_an_instance_does_not_depend_on_its_batch() -> None:
    Q, q = problems(5)
    together = gradients(
        make_folded(step, start=start, batched=True, backward="gmres", **TIGHT),
        Q.clone().requires_grad_(),
        q.clone().requires_grad_(),
    )
    for i in range(5):
        alone = gradients(
            make_folded(step, start=start, batched=True, backward="gmres", **TIGHT),
            Q[i : i + 1].clone().requires_grad_(),
            q[i : i + 1].clone().requires_grad_(),
        )
        torch.testing.assert_close(alone[1], together[1][i : i + 1], rtol=1e-9, atol=1e-11)


def test_unrolling_from_the_solution_is_lfpi() -> None:
    Q, q = (value.requires_grad_() for value in problems())
    common = {"start": start, "batched": True, "tol": 1e-13, "on_unconverged": "ignore"}
    unrolled = make_folded(step, backward=Unrolled(7), **common)
    lfpi = make_folded(step, backward=LFPI(), backward_max_iters=8, **common)
    found, expected = gradients(unrolled, Q, q), gradients(lfpi, Q, q)
    assert float((expected[1] - implicit(Q.detach(), q.detach(), *_bars(Q, q))[1]).abs().max()) > 1e-3
    sevenfold = make_folded(step, backward=LFPI(), backward_max_iters=7, **common)
    torch.testing.assert_close(found, gradients(sevenfold, Q, q), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(unrolled.report.backward.history, lfpi.report.backward.history[:7])


def _bars(Q: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    x = solved(Q.detach(), q.detach())
    return x, loss_gradient(x)


def test_unrolling_from_a_cold_start_and_twice() -> None:
    Q, q = problems(2, 4)
    q.requires_grad_()
    folded = make_folded(step, start=start, batched=True, backward=Unrolled(400, start="cold"))
    x = folded(Q, q)
    (gradient,) = torch.autograd.grad((x**3 + x).sum(), q, create_graph=True)
    expected = implicit(Q, q.detach(), *_bars(Q, q))[1]
    torch.testing.assert_close(gradient.detach(), expected, rtol=1e-6, atol=1e-8)
    (second,) = torch.autograd.grad(gradient[0, 0], q)
    e = torch.zeros_like(q)
    e[0, 0] = 1e-5
    sides = [implicit(Q, q.detach() + s * e, *_bars(Q, q.detach() + s * e))[1] for s in (1, -1)]
    torch.testing.assert_close(second[0], (sides[0] - sides[1])[0] / 2e-5, rtol=1e-4, atol=1e-5)


def test_without_a_gradient_there_is_none() -> None:
    Q, q = problems()
    folded = make_folded(step, start=start, batched=True)
    assert not folded(Q, q).requires_grad
    with torch.no_grad():
        assert not folded(Q.requires_grad_(), q).requires_grad
    assert folded.report.backward is None
    assert folded(Q[:0], q[:0]).shape == (0, 8)
    q.requires_grad_()
    folded(Q[:0], q[:0]).sum().backward()
    assert torch.equal(q.grad, torch.zeros_like(q))  # pyright: ignore[reportArgumentType]


def test_a_start_of_the_call_is_taken() -> None:
    Q, q = problems()
    folded = make_folded(step, start=start, batched=True)
    x = folded(Q, q)
    assert int(folded.report.forward.iterations.min()) > 1
    folded(Q, q, start=x)
    assert int(folded.report.forward.iterations.max()) == 1


def test_acceleration_takes_fewer_steps_and_the_slow_do_not_hold_the_fast() -> None:
    Q, q = problems()
    Q = Q * torch.tensor([1.0, 0.2, 1.0, 1.0]).double().view(-1, 1, 1)
    plain = make_folded(step, start=start, batched=True, acceleration=0)
    fast = make_folded(step, start=start, batched=True)
    torch.testing.assert_close(plain(Q, q), fast(Q, q), rtol=0, atol=1e-6)
    slow, quick = plain.report.forward.iterations, fast.report.forward.iterations
    assert int(quick.max()) < 0.7 * int(slow.max())
    assert int(slow[0]) < int(slow[1])


def test_an_expansive_update_is_iterated_by_acceleration() -> None:
    """x ← Mx + c with ρ(M) = 2: no plain iteration converges, the folded one does, and so does GMRES."""
    M = torch.tensor([[2.0, 0.5], [0.0, -0.5]], dtype=torch.float64)
    c = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    folded = make_folded(lambda x, c: M @ x + c, start=torch.zeros_like, backward="gmres")
    x = folded(c)
    expected = torch.linalg.solve(torch.eye(2).double() - M, c)
    torch.testing.assert_close(x, expected, rtol=1e-7, atol=1e-8)
    (found,) = torch.autograd.grad(x.sum(), c)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), c)[0])


@pytest.mark.filterwarnings("error::cvxfold.FlatGradientWarning")  # some products with Φᵀ are zero
def test_a_projection_inside_is_folded_too() -> None:
    """The update projects by an inner iteration, itself folded, or by a cone layer; another layer agrees."""
    import cvxpy as cp

    from cvxfold.torch import CvxpyLayer

    Q, q = problems(2, 4)
    q.requires_grad_()
    v, p = cp.Variable(4), cp.Parameter(4)
    over = [v >= LOW, v <= HIGH, cp.sum(v) == 0.25]
    nearest = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(v - p)), over), parameters=[p], variables=[v])

    def inner_step(state: Tensor, point: Tensor) -> Tensor:  # of the multiplier of Σx = ¼
        x = (point - state).clamp(LOW, HIGH)
        return state + (x.sum(-1, keepdim=True) - 0.25) / 4

    inner = make_folded(inner_step, start=lambda point: point[..., :1] * 0, batched=True, tol=1e-13)

    def by_layer(x: Tensor, q: Tensor) -> Tensor:
        return nearest(x - 0.1 * ((Q @ x.unsqueeze(-1)).squeeze(-1) + q))[0]

    def by_fold(x: Tensor, q: Tensor) -> Tensor:
        point = x - 0.1 * ((Q @ x.unsqueeze(-1)).squeeze(-1) + q)
        return (point - inner(point)).clamp(LOW, HIGH)

    Q_root = cp.Parameter((4, 4))
    qp = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q_root @ v) + p @ v), over)
    whole = CvxpyLayer(qp, parameters=[Q_root, p], variables=[v])
    (expected,) = whole(torch.linalg.cholesky(Q).mT.contiguous(), q)
    (on_q,) = torch.autograd.grad((expected**3 + expected).sum(), q)
    for update in (by_layer, by_fold):
        folded = make_folded(update, start=torch.zeros_like, batched=True, tol=1e-11)
        x = folded(q)
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-8)
        (found,) = torch.autograd.grad((x**3 + x).sum(), q)
        torch.testing.assert_close(found, on_q, rtol=1e-6, atol=1e-8)
        assert set(folded.report.backward.verdict) == {Verdict.CONVERGED}


def test_products_with_phi() -> None:
    """Φv and Φᵀw of the tape against the Jacobian, with and without the matrix."""
    from cvxfold.fold.tape import UpdateLinearization

    for n in (6, 70):
        Q, q = problems(2, n)
        tape = make_folded(step, start=start, batched=True, tol=1e-10).tape(Q, q)
        phi = UpdateLinearization(tape)
        assert tape.is_small == (n == 6)
        x = tape.u
        whole: Any = torch.autograd.functional.jacobian(lambda y, Q=Q, q=q: step(y, Q, q), x)  # (2, n, 2, n)
        jacobian = torch.stack([whole[i, :, i] for i in range(2)])
        v = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(phi.jvp(v), (jacobian @ v.unsqueeze(-1)).squeeze(-1))
        torch.testing.assert_close(phi.vjp(v), (jacobian.mT @ v.unsqueeze(-1)).squeeze(-1))
        one = phi.take(torch.tensor([1]))
        torch.testing.assert_close(one.jvp(v[1:]), (jacobian[1:] @ v[1:].unsqueeze(-1)).squeeze(-1))
        r = torch.linalg.solve(torch.eye(n).double() - jacobian.mT, v.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(phi.inverse_transposed(v), r, rtol=1e-6, atol=1e-8)


def test_all_methods_are_known() -> None:
    for name in [*METHODS, "unrolled"]:
        assert make_folded(step, start=start, backward=name)


def test_copies_and_pickles() -> None:
    Q, q = problems()
    folded = make_folded(step, start=start, batched=True)
    x = folded(Q, q)
    for twin in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert twin.report.forward.status == []
        torch.testing.assert_close(twin(Q, q), x)


class Once(torch.autograd.Function):
    """Doubles; cannot be differentiated twice, like an inner layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # pyright: ignore
        return 2 * grad_outputs[0]


@pytest.mark.parametrize("size", [5, 80])
def test_an_update_that_cannot_be_differentiated_twice(size: int) -> None:
    """Φ = ½·2·¼: products with Φᵀ are enough, and where they are not, that is said."""
    c = torch.ones(size, dtype=torch.float64, requires_grad=True)

    def update(x: Tensor, c: Tensor) -> Tensor:
        return 0.25 * Once.apply(x) + c

    folded = make_folded(update, start=torch.zeros_like, tol=1e-12)
    (found,) = torch.autograd.grad(folded(c).sum(), c)
    torch.testing.assert_close(found, 2 * torch.ones_like(c))
    needs = make_folded(update, start=torch.zeros_like, backward="least_squares")
    if size == 5:
        torch.testing.assert_close(torch.autograd.grad(needs(c).sum(), c)[0], found)
        return
    with pytest.raises(NotImplementedError, match="differentiated twice"):
        needs(c).sum().backward()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["auto", "gmres", "lfpi"])
def test_on_a_device(method: str) -> None:
    Q, q = (value.requires_grad_() for value in problems())
    folded = make_folded(step, start=start, batched=True, backward=method, **TIGHT)
    expected = gradients(folded, Q, q)
    on_device = [value.detach().cuda().requires_grad_() for value in (Q, q)]
    found = gradients(folded, *on_device)
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == "cuda"
        torch.testing.assert_close(one.cpu(), other, rtol=1e-7, atol=1e-9)
