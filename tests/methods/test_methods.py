"""The engine's methods against dense solves, scipy, and each other: convergence, safeguards, bookkeeping."""

import math

import pytest
import torch
from torch import Tensor

import cvxfold.gradient.adjoint
from cvxfold.engines.tensors.linearization import SplittingLinearization
from cvxfold.fold import (
    LFPI,
    METHODS,
    AdjointMethod,
    AdjointSettings,
    AdjointSolution,
    Anderson,
    BiCGSTAB,
    Direct,
    JacobianFree,
    solve_adjoint,
)
from problems.cases import case, evaluate, make_layer
from problems.fixed_points import (
    EXACT,
    Dense,
    Inverse,
    contraction,
    exact,
    non_normal,
    random,
    relative_error,
    rotations,
)

ITERATIVE = ["anderson", "bicgstab", "gmres", "lfpi"]
PRECONDITIONED = [f"preconditioned_{name}" for name in ITERATIVE]


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("radius", [0.3, 0.9, 0.99])
def test_random_contractions(method: str, radius: float) -> None:
    phi, rhs, expected = contraction(6, 30, radius, seed=11)
    adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings(tol=1e-11))
    assert adjoint.converged.all()
    assert adjoint.exact
    assert relative_error(adjoint.w, expected) < 1e-7


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("kind", ["complex", "non-normal"])
def test_complex_spectra_and_non_normal_matrices(method: str, kind: str) -> None:
    phi = rotations(4, 12, 0.95) if kind == "complex" else non_normal(4, 16)
    rhs = random(4, phi.shape[-1], seed=12)
    adjoint = solve_adjoint(METHODS[method], Dense(phi), rhs, AdjointSettings(tol=1e-10))
    assert adjoint.converged.all()
    assert relative_error(adjoint.w, exact(phi, rhs)) < 1e-5


