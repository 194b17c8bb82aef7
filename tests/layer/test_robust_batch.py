"""One bad instance costs nobody else anything: NaN and a zero gradient for it; the rest do not notice."""

import warnings
from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import pytest
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

import cvxfold
from cvxfold.torch import CvxpyLayer
from problems.cases import said
from problems.families import minimize

pytestmark = pytest.mark.usefixtures("engine")

F64 = torch.float64
INFEASIBLE, UNBOUNDED, INVALID, DEGENERATE = 3, 10, 20, 30
BAD = [INFEASIBLE, UNBOUNDED, INVALID, DEGENERATE]


def _problem(cone: bool) -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """½‖x₁…x₃‖² + qᵀx over a box, rows Ax ≤ b that alone hold x₆, and, if wanted, a ball."""
    x = cp.Variable(6)
    q, A, b = cp.Parameter(6), cp.Parameter((4, 6)), cp.Parameter(4)
    rows = [A @ x <= b, x[:5] >= -5, x[:5] <= 5]
    if cone:
        rows.append(cp.norm(x[:3]) <= 2)
    return minimize(0.5 * cp.sum_squares(x[:3]) + q @ x, *rows), [q, A, b], x


def _data(seed: int = 0, batch: int = 64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, 6, dtype=F64, generator=generator)
    A = torch.randn(batch, 4, 6, dtype=F64, generator=generator)
    b = 1 + torch.rand(batch, 4, dtype=F64, generator=generator)
    A[:, :2] = 0
    A[:, 0, 5], A[:, 1, 5] = 1, -1
    return [q, A, b]


