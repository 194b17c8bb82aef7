"""The engine's methods against dense solves, scipy, and each other: convergence, safeguards, bookkeeping."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

import cvxfold.backward
from cases import case, evaluate, make_layer
from cvxfold.backward import SplittingLinearization
from cvxfold.fold import (
    GMRES,
    LFPI,
    METHODS,
    Adjoint,
    AdjointMethod,
    AdjointSettings,
    Anderson,
    BiCGSTAB,
    Direct,
    JacobianFree,
    solve_adjoint,
)
from test_fold import EXACT, Dense, contraction

ITERATIVE = ["anderson", "bicgstab", "gmres", "lfpi"]
PRECONDITIONED = [f"preconditioned_{name}" for name in ITERATIVE]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(phi: Tensor, rhs: Tensor) -> Tensor:
    """The solution of (I − Φᵀ) w = ū by a dense factorization."""
    eye = torch.eye(phi.shape[-1], dtype=phi.dtype)
    return torch.linalg.solve(eye - phi.mT, rhs.unsqueeze(-1)).squeeze(-1)


def relative_error(w: Tensor, expected: Tensor) -> float:
    return float(((w - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def rotations(batch: int, pairs: int, radius: float) -> Tensor:
    """Φ with complex spectrum: scaled rotations by random angles, in a random skewed basis."""
    generator = torch.Generator().manual_seed(7)
    phi = torch.zeros(batch, 2 * pairs, 2 * pairs, dtype=torch.float64)
    for i in range(batch):
        for j in range(pairs):
            angle = float(torch.rand(1, generator=generator)) * math.pi
            scale = radius * (j + 1) / pairs
            c, s = scale * math.cos(angle), scale * math.sin(angle)
            phi[i, 2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = torch.tensor([[c, -s], [s, c]])
    T = torch.eye(2 * pairs, dtype=torch.float64) + 0.1 * random(batch, 2 * pairs, 2 * pairs, seed=8)
    return T @ phi @ torch.linalg.inv(T)


def non_normal(batch: int, m: int) -> Tensor:
    """Φ of spectral radius 0.6 and a norm far above one: LFPI grows before it converges."""
    return torch.triu(random(batch, m, m, seed=9), 1) + 0.6 * torch.eye(m, dtype=torch.float64)


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


def test_anderson_and_gmres_refuse_to_remember_nothing() -> None:
    with pytest.raises(ValueError, match="memory"):
        Anderson(memory=0)
    with pytest.raises(ValueError, match="restart"):
        GMRES(restart=0)


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("m", [5, 12, 30])
def test_anderson_with_enough_memory_ends_after_one_more_iteration_than_unknowns(
    m: int, radius: float
) -> None:
    phi, rhs, expected = contraction(6, m, radius)
    adjoint = solve_adjoint(Anderson(memory=m), phi, rhs, AdjointSettings(tol=1e-9))
    assert (adjoint.iterations <= m + 1).all()
    assert relative_error(adjoint.w, expected) < 1e-6


def test_anderson_survives_a_nearly_singular_least_squares_problem() -> None:
    """A badly scaled and a non-normal Φ make differences that are all but dependent."""
    scale = torch.logspace(0, 3, 30, dtype=torch.float64)
    graded = contraction(3, 30, 0.95)[0].phi * scale.unsqueeze(-1) / scale
    for phi, most in ((graded, 31), (non_normal(3, 20), 30)):
        rhs = random(3, len(phi[0]), seed=2)
        adjoint = solve_adjoint(Anderson(memory=60), Dense(phi), rhs, AdjointSettings(tol=1e-10))
        assert adjoint.converged.all()
        assert (adjoint.iterations <= most).all()


def test_the_step_makes_up_for_an_inverse_of_the_wrong_size() -> None:
    phi, rhs, expected = contraction(3, 20, 0.9)
    phi.error = 1.0  # N is twice the inverse: a full step only changes the sign of the error
    for method in (LFPI(step=0.5, preconditioned=True), Anderson(step=0.5, preconditioned=True)):
        adjoint = solve_adjoint(method, phi, rhs, AdjointSettings(tol=1e-10))
        assert (adjoint.iterations <= 2).all()
        assert relative_error(adjoint.w, expected) < 1e-8


def test_gmres_gives_up_where_each_cycle_would_be_the_same() -> None:
    phi, rhs = stagnating()
    adjoint = solve_adjoint(GMRES(restart=4), phi, rhs, AdjointSettings())
    assert adjoint.iterations.tolist() == [4]
    assert not adjoint.converged.any()
    assert adjoint.residual[0] <= 1


@pytest.mark.parametrize("step", [1.0, 0.6])
def test_anderson_is_gmres_and_a_plain_step(step: float) -> None:
    """r of iteration k + 1 is (I − γS) applied to GMRES's residual of step k (Walker and Ni, theorem 2.2)."""
    phi, rhs, _ = contraction(4, 40, 0.9)
    S = torch.eye(40, dtype=torch.float64) - phi.phi.mT
    found = Anderson(memory=40, step=step).solve(phi, rhs, AdjointSettings(tol=1e-9)).history
    for k in range(1, 15):
        w = GMRES().solve(phi, rhs, AdjointSettings(tol=1e-30, max_iters=k)).w
        r = (rhs.unsqueeze(-1) - S @ w.unsqueeze(-1)).squeeze(-1)
        expected = (r - step * (S @ r.unsqueeze(-1)).squeeze(-1)).norm(dim=-1) / rhs.norm(dim=-1)
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-10)