@pytest.mark.parametrize("step", [0.3, 0.7, 1.3])
def test_the_step_of_lfpi_is_a_relaxation(step: float) -> None:
    """LFPI with step γ is LFPI of Φ' = (1 − γ) I + γ Φ on γū: iterate by iterate."""
    phi, rhs, _ = contraction(3, 10, 0.7)
    other = Dense((1 - step) * torch.eye(10, dtype=torch.float64) + step * phi.phi)
    for steps in (1, 4, 30):
        settings = AdjointSettings(tol=1e-30, max_iters=steps)
        relaxed, plain = LFPI(step).solve(phi, rhs, settings), LFPI().solve(other, step * rhs, settings)
        torch.testing.assert_close(relaxed.w, plain.w, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(relaxed.history, plain.history, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("limit", [1, 7, 20, 33])
def test_lfpi_is_the_bare_recurrence_to_the_last_bit(limit: int) -> None:
    phi, rhs, _ = contraction(3, 10, 0.9)
    w = torch.zeros_like(rhs)
    for _ in range(limit):
        w = phi.vjp(w) + rhs
    attempt = LFPI().solve(phi, rhs, AdjointSettings(tol=1e-30, max_iters=limit))
    assert torch.equal(attempt.w, w)


def test_a_smaller_step_converges_where_the_full_one_does_not() -> None:
    phi = Dense(torch.diag_embed(torch.linspace(-1.5, 0.8, 10, dtype=torch.float64)).unsqueeze(0))
    rhs = random(1, 10)
    assert not solve_adjoint(LFPI(), phi, rhs, AdjointSettings(max_iters=2000)).converged.any()
    adjoint = solve_adjoint(LFPI(step=0.5), phi, rhs, AdjointSettings(max_iters=2000))
    assert relative_error(adjoint.w, exact(phi.phi, rhs)) < 1e-7


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("method", [LFPI, Anderson])
def test_a_step_that_is_not_positive_is_refused(method: type[LFPI] | type[Anderson], step: float) -> None:
    with pytest.raises(ValueError, match="step"):
        method(step=step)


@pytest.mark.parametrize("name", PRECONDITIONED)
def test_a_nearly_exact_inverse_leaves_little_to_do(name: str) -> None:
    phi, rhs, expected = contraction(5, 40, 0.99)
    noise = 1e-3 * random(5, 40, 40, seed=16) / 40**0.5
    eye = torch.eye(40, dtype=torch.float64)
    other = Inverse(phi.phi, torch.linalg.inv(eye - phi.phi.mT) @ (eye + noise))
    adjoint = solve_adjoint(METHODS[name], other, rhs, AdjointSettings(tol=1e-9))
    assert adjoint.converged.all()
    assert (adjoint.iterations <= 6).all()
    assert adjoint.method == f"{name.removeprefix('preconditioned_')}, preconditioned"
    assert relative_error(adjoint.w, expected) < 1e-6


@pytest.mark.parametrize("name", ITERATIVE)
def test_methods_go_by_their_names(name: str) -> None:
    phi, rhs, _ = contraction(1, 3, 0.5)
    assert solve_adjoint(METHODS[name], phi, rhs, AdjointSettings()).method == name


@pytest.mark.parametrize("method", [Anderson(), BiCGSTAB(), LFPI()])
def test_finished_instances_leave_the_batch(method: AdjointMethod) -> None:
    slow, rhs, _ = contraction(1, 40, 0.995, seed=2)
    fast, _, _ = contraction(3, 40, 0.05, seed=1)
    phi = Dense(torch.cat([fast.phi, slow.phi]))
    adjoint = solve_adjoint(method, phi, rhs.repeat(4, 1), AdjointSettings(tol=1e-9))
    assert adjoint.converged.all()
    assert (adjoint.iterations[:3] <= 20).all()
    assert adjoint.history[int(adjoint.iterations[3]) - 1, :3].isnan().all()
    assert phi.products[:-1].count(4) <= 21, "the fast ones were multiplied no longer than to the next look"
    assert phi.products[-2] == 1


@pytest.mark.parametrize("method", [name for name in EXACT if name not in ("auto", "direct")])
@pytest.mark.parametrize("limit", [1, 2, 13])
def test_the_limit_is_kept(method: str, limit: int) -> None:
    phi, rhs, _ = contraction(3, 50, 0.99)
    phi.error = 0.9
    adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings(tol=1e-30, max_iters=limit))
    assert adjoint.history.shape[0] <= limit
    assert (adjoint.iterations <= limit).all()
    assert not adjoint.converged.any()
    pairs = 2 if "bicgstab" in method else 1
    assert len(phi.products) <= pairs * limit + limit // 2 + 3, "one product for each look, and the last"


@pytest.mark.parametrize("method", EXACT)
def test_nan_and_zero_leave_the_others_alone(method: str) -> None:
    phi, rhs, expected = contraction(5, 12, 0.9)
    rhs[1], rhs[3, 2], phi.phi[4, 0, 0] = 0.0, torch.nan, torch.nan
    if method in ("auto", "direct") or "preconditioned" in method:
        phi.phi[4, 0, 0] = 0.1  # pinv refuses NaN for the whole batch
        rhs[4, 0] = torch.inf
    adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings(tol=1e-10, max_iters=1000))
    assert adjoint.converged.tolist() == [True, True, True, False, False]
    assert (adjoint.w[1] == 0).all()
    assert relative_error(adjoint.w[[0, 2]], expected[[0, 2]]) < 1e-7
    alone = solve_adjoint(METHODS[method], phi.take(torch.tensor([0])), rhs[:1], AdjointSettings(tol=1e-10))
    assert adjoint.iterations[0] == alone.iterations[0]


@pytest.mark.parametrize("method", PRECONDITIONED)
def test_an_inverse_that_fails_is_told(method: str) -> None:
    """The approximate inverse of one instance is NaN; the instance is not called converged."""
    phi, rhs, expected = contraction(3, 8, 0.5)
    eye = torch.eye(8, dtype=torch.float64)
    inverse = torch.linalg.inv(eye - phi.phi.mT) * 1.01
    inverse[1] = torch.nan
    settings = AdjointSettings(max_iters=500)
    adjoint = solve_adjoint(METHODS[method], Inverse(phi.phi, inverse), rhs, settings)
    assert adjoint.converged.tolist() == [True, False, True]
    assert relative_error(adjoint.w[[0, 2]], expected[[0, 2]]) < 1e-7


