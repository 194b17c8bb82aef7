"""The seam: solutions and adjoints in the program's own units, whichever engine found them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cvxfold.engines.choose import engine_for
from cvxfold.engines.protocol import Solution, SolveRequest
from cvxfold.engines.settings import ForwardSettings
from cvxfold.fold import GMRES, AdjointSettings, Direct
from cvxfold.gradient.adjoint import check, fold
from cvxfold.layer.backward import differentiate
from cvxfold.problem.program import Program
from cvxfold.torch import CvxpyLayer
from problems.cases import case, make_layer

pytestmark = pytest.mark.usefixtures("engine")

NAMES = ["dense_qp20", "portfolio", "mpc", "many_cones_duals", "log_sum_exp", "powers_duals"]
NAMES += ["semidefinite_program_duals"]
F64 = torch.float64


def solved(name: str, batch: int = 4) -> tuple[CvxpyLayer, Program, Solution]:
    """A family's program and its solution by a new engine."""
    c = case(name, batch)
    layer = make_layer(c)
    _, values, _ = layer.program(*c.params)
    program = Program(layer.session.entries, values, batch)
    return layer, program, engine_for(program.entries).solve(program, SolveRequest(ForwardSettings()))


def dense(program: Program, i: int) -> tuple[np.ndarray, ...]:
    """P, q, A and b of an instance."""
    s, values = program.structure, [v[i if len(v) > 1 else 0].numpy() for v in program.values]
    P, A, b = np.zeros((s.n, s.n)), np.zeros((s.m, s.n)), np.zeros(s.m)
    np.add.at(P, tuple(s.P_entries), values[0])
    np.add.at(A, tuple(s.A_entries), values[2])
    b[s.b_entries] = values[3]
    return 0.5 * (P + P.T), values[1], A, b


def bars(program: Program, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch, structure = program.batch, program.structure
    x_bar, y_bar = (
        torch.randn(batch, size, dtype=F64, generator=generator) for size in (structure.n, structure.m)
    )
    return x_bar, y_bar


@pytest.mark.parametrize("name", NAMES)
def test_a_solution_satisfies_the_optimality_conditions_of_the_program(name: str) -> None:
    _, program, found = solved(name)
    for i in range(program.batch):
        P, q, A, b = dense(program, i)
        x, y, s = (v[i].numpy() for v in (found.x, found.y, found.s))
        scale = 1 + max(np.abs(v).max() for v in (q, b, A @ x, A.T @ y))
        assert np.abs(A @ x + s - b).max() < 1e-9 * scale
        assert np.abs(P @ x + q + A.T @ y).max() < 1e-9 * scale
        assert abs(s @ y) < 1e-8 * scale * (1 + np.abs(x).max())


@pytest.mark.parametrize("name", NAMES)
def test_an_adjoint_solves_the_first_row_of_the_transposed_system(name: str) -> None:
    _, program, found = solved(name)
    engine = engine_for(program.entries)
    x_bar, y_bar = bars(program)
    adjoint, _ = engine.differentiate(found, x_bar, 0 * y_bar, AdjointSettings())
    for i in range(program.batch):
        P, _, A, _ = dense(program, i)
        p, v = adjoint.p[i].numpy(), adjoint.v[i].numpy()
        size = max(np.abs(t).max() for t in (x_bar[i].numpy(), P @ p, A.T @ v))
        assert np.abs(P @ p + A.T @ v - x_bar[i].numpy()).max() < 1e-9 * size


def test_the_check_sees_what_an_engine_gets_wrong() -> None:
    """Whatever the engine's own residual: (p, v) is held against the stored entries of the program."""
    _, program, found = solved("dense_qp20")
    x_bar, y_bar = bars(program)
    adjoint, _ = engine_for(program.entries).differentiate(found, x_bar, y_bar, AdjointSettings())
    no = torch.zeros_like(x_bar[:, 0])
    assert check(program, None, adjoint.p, adjoint.v, x_bar, no)[1].max() < 1e-12
    wrong = adjoint.p.clone()
    wrong[2] *= 1 + 1e-6
    assert (check(program, None, wrong, adjoint.v, x_bar, no)[1] > 1e-9).tolist() == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["dense_qp20", "portfolio", "many_cones_duals"])
