"""The plugin in cvxpylayers' own layers, against the reference and against our layer."""

import pickle
from typing import Any

import cvxpy as cp
import pytest
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as Upstream

import cvxfold
from cvxfold import FoldedSolver, InfeasibleError
from problems.cases import case, evaluate
from problems.families import FAMILIES, Family, dense_qp
from problems.layers import IN_PLUGINS, layer_of, upstream_of

pytestmark = pytest.mark.usefixtures("engine")


def upstream(family: Family, solver: Any = None) -> Any:
    return upstream_of(family, solver or FoldedSolver())


@pytest.mark.parametrize("name", IN_PLUGINS)
def test_torch_layer_agrees_with_the_reference(name: str) -> None:
    c, solver = case(name, 4, 3), FoldedSolver()
    values, gradients = evaluate(upstream(c.family, solver), c)
    for ours, theirs in zip(values, c.values, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)
    for ours, theirs in zip(gradients, c.gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert solver.report is not None
    assert solver.report.backward is not None
    assert (solver.report.backward.residual < 1e-9).all()


def test_one_instance_and_a_shared_parameter() -> None:
    family = FAMILIES["dense_qp5"]()
    params = family.sample(3, 0)
    layer = upstream(family)
    (batched,) = layer(params[0][0], *params[1:])
    assert batched.shape == (3, 5)
    (single,) = layer(*(p[0] for p in params))
    torch.testing.assert_close(single, batched[0], rtol=1e-9, atol=1e-10)


def test_gradcheck_through_the_torch_layer() -> None:
    family = dense_qp(3)
    params = tuple(p.requires_grad_() for p in family.sample(2, 1))
    assert torch.autograd.gradcheck(upstream(family), params, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_float32_gradients_keep_their_dtype() -> None:
    family = FAMILIES["portfolio_mu"]()
    (mu,) = (p.float().requires_grad_() for p in family.sample(2, 1))
    (w,) = upstream(family)(mu)
    w.double().square().sum().backward()
    assert mu.grad is not None
    assert mu.grad.dtype == torch.float32


def test_one_solver_serves_several_layers() -> None:
    solver = FoldedSolver()
    families = [FAMILIES[name]() for name in ("dense_qp5", "least_absolute", "portfolio_mu")]
    layers = [upstream(family, solver) for family in families]
    for family, layer in [*zip(families, layers, strict=True)] * 2:
        params = family.sample(2, 2)
        (ours,) = layer_of(family)(*params)
        torch.testing.assert_close(layer(*params)[0], ours, rtol=1e-9, atol=1e-10)


def test_a_pickled_layer_solves() -> None:
    family = FAMILIES["dense_qp5"]()
    params = family.sample(2, 2)
    layer = upstream(family)
    expected = layer(*params)[0]
    copied = pickle.loads(pickle.dumps(layer))
    torch.testing.assert_close(copied(*params)[0], expected, rtol=1e-9, atol=1e-10)


def test_errors_reach_the_user() -> None:
    x, a = cp.Variable(), cp.Parameter()
    layer = Upstream(cp.Problem(cp.Minimize(x), [x >= a, x <= 0]), [a], [x], solver=FoldedSolver())
    with pytest.raises(InfeasibleError, match=r"\[1\]"):
        layer(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="NaN"):
        layer(torch.tensor([float("nan")], dtype=torch.float64))
    with pytest.raises(ValueError, match="epz"):
        layer(torch.tensor(-1.0, dtype=torch.float64), solver_args={"epz": 1e-3})
    with pytest.raises(ValueError, match="backward"):
        FoldedSolver(backward="newton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="constructor"):
        FoldedSolver().solve_torch_batch(None, torch.ones(1, 2), torch.ones(1, 2), None, {}, False)


def test_call_options_are_honoured() -> None:
    family = FAMILIES["portfolio_mu"]()
    solver = FoldedSolver(refine=False)
    params = family.sample(2, 0)
    upstream(family, solver)(*params, solver_args={"eps": 1e-3})
    assert solver.report is not None
    loose = solver.report.forward.iterations.max()
    upstream(family, solver)(*params, solver_args={"eps": 1e-9})
    assert solver.report.forward.iterations.max() > loose


def test_another_forward_solver_in_the_plugin() -> None:
    family = FAMILIES["many_cones_duals"]()
    params = family.sample(3, 1)
    ours = layer_of(family)(*params)
    for found, expected in zip(upstream(family, FoldedSolver(solver="CLARABEL"))(*params), ours, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_the_name_is_public() -> None:
    assert cvxfold.FoldedSolver is FoldedSolver
