"""Anderson acceleration, GMRES and BiCGSTAB against scipy, numpy and each other: counts and safeguards."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from cvxfold.fold import (
    GMRES,
    LFPI,
    METHODS,
    AdjointMethod,
    AdjointSettings,
    Anderson,
    BiCGSTAB,
    solve_adjoint,
)
from problems.fixed_points import Dense, Inverse, contraction, exact, non_normal, random, relative_error


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