def test_anderson_forgets_what_is_older_than_its_memory() -> None:
    """Iterate by iterate the textbook's, with its window and a least-squares solver of numpy's."""
    phi, rhs, _ = contraction(1, 25, 0.95)
    S, b = np.eye(25) - phi.phi[0].numpy().T, rhs[0].numpy()
    w, r, dw, dr, expected = np.zeros(25), b, [], [], []
    for _ in range(25):
        start, target = w, r
        if dw:
            theta = np.linalg.lstsq(np.stack(dr, 1), r, rcond=None)[0]
            start, target = w - np.stack(dw, 1) @ theta, r - np.stack(dr, 1) @ theta
        following = start + 0.8 * target
        dw, dr = [*dw, following - w][-4:], [*dr, (b - S @ following) - r][-4:]
        w, r = following, b - S @ following
        expected.append(np.linalg.norm(r) / np.linalg.norm(b))
    settings = AdjointSettings(tol=1e-30, max_iters=25)
    found = Anderson(memory=4, step=0.8).solve(phi, rhs, settings).history
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-5)


def test_acceleration_needs_far_fewer_iterations_than_lfpi() -> None:
    phi, rhs, _ = contraction(6, 60, 0.99)
    slow = solve_adjoint(LFPI(), phi, rhs, AdjointSettings(tol=1e-9))
    for method, factor in ((Anderson(), 5), (Anderson(memory=30), 15), (BiCGSTAB(), 10), (GMRES(), 20)):
        fast = solve_adjoint(method, phi, rhs, AdjointSettings(tol=1e-9))
        assert fast.converged.all()
        assert (factor * fast.iterations < slow.iterations).all()


def stagnating(m: int = 8) -> tuple[Dense, Tensor]:
    """GMRES stands still for m − 1 steps: S is a companion matrix with eigenvalues 1 − 0.9 ζ, ζᵐ = 1."""
    roots = 1 - 0.9 * np.exp(2j * np.pi * np.arange(m) / m)
    S = np.diag(np.ones(m - 1), -1)
    S[:, -1] = -np.poly(roots).real[:0:-1]
    rhs = torch.zeros(1, m, dtype=torch.float64)
    rhs[0, 0] = 1.0
    return Dense(torch.from_numpy(np.eye(m) - S.T).unsqueeze(0)), rhs