def _spoiled(data: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    q, A, b = (value.clone() for value in data)
    b[INFEASIBLE, 0], b[INFEASIBLE, 1] = -2, 1  # x₆ ≤ −2 and x₆ ≥ −1
    A[UNBOUNDED, 0, 5], A[UNBOUNDED, 2:, 5], q[UNBOUNDED, 5] = 0, 0, -1
    q[INVALID, 2] = torch.nan
    q[DEGENERATE] = 0  # x₄ to x₆ are anywhere
    return [q, A, b]


def _run(
    layer: Any, data: Sequence[torch.Tensor], weight: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    values = [value.clone().requires_grad_() for value in data]
    (x,) = layer(*values)
    return x.detach(), list(torch.autograd.grad(x, values, grad_outputs=weight))


@pytest.mark.parametrize("cone", [False, True], ids=["qp", "socp"])
@pytest.mark.parametrize("options", [{}, {"solver": "CLARABEL"}, {"rescue": False}], ids=str)
def test_the_other_sixty_do_not_notice(cone: bool, options: dict[str, Any]) -> None:
    problem, parameters, x = _problem(cone)
    layer = CvxpyLayer(problem, parameters, [x], on_unsolvable="nan", on_unconverged="ignore", **options)
    data, weight = _data(), torch.randn(64, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected, expected_gradients = _run(layer, data, weight)
    found, gradients = _run(layer, _spoiled(data), weight)
    rest = [i for i in range(64) if i not in BAD]
    for a, b in zip([found, *gradients], [expected, *expected_gradients], strict=True):
        torch.testing.assert_close(a[rest], b[rest], rtol=1e-10, atol=1e-10)
    report = layer.report
    assert report is not None
    assert report.backward is not None
    statuses = [str(report.forward.status[i]) for i in BAD]
    assert statuses == ["infeasible", "unbounded", "invalid", "solved"]
    verdicts = [str(report.backward.verdict[i]) for i in BAD]
    assert verdicts == ["no solution", "no solution", "no solution", "degenerate"]
    assert found[BAD[:3]].isnan().all()
    assert found[DEGENERATE].isfinite().all()
    for gradient in gradients:
        assert (gradient[BAD[:3]] == 0).all()
        assert gradient.isfinite().all()
    assert (report.forward.certificate[BAD[:2]] <= 1e-7).all()
    assert report.forward.certificate[[*rest, *BAD[2:]]].isnan().all()


def test_a_shared_parameter_gets_the_gradient_of_the_others() -> None:
    problem, parameters, x = _problem(cone=False)
    layer = CvxpyLayer(problem, parameters, [x], on_unsolvable="nan", on_unconverged="ignore")
    q, A, b = _spoiled(_data())
    q[INVALID] = 0  # q is shared below
    A[INVALID, 2, 2] = torch.inf
    shared = torch.full((6,), 0.1, dtype=F64, requires_grad=True)
    weight = torch.randn(64, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    (out,) = layer(shared, A, b)
    good = ~out.isnan().any(1)
    assert (~good).nonzero().squeeze(-1).tolist() == [INFEASIBLE, INVALID]
    (found,) = torch.autograd.grad(out, shared, grad_outputs=weight)
    (alone,) = layer(shared, A[good], b[good])
    (expected,) = torch.autograd.grad(alone, shared, grad_outputs=weight[good])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_raise_names_the_instances() -> None:
    problem, parameters, x = _problem(cone=False)
    layer = CvxpyLayer(problem, parameters, [x])
    data = _spoiled(_data())
    with pytest.raises(ValueError, match="NaN or infinity") as invalid:
        layer(*data)
    said(invalid, "20")
    data[0][INVALID] = 0
    with pytest.raises(cvxfold.InfeasibleError) as error:
        layer(*data)
    assert error.value.indices == [INFEASIBLE]
    said(error, "3", "10")


@pytest.mark.parametrize("unbatched", [False, True])
def test_nothing_but_invalid_instances(unbatched: bool) -> None:
    problem, parameters, x = _problem(cone=False)
    layer = CvxpyLayer(problem, parameters, [x], on_unsolvable="nan")
    q, A, b = _data(batch=3)
    q = torch.full((6,) if unbatched else (3, 6), torch.nan, dtype=F64).requires_grad_()
    (out,) = layer(q, A, b)
    assert out.shape == (3, 6)
    assert out.isnan().all()
    out.nansum().backward()
    assert q.grad is not None
    assert (q.grad == 0).all()
    assert layer.report is not None
    assert [str(status) for status in layer.report.forward.status] == ["invalid"] * 3
    assert "3 invalid" in str(layer.report)


def test_values_outside_of_the_declared_set_are_invalid() -> None:
    x, width = cp.Variable(2), cp.Parameter(2, nonneg=True)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - 1), x <= width), [width], [x], on_unsolvable="nan")
    (out,) = layer(torch.tensor([[0.5, 0.5], [0.5, -1.0]], dtype=F64))
    torch.testing.assert_close(out[0], torch.full((2,), 0.5, dtype=F64))
    assert out[1].isnan().all()


def test_geometric_programs() -> None:
    x, c = cp.Variable(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(x + c / x))
    layer = CvxpyLayer(problem, [c], [x], gp=True, on_unsolvable="nan")
    value = torch.tensor([4.0, -1.0, 9.0], dtype=F64, requires_grad=True)
    (out,) = layer(value)
    torch.testing.assert_close(out[[0, 2]], torch.tensor([2.0, 3.0], dtype=F64))
    assert out[1].isnan()
    (gradient,) = torch.autograd.grad(out.nansum(), value)
    torch.testing.assert_close(gradient, torch.tensor([0.25, 0.0, 1 / 6], dtype=F64))


def test_under_vmap_and_unrolled() -> None:
    problem, parameters, x = _problem(cone=False)
    data = _spoiled(_data())
    data[0][INVALID] = 0
    folded, other = (
        CvxpyLayer(problem, parameters, [x], on_unsolvable="nan", on_unconverged="ignore") for _ in range(2)
    )
    (expected,) = folded(*data)
    (mapped,) = torch.func.vmap(other)(*data)  # where x is not unique it depends on what a layer remembers
    torch.testing.assert_close(mapped, expected, equal_nan=True, rtol=1e-9, atol=1e-9)
    unrolled = CvxpyLayer(
        problem, parameters, [x], on_unsolvable="nan", on_unconverged="ignore", backward="unrolled"
    )
    values = [value.clone().requires_grad_() for value in data]
    (out,) = unrolled(*values)
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(out.nansum(), values)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all((gradient[[INFEASIBLE, UNBOUNDED]] == 0).all() for gradient in gradients)


def test_in_an_upstream_layer() -> None:
    problem, parameters, x = _problem(cone=False)
    solver = cvxfold.FoldedSolver(on_unsolvable="nan", on_unconverged="ignore")
    layer = UpstreamLayer(problem, parameters, [x], solver=solver)
    data, weight = _data(), torch.ones(64, 6, dtype=F64)
    expected, expected_gradients = _run(layer, data, weight)
    found, gradients = _run(layer, _spoiled(data), weight)
    rest = [i for i in range(64) if i not in BAD]
    for a, b in zip([found, *gradients], [expected, *expected_gradients], strict=True):
        torch.testing.assert_close(a[rest], b[rest], rtol=1e-9, atol=1e-9)
    assert found[BAD[:3]].isnan().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_reports_and_summaries_count_them() -> None:
    problem, parameters, x = _problem(cone=False)
    layer = CvxpyLayer(problem, parameters, [x], on_unsolvable="nan")
    with cvxfold.Monitor(layer) as monitor, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _run(layer, _spoiled(_data()), torch.ones(64, 6, dtype=F64))
    assert layer.report is not None
    numbers, summary = layer.report.to_dict(), monitor.to_dict()
    for flat in (numbers, summary):
        assert flat["forward/infeasible"] == flat["forward/unbounded"] == flat["forward/invalid"] == 1
        assert flat["verdict/no_solution"] == 3
        assert flat["verdict/degenerate"] == 1
    assert numbers["forward/primal_residual_max"] < 1e-10  # of the others
    assert sum(monitor.verdicts.values()) == 64


@pytest.mark.parametrize("mode", ["raise", "nan"])
def test_numbers_out_of_range_stay_with_their_instance(mode: Any) -> None:
    problem, parameters, x = _problem(cone=False)
    layer = CvxpyLayer(problem, parameters, [x], on_unsolvable=mode, on_unconverged="ignore")
    q, A, b = _data(batch=3)
    A[1] *= 1e200
    shift = torch.zeros(6, dtype=F64, requires_grad=True)
    (out,) = layer(q + shift, A, b)
    (found,) = torch.autograd.grad(out[[0, 2]].sum(), shift)
    assert out[1].isnan().all()
    (alone,) = layer(q[[0, 2]] + shift, A[[0, 2]], b[[0, 2]])
    (expected,) = torch.autograd.grad(alone.sum(), shift)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_unrolling_tells_what_is_absent() -> None:
    problem, parameters, x = _problem(cone=False)
    layer = CvxpyLayer(
        problem, parameters, [x], on_unsolvable="nan", on_unconverged="ignore", backward="unrolled"
    )
    values = [value.requires_grad_() for value in _spoiled(_data())]
    (out,) = layer(*values)
    torch.autograd.grad(out.nansum(), values)
    assert layer.report is not None
    assert layer.report.backward is not None
    assert [str(layer.report.forward.status[i]) for i in BAD[:3]] == ["infeasible", "unbounded", "invalid"]
    assert [str(layer.report.backward.verdict[i]) for i in BAD[:3]] == ["no solution"] * 3


def test_what_nothing_sees_is_degenerate() -> None:
    x, a, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(a @ x - b))), [a, b], [x], on_degenerate="raise")
    value = torch.tensor([1.0, 0.5], dtype=F64, requires_grad=True)
    (out,) = layer(value, torch.tensor(1.0, dtype=F64))
    with pytest.raises(cvxfold.DegenerateError):
        out[0].backward()
