"""The promise: solutions and all parameter gradients within 1e-7 of the reference."""

import pytest
import torch

import cvxfold
from problems.cases import case, errors, evaluate, make_layer
from problems.layers import ALL
from problems.marks import long

pytestmark = pytest.mark.usefixtures("engine")

BIG = [
    "dense_qp20",
    "dense_qp100",
    "portfolio",
    "mpc",
    "robust_portfolio",
    "ball_least_squares",
    "many_cones",
]
SOLVED = cvxfold.Status.SOLVED


CASES = [(name, 8) for name in ALL] + [pytest.param(name, 64, marks=long) for name in BIG]


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_solutions_and_gradients(name: str, batch: int) -> None:
    c = case(name, batch)
    layer = make_layer(c)
    values, gradients = evaluate(layer, c)
    assert layer.report.forward.status == [SOLVED] * batch
    assert errors(values, c.values).max() < 1e-7
    assert errors(gradients, c.gradients).max() < 1e-7
    assert layer.report.backward.residual.max() <= 1e-9
    assert layer.report.backward.converged.all()


OTHERS = ["dense_qp20", "portfolio", "mpc_absolute", "ball_least_squares", "many_cones", "maximum_eigenvalue",
          "semidefinite_program", "multi_label", "power_loss", "mixture"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        pytest.param(
            name, seed, marks=long if seed > 1 or name in ("mpc_absolute", "multi_label", "mixture") else ()
        )
        for name in OTHERS
        for seed in range(1, 6)
    ],
)
def test_other_instances(name: str, seed: int) -> None:
    c = case(name, 8, seed)
    values, gradients = evaluate(make_layer(c), c)
    assert errors(values, c.values).max() < 1e-7
    assert errors(gradients, c.gradients).max() < 1e-7


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_of_the_objective_does_not_matter(scale: float) -> None:
    """The objective times a constant: the same solution, gradients for L and q divided by it."""
    c = case("dense_qp20")
    layer = make_layer(c)
    root, q, *rest = [p.clone() for p in c.params]
    params = [
        (scale**0.5 * root).requires_grad_(),
        (scale * q).requires_grad_(),
        *[p.requires_grad_() for p in rest],
    ]
    (x,) = layer(*params)
    loss = (c.weights[0] * x).sum()
    root_bar, q_bar, *rest_bar = torch.autograd.grad(loss, params)
    assert errors([x.detach()], c.values).max() < 1e-7
    assert errors([scale**0.5 * root_bar, scale * q_bar, *rest_bar], c.gradients).max() < 1e-7


def test_parameters_of_very_different_size() -> None:
    """Rows of G and h times 1e-3 … 1e3 describe the same set."""
    c = case("dense_qp20")
    layer = make_layer(c)
    root, q, G, h, A, b = [p.clone() for p in c.params]
    rows = torch.logspace(-3, 3, h.shape[1], dtype=torch.float64)
    scaled = [p.requires_grad_() for p in (root, q, rows[:, None] * G, rows * h, A, b)]
    (x,) = layer(*scaled)
    gradients = list(torch.autograd.grad((c.weights[0] * x).sum(), scaled))
    gradients[2], gradients[3] = rows[:, None] * gradients[2], rows * gradients[3]
    assert errors([x.detach()], c.values).max() < 1e-7
    assert errors(gradients, c.gradients).max() < 1e-7