@pytest.mark.parametrize("memory", [4, 8, 20])
def test_anderson_gets_over_stagnation(memory: int) -> None:
    phi, rhs = stagnating()
    gmres = GMRES().solve(phi, rhs, AdjointSettings()).history
    torch.testing.assert_close(gmres[:7], torch.ones_like(gmres[:7]))
    adjoint = solve_adjoint(Anderson(memory), phi, rhs, AdjointSettings(max_iters=100))
    assert adjoint.converged.all()
    assert memory < 8 or adjoint.iterations[0] <= 9
    assert relative_error(adjoint.w, exact(phi.phi, rhs)) < 1e-7


@pytest.mark.parametrize("preconditioned", [False, True])
def test_bicgstab_needs_as_many_iterations_as_scipys(preconditioned: bool) -> None:
    phi, rhs, expected = contraction(4, 60, 0.9)
    phi.error = 0.0
    noise = 0.05 * random(4, 60, 60, seed=13) / 60**0.5
    S = torch.eye(60, dtype=torch.float64) - phi.phi.mT
    N = torch.linalg.inv(S) @ (torch.eye(60, dtype=torch.float64) + noise)
    other = Inverse(phi.phi, N)
    adjoint = solve_adjoint(BiCGSTAB(preconditioned), other, rhs, AdjointSettings(tol=1e-8))
    assert relative_error(adjoint.w, expected) < 1e-5
    for i in range(4):
        counted: list[Any] = []
        M = N[i].numpy() if preconditioned else None
        _, info = scipy.sparse.linalg.bicgstab(
            S[i].numpy(), rhs[i].numpy(), rtol=1e-8, atol=0.0, M=M, callback=counted.append
        )
        assert info == 0
        assert abs(int(adjoint.iterations[i]) - len(counted)) <= 2


def test_gmres_needs_as_many_iterations_as_scipys() -> None:
    phi, rhs, _ = contraction(4, 60, 0.9)
    adjoint = solve_adjoint(GMRES(), phi, rhs, AdjointSettings(tol=1e-8))
    for i in range(4):
        counted: list[Any] = []
        S = np.eye(60) - phi.phi[i].numpy().T
        scipy.sparse.linalg.gmres(
            S, rhs[i].numpy(), rtol=1e-8, restart=60, callback=counted.append, callback_type="pr_norm"
        )
        assert abs(int(adjoint.iterations[i]) - len(counted)) <= 1


@dataclass
class Inverse(Dense):
    """Φ with its approximate inverse given as a matrix."""

    inverse: Tensor = field(default_factory=lambda: torch.empty(0))

    def __init__(self, phi: Tensor, inverse: Tensor) -> None:
        super().__init__(phi)
        self.inverse = inverse

    def solve(self, r: Tensor) -> Tensor:
        return (self.inverse @ r.unsqueeze(-1)).squeeze(-1)

    def take(self, index: Tensor) -> "Inverse":
        return Inverse(self.phi[index], self.inverse[index])


def orthogonal_start() -> tuple[Dense, Tensor]:
    """⟨r, S r⟩ = 0 at the start: BiCGSTAB's α and ω both break down."""
    S = torch.tensor([[[0.5, -1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.9]]], dtype=torch.float64)
    rhs = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    return Dense(torch.eye(3, dtype=torch.float64) - S.mT), rhs


def test_bicgstab_restarts_after_a_breakdown_and_leaves_the_others_alone() -> None:
    broken, rhs = orthogonal_start()
    sound, others, _ = contraction(2, 3, 0.8)
    phi, rhs = Dense(torch.cat([sound.phi, broken.phi])), torch.cat([others, rhs])
    adjoint = solve_adjoint(BiCGSTAB(), phi, rhs, AdjointSettings(tol=1e-11))
    assert adjoint.converged.all()
    assert adjoint.history[0, 2] == 1, "the first iteration got nowhere"
    assert relative_error(adjoint.w, exact(phi.phi, rhs)) < 1e-9
    alone = solve_adjoint(BiCGSTAB(), sound, others, AdjointSettings(tol=1e-11))
    assert torch.equal(alone.iterations, adjoint.iterations[:2])