def test_the_check_sees_what_is_wrong_where_the_loss_looks_at_multipliers_alone(name: str) -> None:
    """A millionth of the terms that they bring in, in the units of the program."""
    _, program, found = solved(name)
    phi = engine_for(program.entries).linearize(found)
    x_bar, y_bar = bars(program)
    adjoint = fold(phi, 0 * x_bar, y_bar, Direct(), AdjointSettings())
    by_duals = adjoint.remainder.by_duals
    assert check(program, None, adjoint.p, adjoint.v, 0 * x_bar, by_duals)[1].max() < 1e-12
    for wrong in ((adjoint.p, 1e-6 * phi.alone(adjoint.system.w)), (1e-6 * adjoint.p, adjoint.v)):
        p, v = (
            (adjoint.p + wrong[0], adjoint.v) if wrong[1] is adjoint.v else (adjoint.p, adjoint.v + wrong[1])
        )
        assert (check(program, None, p, v, 0 * x_bar, by_duals)[1] > 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [Direct(), GMRES(preconditioned=True)], ids=["direct", "gmres"])
def test_a_solution_of_unknown_origin_is_differentiated_alike(name: str, method: Any) -> None:
    """From x, y and s alone, by an engine that has never seen the program."""
    _, program, found = solved(name)
    foreign = replace(found, kept=None, engine="another")
    own, other = (
        differentiate(engine_for(program.entries), one, bars(program), method, AdjointSettings())
        for one in (found, foreign)
    )
    for mine, theirs in ((own.p, other.p), (own.v, other.v)):
        torch.testing.assert_close(theirs, mine, rtol=1e-6, atol=1e-7 * float(mine.abs().max()))
    assert other.record.verdict == own.record.verdict


def test_a_proximal_term_is_known_to_the_check() -> None:
    """The conditions of the gradient are those of P + εI on what presolve leaves."""
    c = case("dense_qp20", 3)
    layer = make_layer(c)
    _, values, _ = layer.program(*c.params)
    program = Program(layer.session.entries, values, 3)
    engine = engine_for(program.entries)
    found = engine.solve(program, SolveRequest(ForwardSettings(), proximal=0.1))
    phi = engine.linearize(found)
    assert phi.proximal is not None
    adjoint = fold(phi, *bars(program), Direct(), AdjointSettings())
    assert adjoint.residual.max() < 1e-12
    no = torch.zeros_like(adjoint.residual)
    assert check(program, None, adjoint.p, adjoint.v, bars(program)[0], no)[1].min() > 1e-6


def test_proximal_terms_of_two_weights_are_not_mistaken_for_each_other() -> None:
    """What an engine keeps of a solution serves the weight that it was made for."""
    _, program, found = solved("dense_qp20")
    engine, (x_bar, y_bar) = engine_for(program.entries), bars(program)
    small, large = (  # p = (P + εI)⁻¹x̄ on the free directions falls like 1/ε
        engine.differentiate(replace(found, proximal=epsilon), x_bar, 0 * y_bar, AdjointSettings())[0].p
        for epsilon in (1e-3, 1e3)
    )
    assert (large.norm(dim=-1) < 0.01 * small.norm(dim=-1)).all()


@pytest.mark.parametrize("name", ["dense_qp20", "portfolio", "many_cones_duals"])
def test_instances_can_be_taken_out_of_a_solution(name: str) -> None:
    _, program, found = solved(name)
    engine, rows = engine_for(program.entries), torch.tensor([2, 0])
    x_bar, y_bar = bars(program)
    whole, _ = engine.differentiate(found, x_bar, y_bar, AdjointSettings())
    part, _ = engine.differentiate(found.take(rows), x_bar[rows], y_bar[rows], AdjointSettings())
    torch.testing.assert_close(part.p, whole.p[rows], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(part.v, whole.v[rows], rtol=1e-9, atol=1e-11)
