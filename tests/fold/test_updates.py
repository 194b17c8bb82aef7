"""The ready updates: one quadratic program, its gradient by the KKT conditions, and finite differences."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cvxfold import Verdict
from cvxfold.fold import projections
from cvxfold.fold.updates import (
    ADMM,
    Accelerated,
    DualProximalGradient,
    ProjectedGradient,
    ProximalGradient,
    SQPStep,
)
from problems.folded import make_folded
from problems.marks import sliced

N, BATCH = 6, 3


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    L = torch.randn(BATCH, N, N, dtype=torch.float64, generator=generator)
    q = torch.randn(BATCH, N, dtype=torch.float64, generator=generator)
    return (L @ L.mT / N + 0.5 * torch.eye(N).double()), q


def times(P: Tensor, x: Tensor) -> Tensor:
    return (P @ x.unsqueeze(-1)).squeeze(-1)


def objective(x: Tensor, P: Tensor, q: Tensor) -> Tensor:
    return 0.5 * (x * times(P, x)).sum(-1) + (q * x).sum(-1)


def onto_simplex(z: Tensor, *_: Any) -> Tensor:
    return projections.simplex(z)


def kkt(P: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """The solution over the simplex by trying active sets, and (P̄, q̄ of) nothing else: x and the free set."""
    xs, frees = [], []
    for Pi, qi in zip(P, q, strict=True):
        for code in range(1, 2**N):
            free = torch.tensor([bool(code >> i & 1) for i in range(N)])
            k = int(free.sum())
            K = torch.zeros(k + 1, k + 1, dtype=torch.float64)
            K[:k, :k], K[:k, k], K[k, :k] = Pi[free][:, free], 1, 1
            solution = torch.linalg.solve(K, torch.cat([-qi[free], torch.ones(1).double()]))
            x = torch.zeros(N, dtype=torch.float64)
            x[free] = solution[:k]
            reduced = Pi @ x + qi + solution[k]
            if bool((x >= -1e-12).all()) and bool((reduced[~free] >= -1e-12).all()):
                xs.append(x)
                frees.append(free)
                break
    return torch.stack(xs), torch.stack(frees)


def implicit(P: Tensor, x: Tensor, free: Tensor, x_bar: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients on P and q by the KKT conditions on the free set."""
    on_P, on_q = torch.zeros_like(P), torch.zeros_like(x)
    for i in range(len(x)):
        k = int(free[i].sum())
        K = torch.zeros(k + 1, k + 1, dtype=torch.float64)
        K[:k, :k], K[:k, k], K[k, :k] = P[i][free[i]][:, free[i]], 1, 1
        adjoint = torch.linalg.solve(K, torch.cat([x_bar[i, free[i]], torch.zeros(1).double()]))
        on_q[i, free[i]] = -adjoint[:k]
        on_P[i] = -0.5 * (torch.outer(-on_q[i], x[i]) + torch.outer(x[i], -on_q[i]))
    return on_P, on_q