def test_bicgstab_gets_over_stagnation() -> None:
    phi, rhs = stagnating()
    adjoint = solve_adjoint(BiCGSTAB(), phi, rhs, AdjointSettings(tol=1e-9, max_iters=200))
    assert adjoint.converged.all()
    assert relative_error(adjoint.w, exact(phi.phi, rhs)) < 1e-6


def test_bicgstab_corrects_a_residual_that_drifted() -> None:
    """A product that was wrong once makes the recurrences false; only true residuals reveal it."""
    phi, rhs, expected = contraction(2, 20, 0.9)

    class Glitch(Dense):
        def vjp(self, w: Tensor) -> Tensor:
            product = super().vjp(w)
            return product + 0.1 * w if len(self.products) == 5 else product

    adjoint = solve_adjoint(BiCGSTAB(), Glitch(phi.phi), rhs, AdjointSettings(tol=1e-10))
    assert adjoint.converged.all()
    assert relative_error(adjoint.w, expected) < 1e-7


@pytest.mark.parametrize("method", [Anderson(), BiCGSTAB()])
@pytest.mark.parametrize("factor", [1e40, math.inf, math.nan])
def test_a_residual_out_of_hand_leads_back_to_the_best_iterate(method: AdjointMethod, factor: float) -> None:
    phi, rhs, expected = contraction(2, 20, 0.9)

    class Overflow(Dense):
        def vjp(self, w: Tensor) -> Tensor:
            product = super().vjp(w)
            if len(self.products) == 5:
                product[1] *= factor
            return product

    settings = AdjointSettings(tol=1e-10, max_iters=200)
    adjoint = solve_adjoint(method, Overflow(phi.phi), rhs, settings)
    assert adjoint.converged.all()
    assert relative_error(adjoint.w, expected) < 1e-7


@pytest.mark.parametrize("method", ["anderson", "bicgstab", "preconditioned_bicgstab"])
def test_the_best_iterate_is_returned(method: str) -> None:
    """On non-normal matrices the residual goes up and down; what is returned is the best that was seen."""
    phi, rhs = Dense(non_normal(6, 16), error=0.5), random(6, 16, seed=15)
    worse = False
    for limit in range(1, 26):
        settings = AdjointSettings(tol=1e-8, max_iters=limit)
        adjoint = solve_adjoint(METHODS[method], phi, rhs, settings)
        seen = adjoint.history.nan_to_num(nan=math.inf).amin(0).clamp_max(1.0)
        assert (adjoint.residual <= 1.01 * seen + 1e-9).all()
        worse |= bool((adjoint.history[-1] > 2 * seen).any() and (seen < 0.99).any())
    assert worse or "preconditioned" in method, "the last iterate is not always the best"


def test_bicgstab_reports_true_residuals_when_it_looks() -> None:
    """The updated residual of these claims 1e-16 after the first iteration; rounding allows 1e-10 at best."""
    phi = Dense(4 * torch.triu(random(6, 20, 20, seed=14), 1) / 3 + 0.6 * torch.eye(20, dtype=torch.float64))
    phi.error = 0.5
    settings = AdjointSettings(tol=1e-13, max_iters=2)
    adjoint = solve_adjoint(BiCGSTAB(preconditioned=True), phi, random(6, 20, seed=15), settings)
    assert not adjoint.converged.any()
    last = adjoint.history.gather(0, (adjoint.iterations - 1).unsqueeze(0)).squeeze(0)
    torch.testing.assert_close(last, adjoint.residual, rtol=1e-2, atol=0)


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
    ) -> Adjoint:
        caught.append((phi, rhs))
        return solve_adjoint(method, phi, rhs, settings)

    monkeypatch.setattr(cvxfold.backward, "solve_adjoint", listen)
    c = case(name)
    evaluate(make_layer(c, refine=True), c)
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
