"""The scripts of examples/paper, small: each shows what docs/fold.md says it shows."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from problems.marks import long

pytest.importorskip("matplotlib")

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "paper"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script as a module."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    return import_module(name)


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a script with --quick; what its main returns."""
    picture = folder / f"{name}.png"
    found = script(name, monkeypatch).main(["--quick", "--output", str(picture)])
    assert picture.stat().st_size > 5_000
    assert json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))["about"]["quick"]
    return found


@long
def test_updates_differ_in_their_rates_and_not_in_their_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run("which_update", tmp_path, monkeypatch)
    assert len(rows) == 7
    assert all(row["differs by"] < 1e-6 for row in rows)
    assert all(row["gmres"] < row["lfpi"] for row in rows)
    assert max(row["lfpi"] for row in rows) > 5 * min(row["lfpi"] for row in rows)


@long
def test_the_folded_step_trains_like_the_cone_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    courses = run("portfolio", tmp_path, monkeypatch)
    folded, layer = courses["folded SQP"], courses["cvxfold layer"]
    assert folded.gradient_error < 1e-4
    assert folded.score[-1] < folded.score[0]
    assert folded.score[-1] == pytest.approx(layer.score[-1], rel=1e-3)
    assert folded.bytes < courses["unrolled SQP"].bytes


@long
def test_folded_steps_have_the_gradient_that_unrolled_ones_tend_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    found = run("multilabel", tmp_path, monkeypatch)
    for name in ("cvxfold layer", "folded PGD, GMRES", "folded SQP, GMRES"):
        assert found[name].gradient_error < 1e-6, name
    assert found["folded PGD, LFPI"].gradient_error > 1e-3  # 50 steps of 1e-3
    assert found["unrolled PGD"].gradient_error == pytest.approx(
        found["folded PGD, LFPI"].gradient_error, rel=0.05
    )
    assert found["folded PGD, GMRES"].bytes < found["unrolled PGD"].bytes / 2
    assert found["folded PGD, GMRES"].score[-1] > found["folded PGD, GMRES"].score[0]


def stationarity(slope: torch.Tensor, A: torch.Tensor, G: torch.Tensor, room: torch.Tensor) -> float:
    """How far −∇f is from the normal cone of {Ay = x, Gy ≤ h} at a point, by nonnegative least squares."""
    binding = G[room < 1e-6].numpy()
    rows = np.concatenate([A.numpy(), -A.numpy(), binding])
    return float(nnls(rows.T, -slope.numpy())[1])


