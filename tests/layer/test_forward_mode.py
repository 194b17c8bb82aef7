"""Forward mode: tangents against the reference's gradients, differences and closed forms."""

from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.cases import case
from problems.families import linear_program, minimize
from problems.layers import ALL, family_of, layer_of
from problems.marks import sliced
from problems.small_layer import data, make_layer

pytestmark = pytest.mark.usefixtures("engine")
OF_EACH_CONE = {  # a family for each
    "zero": "equality_qp_duals",
    "nonnegative": "dense_qp5_duals",
    "second-order": "many_cones_duals",
    "semidefinite": "nearest_correlation",
    "exponential": "multi_label",
    "power": "powers",
}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def pushed(function: Any, params: Any, moves: Any) -> tuple[Any, Any]:
    """Values and tangents."""
    found: Any = torch.func.jvp(function, tuple(params), tuple(moves))
    return found


def directions(params: Any, seed: int = 0) -> list[Tensor]:
    """Of length about one, symmetric where the parameters are."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for value in params:
        move = torch.randn(value.shape, dtype=value.dtype, generator=generator)
        if value.dim() == 3 and value.shape[1] == value.shape[2] and torch.equal(value, value.mT):
            move = move + move.mT
        found.append(move / max(1.0, float(move.norm())))
    return found


@pytest.mark.parametrize("name", sliced(ALL, lambda name: name not in OF_EACH_CONE.values()))
def test_products_with_the_gradients_of_the_reference(name: str) -> None:
    """⟨v, J d⟩ = ⟨Jᵀ v, d⟩ for each instance."""
    c = case(name, 4)
    layer, moves = layer_of(c.family), directions(c.params)
    _, moved = pushed(layer, c.params, moves)
    found = torch.cat([(w * m).reshape(4, -1) for w, m in zip(c.weights, moved, strict=True)], 1)
    expected = torch.cat([(g * d).reshape(4, -1) for g, d in zip(c.gradients, moves, strict=True)], 1)
    assert (found.sum(1) - expected.sum(1)).abs().max() < 1e-6 * expected.norm(dim=1).max()
    assert layer.report.backward.converged.all()


@pytest.mark.parametrize("name", OF_EACH_CONE.values(), ids=OF_EACH_CONE)
def test_differences_on_every_cone(name: str) -> None:
    family = family_of(name)
    params, layer, step = family.sample(3, 1), layer_of(family), 1e-6
    moves = directions(params, 1)
    values, moved = pushed(layer, params, moves)
    ahead, behind = (
        layer(*(p + sign * step * d for p, d in zip(params, moves, strict=True))) for sign in (1, -1)
    )
    assert max(float(tangent.abs().max()) for tangent in moved) > 1e-3
    for value, tangent, a, b in zip(values, moved, ahead, behind, strict=True):
        close((a + b) / 2, value, 1e-7)
        close(tangent, (a - b) / (2 * step), 1e-5)


def test_jacobians_and_their_maps() -> None:
    """Against reverse mode."""
    layer, (A, b) = make_layer(on_unconverged="ignore"), [value.detach() for value in data(0)]

    def solution(A: Tensor, b: Tensor) -> Tensor:
        return layer(A, b)[0]

    expected = torch.func.vmap(torch.func.jacrev(solution, (0, 1)))(A, b)
    mapped = torch.func.vmap(torch.func.jacfwd(solution, (0, 1)))(A, b)
    for found, true in zip(mapped, expected, strict=True):
        assert true.abs().max() > 0.1
        close(found, true)
    close(torch.func.jacfwd(solution, 1)(A[1], b[1]), expected[1][1])
    shared = torch.func.jacfwd(lambda A: solution(A, b))(A[0])
    close(shared, torch.func.jacrev(lambda A: solution(A, b))(A[0]))


def test_dual_numbers_and_both_modes_at_once() -> None:
    layer, (A, b) = make_layer(), data(0)
    move = torch.randn(b.shape, dtype=b.dtype, generator=torch.Generator().manual_seed(0))
    _, expected = pushed(lambda b: layer(A.detach(), b)[0], (b.detach(),), (move,))
    (gradient,) = torch.autograd.grad(layer(A, b)[0].square().sum(), b)
    with forward_ad.dual_level():
        (x,) = layer(A, forward_ad.make_dual(b, move))
        value, tangent = forward_ad.unpack_dual(x)
        assert tangent is not None
        close(tangent, expected)
    (found,) = torch.autograd.grad(value.square().sum(), b)
    close(found, gradient)
    close((gradient * move).sum(), (2 * layer(A, b)[0] * expected).sum())


def test_a_linear_program_whose_right_hand_side_moves(recwarn: pytest.WarningsRecorder) -> None:
    """x = G⁻¹h on the active rows, and its multipliers stand still: nothing is wrong with that."""
    family = linear_program(duals=True)
    c, G, h = family.sample(1, 0)
    layer = layer_of(family)
    _, y = layer(c[0], G[0], h[0])
    move = torch.randn(h.shape[1:], dtype=h.dtype, generator=torch.Generator().manual_seed(0))
    _, (dx, dy) = pushed(lambda h: layer(c[0], G[0], h), (h[0],), (move,))
    active = y > 1e-6
    close(dx, torch.linalg.solve(G[0][active], move[active]), 1e-7)
    close(dy, torch.zeros_like(dy), 1e-9)
    assert layer.report.backward.converged.all()
    assert not [each for each in recwarn if issubclass(each.category, cvxfold.ConvergenceWarning)]


def test_geometric_programs_and_complex_numbers() -> None:
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    root = CvxpyLayer(minimize(x + cp.power(x, -1) * a), [a], [x], gp=True)
    values = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    _, (moved,) = pushed(root, (values,), (torch.ones(3, dtype=torch.float64),))
    close(moved, 0.5 / values.sqrt(), 1e-7)
    z, p = cp.Variable(3, complex=True), cp.Parameter(3, complex=True)
    cost = cp.sum_squares(cp.real(z - p)) + cp.sum_squares(cp.imag(z - p))
    disc = CvxpyLayer(minimize(cost, cp.abs(z) <= 1), [p], [z])
    value, move = 2 * torch.randn(2, 5, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    _, (moved,) = pushed(disc, (value,), (move,))
    _, expected = pushed(lambda p: p / p.abs().clamp_min(1.0), (value,), (move,))
    close(moved, expected, 1e-6)


def test_instances_without_a_solution_do_not_move() -> None:
    x, a = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(minimize(cp.square(x - a), x <= 1, x >= a - 1), [a], [x], on_unsolvable="nan")
    values = torch.tensor([0.0, 3.0, 0.5], dtype=torch.float64)
    (found,), (moved,) = pushed(layer, (values,), (torch.ones(3, dtype=torch.float64),))
    assert found.isnan().tolist() == [False, True, False]
    close(moved, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), 1e-7)


def test_a_layer_first_used_inside_of_transformations_works_outside_of_them() -> None:
    """What it makes at its first use belongs to none of them."""
    layer, (A, b) = make_layer(), [value.detach() for value in data(0)]
    torch.func.vmap(torch.func.jacfwd(lambda b: layer(A[0], b)[0]))(b)
    expected = make_layer()(A, b)[0]
    close(layer(A, b)[0], expected)
    close(pushed(lambda b: layer(A, b)[0], (b,), (b,))[0], expected)


def test_single_precision() -> None:
    layer, (A, b) = make_layer(), [value.detach().float() for value in data(0)]
    _, (moved,) = pushed(layer, (A, b), (A, b))
    assert moved.dtype == torch.float32
    exact = A.double(), b.double()
    _, (expected,) = pushed(layer, exact, exact)
    close(moved.double(), expected, 1e-5)


def test_auxiliary_variables_that_are_not_unique_do_not_matter() -> None:
    """|u| ≤ v ≤ ½ leaves v free, and nobody is handed it."""
    c = case("mpc_absolute", 4)
    layer = layer_of(c.family)
    pushed(layer, c.params, directions(c.params))
    assert layer.report.backward.verdict == [cvxfold.Verdict.CONVERGED] * 4


@pytest.mark.parametrize("free", ["on a face", "unpriced", "unseen"])
@pytest.mark.parametrize("handed_out", [True, False])
def test_a_variable_that_is_not_unique_matters_where_it_is_handed_out(free: str, handed_out: bool) -> None:
    u, z, b, c = cp.Variable(2), cp.Variable(), cp.Parameter(), cp.Parameter()
    rows: list[cp.Constraint] = [z >= c]
    rows += {"on a face": [cp.sum(u) >= b, u >= 0], "unpriced": [cp.sum(u) == b, u >= -5]}.get(
        free, [z >= b - 100, 0 * u <= 1]
    )
    price = cp.sum(u) if free == "on a face" else 0
    problem = cp.Problem(cp.Minimize(cp.square(z) + price), rows)
    layer = CvxpyLayer(problem, [b, c], [u, z] if handed_out else [z], on_degenerate="ignore")
    values = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, 4.0], dtype=torch.float64)
    _, moved = pushed(layer, values, [torch.ones_like(value) for value in values])
    close(moved[-1], torch.ones_like(values[0]))
    verdict = cvxfold.Verdict.DEGENERATE if handed_out else cvxfold.Verdict.CONVERGED
    report = layer.report.backward
    assert report is not None
    assert report.verdict == [verdict] * 2