def program(P: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    A = torch.cat([torch.ones(1, N), torch.eye(N)]).double()
    low = torch.cat([torch.ones(1), torch.zeros(N)]).double()
    high = torch.cat([torch.ones(1), torch.full((N,), torch.inf)]).double()
    return P, q, A, low, high


admm = ADMM(program, penalty=1.0)
dual = DualProximalGradient(
    conjugate_gradient=lambda z, P, q: torch.linalg.solve(P, (z - q).unsqueeze(-1)).squeeze(-1),
    operator=lambda P, q: torch.eye(N, dtype=torch.float64),
    prox=lambda z, s, P, q: projections.simplex(z),
    step=0.4,
)
projected = ProjectedGradient(objective, onto_simplex, 0.2)
proximal = ProximalGradient(objective, lambda z, s, *_: projections.simplex(z), 0.3)
sqp = SQPStep(
    objective,
    equalities=lambda x, *_: x.sum(-1, keepdim=True) - 1,
    inequalities=lambda x, *_: -x,
    step=0.5,
)


def pair(P: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(q), torch.zeros_like(q)


def zeros(P: Tensor, q: Tensor) -> Tensor:
    return torch.zeros_like(q)


Primal = Callable[[Any, Tensor, Tensor], Tensor]
UPDATES: dict[str, tuple[Any, Any, Primal]] = {
    "projected gradient": (projected, zeros, lambda x, P, q: x),
    "proximal gradient": (proximal, zeros, lambda x, P, q: x),
    "accelerated": (Accelerated(proximal, 0.3), pair, lambda s, P, q: s[0]),
    "dual proximal gradient": (dual, zeros, dual.primal),
    "fast dual proximal gradient": (Accelerated(dual, 0.3), pair, lambda s, P, q: dual.primal(s[0], P, q)),
    "admm": (admm, lambda P, q: q.new_zeros(BATCH, N + 1), admm.primal),
    "sqp": (sqp, lambda P, q: torch.full_like(q, 1 / N), lambda x, P, q: x),
}


def solve(name: str, P: Tensor, q: Tensor, **options: Any) -> tuple[Tensor, Any]:
    update, start, primal = UPDATES[name]
    folded = make_folded(update, start=start, batched=True, tol=1e-12, **options)
    return primal(folded(P, q), P, q), folded


def cube(x: Tensor) -> Tensor:
    return (x**3 + 2 * x.square() * torch.arange(N, dtype=torch.float64)).sum()


@pytest.mark.parametrize("name", UPDATES)
def test_gradients_are_those_of_the_kkt_conditions(name: str) -> None:
    P, q = data()
    x, free = kkt(P, q)
    assert bool((~free).any())
    assert bool((free.sum(-1) > 1).all())
    x.requires_grad_()
    (x_bar,) = torch.autograd.grad(cube(x), x)
    expected = implicit(P, x.detach(), free, x_bar)
    P.requires_grad_()
    q.requires_grad_()
    found, folded = solve(name, P, q, backward_tol=1e-11)
    torch.testing.assert_close(found, x.detach(), rtol=0, atol=1e-9)
    on_P, on_q = torch.autograd.grad(cube(found), (P, q))
    torch.testing.assert_close((on_P + on_P.mT) / 2, expected[0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(on_q, expected[1], rtol=1e-6, atol=1e-8)
    assert set(folded.report.backward.verdict) == {Verdict.CONVERGED}


@pytest.mark.parametrize("name", sliced(UPDATES, lambda name: name not in ("admm", "sqp")))
def test_gradients_are_finite_differences(name: str) -> None:
    P, q = data()
    q.requires_grad_()
    (on_q,) = torch.autograd.grad(cube(solve(name, P, q)[0]), q)
    direction = torch.randn(BATCH, N, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        up, down = (cube(solve(name, P, q + s * 1e-5 * direction)[0]) for s in (1, -1))
    torch.testing.assert_close((on_q * direction).sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_the_state_of_admm_is_made_of_a_solution() -> None:
    P, q = data()
    v = make_folded(admm, start=UPDATES["admm"][1], batched=True, tol=1e-12)(P, q)
    x, y = admm.primal(v, P, q), admm.dual(v, P, q)
    torch.testing.assert_close(admm.state(x, y, P, q), v, rtol=0, atol=1e-10)
    A = program(P, q)[2]
    torch.testing.assert_close(times(P, x) + q + y @ A, torch.zeros_like(x), rtol=0, atol=1e-9)
    solver = make_folded(admm, lambda P, q: admm.state(x, y, P, q), batched=True)
    torch.testing.assert_close(solver(P, q), v, rtol=0, atol=1e-9)


def wavy(x: Tensor, P: Tensor, q: Tensor) -> Tensor:
    """Not convex: ½xᵀPx + 3qᵀsin 2x."""
    return 0.5 * (x * times(P, x)).sum(-1) + 3 * (q * (2 * x).sin()).sum(-1)


NONCONVEX = {
    "projected gradient": ProjectedGradient(wavy, onto_simplex, 0.05),
    "sqp": SQPStep(
        wavy,
        equalities=lambda x, *_: x.sum(-1, keepdim=True) - 1,
        inequalities=lambda x, *_: -x,
        hessian=lambda x, P, q: P + 25 * torch.eye(N).double(),
    ),
}


@pytest.mark.parametrize("name", NONCONVEX)
def test_gradients_on_a_nonconvex_program(name: str) -> None:
    P, q = data()
    q.requires_grad_()
    begin = torch.full_like(q, 1 / N).detach()
    options = {"start": begin, "batched": True, "tol": 1e-12, "acceleration": 0, "max_iters": 3000}
    folded = make_folded(NONCONVEX[name], **options)
    x = folded(P, q)
    (on_q,) = torch.autograd.grad(cube(x), q)
    direction = torch.randn(BATCH, N, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    near = make_folded(NONCONVEX[name], **(options | {"start": x.detach()}))
    with torch.no_grad():
        up, down = (cube(near(P, q + s * 1e-5 * direction)) for s in (1, -1))
    torch.testing.assert_close((on_q * direction).sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-8)
    assert set(folded.report.backward.verdict) == {Verdict.CONVERGED}


def test_a_curved_constraint() -> None:
    """min ‖x − c‖² on the sphere: x = c/‖c‖, by SQP with an H that is not the Lagrangian's."""
    c = torch.tensor([[1.0, 2.0, -0.5], [0.3, 0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    update = SQPStep(
        lambda x, c: (x - c).square().sum(-1),
        equalities=lambda x, c: x.square().sum(-1, keepdim=True) - 1,
        hessian=lambda x, c: (2 * c.norm(dim=-1) + 1).view(-1, 1, 1) * torch.eye(3).double(),
    )
    folded = make_folded(update, start=lambda c: c / c.abs().sum(-1, keepdim=True), batched=True, tol=1e-12)
    x = folded(c)
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    found = torch.autograd.grad((weights * x).sum(), c)[0]
    exact = c / c.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        found, torch.autograd.grad((weights * exact).sum(), c)[0], rtol=1e-6, atol=1e-8
    )


def test_jacobians_that_are_given() -> None:
    """The step and its gradient are those of autograd's Jacobians: of a curved constraint and of bounds."""
    x = torch.tensor([[0.6, 0.9, -0.2], [0.5, 0.4, 0.9]], dtype=torch.float64)
    c = torch.tensor([[1.0, 2.0, -0.5], [0.3, 0.2, 0.9]], dtype=torch.float64)

    def bounds(x: Tensor, c: Tensor) -> Tensor:
        return x - c[:, :1].exp()

    def step(**jacobians: Any) -> list[Tensor]:
        update = SQPStep(
            lambda x, c: (x - c).square().sum(-1),
            equalities=lambda x, c: (x.square() * c.cos()).sum(-1, keepdim=True) - 0.5,
            inequalities=bounds,
            hessian=lambda x, c: 3 * torch.eye(3).double().expand(2, 3, 3),
            **jacobians,
        )
        at, to = x.clone().requires_grad_(), c.clone().requires_grad_()
        y = update(at, to)
        return [y.detach(), *torch.autograd.grad((y * torch.arange(6).view(2, 3)).sum(), (at, to))]

    given = step(
        equalities_jacobian=lambda x, c: 2 * (x * c.cos()).unsqueeze(-2),
        inequalities_jacobian=lambda x, c: torch.eye(3).double().expand(2, 3, 3),
    )
    for one, other in zip(given, step(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def no_rows(x: Tensor, *_: Any) -> Tensor:
    return x.unsqueeze(-2)[..., :0, :]


def sums(x: Tensor, *_: Any) -> Tensor:
    return x.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Accelerated(projected, 1.0), "momentum: expected a number from 0 to below 1"),
        (lambda: ADMM(program, penalty=-1.0), "penalty: expected a positive number"),
        (lambda: ADMM(program, relaxation=2.0), "relaxation: expected a number between 0 and 2"),
        (lambda: SQPStep(objective, step=0.0), "step: expected a positive number"),
        (lambda: SQPStep(wavy)(data()[1] * 0, -data()[0], data()[1]), "hessian: expected positive definite"),
        (lambda: ProjectedGradient(lambda x, *_: q0, onto_simplex, 0.1)(q0, *data()), "objective: expected"),
        (
            lambda: SQPStep(objective, lambda x, *_: x.sum())(q0, *data()),
            "constraints: expected values of shape",
        ),
        (
            lambda: SQPStep(objective, sums, equalities_jacobian=no_rows)(q0, *data()),
            r"equalities_jacobian: expected a tensor of shape \(…, p, n\)",
        ),
        (
            lambda: SQPStep(objective, inequalities_jacobian=no_rows),
            "inequalities_jacobian: expected None where there are no inequalities",
        ),
    ],
)
def test_bad_input(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


q0 = torch.zeros(BATCH, N, dtype=torch.float64)