@pytest.mark.parametrize("method", EXACT)
def test_an_instance_does_not_depend_on_its_batch(method: str) -> None:
    slow, rhs, _ = contraction(2, 20, 0.97, seed=5)
    fast, more, _ = contraction(2, 20, 0.3, seed=6)
    phi, rhs = Dense(torch.cat([slow.phi, fast.phi])), torch.cat([rhs, more])
    settings = AdjointSettings(tol=1e-12)
    together = solve_adjoint(METHODS[method], phi, rhs, settings)
    for i in range(4):
        alone = solve_adjoint(METHODS[method], phi.take(torch.tensor([i])), rhs[i : i + 1], settings)
        assert relative_error(alone.w, together.w[i : i + 1]) < 1e-10
        if method != "least_squares":  # its looks come before its end
            assert abs(int(alone.iterations[0]) - int(together.iterations[i])) <= 1


def test_jacobian_free_is_one_step_and_labelled() -> None:
    phi, rhs, expected = contraction(4, 10, 0.4)
    adjoint = solve_adjoint(JacobianFree(), phi, rhs, AdjointSettings(tol=1e-9))
    assert not adjoint.exact
    assert adjoint.method == "jacobian-free (approximation)"
    assert torch.equal(adjoint.w, LFPI().solve(phi, rhs, AdjointSettings(max_iters=1)).w)
    expected_residual = (phi.phi.mT @ rhs.unsqueeze(-1)).squeeze(-1).norm(dim=-1) / rhs.norm(dim=-1)
    torch.testing.assert_close(adjoint.residual, expected_residual)
    torch.testing.assert_close(adjoint.history, expected_residual.unsqueeze(0))
    assert not adjoint.converged.any()
    assert relative_error(adjoint.w, expected) > 1e-3


def test_only_jacobian_free_is_an_approximation() -> None:
    assert set(METHODS) - set(EXACT) == {"jacobian_free"}


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize(("batch", "m"), [(0, 4), (3, 0)])
def test_nothing_to_solve(method: str, batch: int, m: int) -> None:
    """No instances, or no unknowns: the presolve may leave none."""
    phi, rhs = (
        Dense(torch.zeros(batch, m, m, dtype=torch.float64)),
        torch.zeros(batch, m, dtype=torch.float64),
    )
    adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings())
    assert adjoint.w.shape == (batch, m)
    assert adjoint.converged.all()


def system(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[SplittingLinearization, Tensor]:
    """Φ and ū of a layer's backward pass."""
    caught: list[tuple[SplittingLinearization, Tensor]] = []

    def listen(
        method: AdjointMethod, phi: SplittingLinearization, rhs: Tensor, settings: AdjointSettings
    ) -> AdjointSolution:
        caught.append((phi, rhs))
        return solve_adjoint(method, phi, rhs, settings)

    monkeypatch.setattr(cvxfold.gradient.adjoint, "solve_adjoint", listen)
    c = case(name)
    evaluate(make_layer(c, refine=True, engine="tensors"), c)
    return caught[-1]


@pytest.mark.parametrize("name", ["dense_qp20", "many_cones"])
def test_every_method_on_the_operator_of_a_cone_program(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Φ as a matrix, column by column, and a dense solve."""
    phi, rhs = system(monkeypatch, name)
    batch, m = rhs.shape
    columns = [phi.jvp(e.expand(batch, m)) for e in torch.eye(m, dtype=rhs.dtype)]
    expected = exact(torch.stack(columns, dim=-1), rhs)
    counts = {}
    for method in EXACT:
        adjoint = solve_adjoint(METHODS[method], phi, rhs, AdjointSettings(tol=1e-10))
        assert adjoint.converged.all(), method
        assert relative_error(adjoint.w, expected) < 1e-8, method
        counts[method] = int(adjoint.iterations.max())
    assert max(counts[n] for n in PRECONDITIONED) <= 6
    assert max(counts[n] for n in ("anderson", "bicgstab", "gmres")) <= 0.6 * counts["lfpi"]
    assert solve_adjoint(Direct(), phi, rhs, AdjointSettings()).converged.all()