def test_the_interior_point_method_ends_at_points_that_satisfy_the_conditions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = script("nonconvex_qp", monkeypatch)
    program = module.Program.drawn(10, 3, 6, 0)
    p = 6 * torch.rand(8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 3
    x = 2 * torch.rand(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1
    y = program.solve(p, x)
    room = program.h - y @ program.G.mT
    assert (y @ program.A.mT - x).abs().max() < 1e-10
    assert room.min() > -1e-10
    assert (room < 1e-6).any()
    slope, curvature = program.slopes(y, p)
    assert (curvature < 0).any()  # the program is not convex there
    for one in range(len(y)):
        assert stationarity(slope[one], program.A, program.G, room[one]) < 1e-7


def test_the_best_pair_of_vertices_is_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("bilinear", monkeypatch)
    program = module.Program.drawn(5, 2, 0.6, 0)
    p = torch.rand(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    vertices = program.vertices
    every = torch.cat([vertices.repeat_interleave(len(vertices), 0), vertices.repeat(len(vertices), 1)], -1)
    least = torch.stack([program.value(every, one.expand_as(every)).min() for one in p])
    torch.testing.assert_close(program.value(program.decide(p), p), least)


@pytest.mark.parametrize("name", ["nonconvex_qp", "bilinear"])
def test_gradients_at_nonconvex_decisions_are_those_of_differences(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script(name, monkeypatch)
    generator = torch.Generator().manual_seed(0)
    if name == "bilinear":
        program, known = module.Program.drawn(5, 2, 0.6, 0), ()
        update = module.ProjectedGradient(program.objective, program.project, module.STEP)
        p = 2 * torch.rand(5, 10, dtype=torch.float64, generator=generator) - 1
    else:
        program = module.Program.drawn(8, 4, 4, 0)
        update = module.step(program)
        p = 2 * torch.rand(5, 8, dtype=torch.float64, generator=generator) - 1
        known = (2 * torch.rand(5, 4, dtype=torch.float64, generator=generator) - 1,)
    bar = torch.randn(p.shape, dtype=p.dtype, generator=generator)
    direction = torch.randn(p.shape, dtype=p.dtype, generator=generator)
    up, down = (program.solve(p + side * 1e-6 * direction, *known) for side in (1, -1))
    slope = float((bar * (up - down)).sum() / 2e-6)
    assert abs(slope) > 1e-2
    p.requires_grad_()
    layers = module.layers(program, update)
    found = {
        which: float((torch.autograd.grad((bar * layers[which](p, *known)).sum(), p)[0] * direction).sum())
        for which in ("implicit, KKT", "folded PGD, GMRES", "folded PGD, 10 LFPI", "unrolled PGD, 10 from y*")
    }
    assert found["implicit, KKT"] == pytest.approx(slope, rel=1e-5)
    assert found["folded PGD, GMRES"] == pytest.approx(found["implicit, KKT"], rel=1e-7)
    assert found["unrolled PGD, 10 from y*"] == pytest.approx(found["folded PGD, 10 LFPI"], rel=1e-7)
    assert found["folded PGD, 10 LFPI"] != pytest.approx(slope, rel=1e-2)  # ten steps of a rate near 1


def test_the_closed_form_of_denoising_has_the_gradient_of_differences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("sklearn")
    module = script("denoising", monkeypatch)
    clean, noisy = module.signals("china.jpg", 4, 12, 0)
    generator = torch.Generator().manual_seed(0)
    D = module.differences(12) + 0.1 * torch.randn(11, 12, dtype=torch.float64, generator=generator)
    direction = torch.randn(D.shape, dtype=D.dtype, generator=generator)

    def error(D: torch.Tensor) -> float:
        x = cp.Variable(noisy.shape)
        penalty = module.WEIGHT * cp.sum(cp.abs(x @ D.T.numpy()))
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - noisy.numpy()) + penalty))
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
        return float(((x.value - clean.numpy()) ** 2).mean())

    slope = (error(D + 1e-5 * direction) - error(D - 1e-5 * direction)) / 2e-5
    truth = module.exact_gradient(noisy, clean, D)
    assert float((truth * direction).sum()) == pytest.approx(slope, rel=1e-4)
    D.requires_grad_()
    layers = module.layers(12)
    for name in ("folded FDPG, GMRES", "folded ADMM, GMRES"):
        (found,) = torch.autograd.grad((layers[name](noisy, D) - clean).square().mean(), D)
        assert (found - truth).norm() < 1e-6 * truth.norm(), name


@long
@pytest.mark.parametrize("name", ["nonconvex_qp", "bilinear"])
def test_nonconvex_decisions_are_folded_exactly_where_unrolling_is_not_exact(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = run(name, tmp_path, monkeypatch)
    courses, regrets = contest.courses, contest.regrets
    assert contest.differences < 1e-5
    assert courses["folded PGD, GMRES"].gradient_error < 1e-8
    assert 0.9 < contest.rho.median() < 1
    assert courses["folded PGD, 10 LFPI"].gradient_error > 0.1
    assert courses["folded PGD, 10 LFPI"].bytes < courses["unrolled PGD, 10 from y*"].bytes
    assert regrets["folded PGD, GMRES"] == pytest.approx(regrets["implicit, KKT"], rel=1e-3)
    assert regrets["folded PGD, GMRES"] < 1.1 * regrets["two-stage"]


@long
def test_the_learned_operator_denoises_better_than_total_variation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    courses = run("denoising", tmp_path, monkeypatch)
    for name in ("cvxfold layer", "folded FDPG, LFPI", "folded FDPG, GMRES", "folded ADMM, GMRES"):
        assert courses[name].gradient_error < 1e-6, name
        assert courses[name].score[-1] < courses[name].score[0], name
    assert courses["folded FDPG, LFPI"].bytes < courses["unrolled FDPG, 100 from 0"].bytes / 2
    assert courses["folded ADMM, GMRES"].iterations < courses["folded FDPG, LFPI"].iterations
