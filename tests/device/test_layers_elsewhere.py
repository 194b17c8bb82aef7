"""Layers on a device that is not the CPU: nothing is mixed, answers are right and stay there, few waits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import cvxfold
from cvxfold.fold import Unrolled
from cvxfold.fold.projections import box as onto_box
from cvxfold.methods import METHODS
from cvxfold.torch import CvxpyLayer
from problems.cases import case, errors, weighted
from problems.families import minimize
from problems.layers import family_of, layer_of
from problems.marks import sliced
from problems.pretend_device import DEVICE, PretendDevice

F64 = torch.float64
CHEAP = ["portfolio", "portfolio_mu", "dense_qp20", "total_variation", "mpc", "robust_portfolio"]
OTHERS = [
    "nearest_correlation", "many_cones_duals", "semidefinite_program", "multi_label", "powers", "log_sum_exp",
    "quadratic_form", "linear_program_duals", "equality_qp", "no_rows", "mixture",
]  # fmt: skip
QUICKLY = ["portfolio", "robust_portfolio", "nearest_correlation", "quadratic_form", "equality_qp", "no_rows"]
COUNTED = ["portfolio", "dense_qp20", "robust_portfolio", "transport"]
EIGENVALUES = "_linalg_eigh"  # whose errors PyTorch looks for before it returns
LIMIT = 10


@pytest.fixture
def device() -> Iterator[PretendDevice]:
    with PretendDevice() as pretend:
        yield pretend


def put(values: Sequence[Tensor]) -> list[Tensor]:
    return [PretendDevice.put(value, requires_grad=True) for value in values]


def got(values: Sequence[Tensor | None]) -> list[Tensor]:
    """What they hold; it is an error if they are not on the device."""
    assert all(value is not None for value in values)
    return [PretendDevice.get(value) for value in values if value is not None]


def loss_of(outputs: Sequence[Tensor]) -> Tensor:
    return torch.stack([output.square().sum() for output in outputs]).sum()


@pytest.mark.parametrize("name", sliced([*CHEAP, *OTHERS], lambda name: name not in QUICKLY))
def test_answers_are_right_and_stay_on_the_device(name: str, device: PretendDevice) -> None:
    truth = case(name)
    layer, params = layer_of(truth.family), put(truth.params)
    outputs = layer(*params)
    weighted([device.put(weight) for weight in truth.weights], outputs).backward()
    assert layer.report.engine == "tensors"
    assert layer.report.forward.residual.device == layer.report.backward.residual.device == DEVICE
    assert errors(got(outputs), truth.values).max() < 1e-7
    assert errors(got([p.grad for p in params]), truth.gradients).max() < 1e-7


def waits_of_a_call(layer: Any, values: Sequence[Tensor], device: PretendDevice) -> list[Counter[str]]:
    """Of the forward and of the backward pass, by "what at where"."""
    params, found = put(values), []
    device.begin()
    outputs = layer(*params)
    found.append(Counter(device.waits))
    loss = loss_of(outputs)
    device.begin()
    loss.backward()
    found.append(Counter(device.waits))
    return found


@pytest.mark.parametrize(
    "name",
    sliced([*CHEAP, "nearest_correlation", "transport", "multi_label"], lambda name: name not in COUNTED),
)
def test_a_pass_waits_seldom(name: str, device: PretendDevice) -> None:
    """After the first call, which brings indices to the device."""
    layer, sample = transport() if name == "transport" else _of_family(name)
    waits_of_a_call(layer, sample(6, 0), device)
    for waits in waits_of_a_call(layer, sample(6, 1), device):
        assert sum(waits.values()) - _of_eigenvalues(waits) <= LIMIT, waits.most_common()


def _of_eigenvalues(waits: Counter[str]) -> int:
    return sum(count for what, count in waits.items() if what.startswith(EIGENVALUES))


def _of_family(name: str) -> tuple[Any, Any]:
    family = family_of(name)
    return layer_of(family), family.sample


def transport(n: int = 5) -> tuple[Any, Any]:
    """⟨C, X⟩ + ½‖X‖² with the row and column sums of a plan, X ≥ 0."""
    X, C = cp.Variable((n, n)), cp.Parameter((n, n))
    share = torch.linspace(0.5, 1.5, n, dtype=F64).numpy() / n
    rows, columns = cp.sum(X, axis=1) == share, cp.sum(X, axis=0) == share[::-1]
    problem = minimize(cp.sum(cp.multiply(C, X)) + 0.5 * cp.sum_squares(X), rows, columns, X >= 0)
    generator = torch.Generator().manual_seed(0)

    def sample(batch: int, seed: int) -> list[Tensor]:
        return [torch.rand(batch, n, n, dtype=F64, generator=generator.manual_seed(seed))]

    return CvxpyLayer(problem, [C], [X]), sample


def box(**options: Any) -> CvxpyLayer:
    """cᵀx + ½‖x‖² over −1 ≤ x ≤ h, whose solution is −c, or the nearer bound."""
    x, c, h = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    return CvxpyLayer(minimize(c @ x + 0.5 * cp.sum_squares(x), x >= -1, x <= h), [c, h], [x], **options)


C, H = torch.tensor([[0.3, -2.0, 2.0], [0.1, 0.5, -0.4]], dtype=F64), torch.tensor([0.7, 2.0], dtype=F64)
X = torch.tensor([[-0.3, 0.7, -1.0], [-0.1, -0.5, 0.4]], dtype=F64)
OF_SUM = [
    torch.tensor([[-1.0, 0.0, 0.0], [-1.0, -1.0, -1.0]], dtype=F64),
    torch.tensor([1.0, 0.0], dtype=F64),
]


def off(layer: CvxpyLayer, device: PretendDevice) -> float:
    """How far the solutions in a box and the gradients of their sum are from what they should be."""
    params = put([C, H])
    (x,) = layer(*params)
    x.sum().backward()
    pairs = zip(got([x, *(p.grad for p in params)]), [X, *OF_SUM], strict=True)
    return max(float((found - exact).abs().max()) for found, exact in pairs)


@pytest.mark.parametrize(
    "name", sliced([*METHODS, "unrolled"], lambda name: name.startswith("preconditioned"))
)
def test_every_method_differentiates_on_the_device(name: str, device: PretendDevice) -> None:
    backward: Any = Unrolled(60) if name == "unrolled" else name
    layer = box(backward=backward, on_unconverged="ignore")
    wrong = off(layer, device)
    assert wrong < 1e-7 if name != "jacobian_free" else wrong > 0.1


@pytest.mark.parametrize("engine", ["auto", "tensors"])
def test_another_solver_s_certificates_settle_all_on_the_device(engine: str, device: PretendDevice) -> None:
    layer = box(solver="CLARABEL", on_unsolvable="nan", engine=engine)
    (x,) = layer(*put([C, torch.tensor([-2.0, -3.0], dtype=F64)]))
    assert got([x])[0].isnan().all()


OPTIONS: dict[str, dict[str, Any]] = {
    "no rescue": {"rescue": False},
    "no finish": {"refine": False, "tol": 1e-9},
    "no acceleration": {"acceleration": 0, "refine": False, "tol": 1e-9},
    "another solver": {"solver": "SCS"},
    "a penalty": {"penalty": 1.0},
    "a proximal term": {"proximal": 1e-9},
    "a time limit": {"time_limit": 60.0},
    "a table": {"verbose": True},
    "unbounded iterations": {"max_iters": 10, "on_unconverged": "ignore"},
}


@pytest.mark.parametrize(
    "what", sliced(OPTIONS, lambda what: what in ("a table", "a time limit", "a penalty"))
)
def test_options_hold_on_the_device(what: str, device: PretendDevice) -> None:
    few = what == "unbounded iterations"  # which are no solution
    assert off(box(**OPTIONS[what]), device) < (1.0 if few else 1e-6)


def test_warm_starts_begin_on_the_device(device: PretendDevice) -> None:
    layer, params, ids = box(), put([C, H]), torch.arange(2)
    for samples in (None, ids, ids.flip(0), device.put(ids)):
        (x,) = layer(*params, warm_start=True, samples=samples)
        torch.testing.assert_close(got([x])[0], X, rtol=1e-9, atol=1e-9)


def test_singular_matrices_are_found_without_a_look_of_their_own(device: PretendDevice) -> None:
    """(x₁ + x₂ − c)² + a²(x₁ − x₂)², with x ≥ −1 or without: at a = 0 nothing sees x₁ − x₂.

    So M is singular there or, beside bounds that are not active, H.
    """
    x, a, c = cp.Variable(2), cp.Parameter(), cp.Parameter()
    cost = cp.square(x[0] + x[1] - c) + cp.square(a * (x[0] - x[1]))
    c_values = torch.tensor([1.0, -0.5, 2.0, 0.7], dtype=F64)
    params = put([torch.tensor([1.0, 0.0, 0.3, 0.0], dtype=F64), c_values])
    for rows in ([], [x >= -1]):
        layer = CvxpyLayer(minimize(cost, *rows), [a, c], [x], on_unconverged="ignore")
        (found,) = layer(*params)
        (of_sum,) = torch.autograd.grad(found.sum(), params[1])
        torch.testing.assert_close(got([found.sum(-1)])[0], c_values, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(got([of_sum])[0], torch.ones(4, dtype=F64), rtol=1e-8, atol=1e-8)
        assert layer.report is not None
        assert all(str(status) == "solved" for status in layer.report.forward.status)


def test_instances_without_a_solution_are_told_on_the_device(device: PretendDevice) -> None:
    layer = box(on_unsolvable="nan", on_unconverged="ignore")
    c = torch.tensor([[0.5, -0.5, 0.2], [1.0, 1.0, 1.0], [torch.nan, 0.0, 0.0]], dtype=F64)
    params = put([c, torch.tensor([1.0, -2.0, 1.0], dtype=F64)])
    (x,) = layer(*params)
    x[0].sum().backward()
    (found, by_c) = got([x, params[0].grad])
    torch.testing.assert_close(found[0], -c[0], rtol=1e-9, atol=1e-9)
    assert found[1:].isnan().all()
    torch.testing.assert_close(by_c, torch.tensor([[-1.0] * 3, [0.0] * 3, [0.0] * 3], dtype=F64))
    assert layer.report is not None
    assert [str(status) for status in layer.report.forward.status] == ["solved", "infeasible", "invalid"]


def test_no_solution_is_an_error_that_names_the_instances(device: PretendDevice) -> None:
    with pytest.raises(cvxfold.InfeasibleError, match=r"instances \[1\]"):
        box()(*put([torch.zeros(3, 3, dtype=F64), torch.tensor([1.0, -2.0, 1.0], dtype=F64)]))
    x, c = cp.Variable(2), cp.Parameter(2)
    falling = CvxpyLayer(minimize(c @ x, x >= 0), [c], [x])
    with pytest.raises(cvxfold.UnboundedError, match=r"instances \[0\]"):
        falling(*put([torch.tensor([[-1.0, 1.0], [1.0, 1.0]], dtype=F64)]))


def test_a_degenerate_gradient_is_told_on_the_device(device: PretendDevice) -> None:
    """At a kink: the bound is active and its multiplier zero."""
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(minimize(cp.sum_squares(x - c), x >= 0), [c], [x])
    params = put([torch.tensor([[0.0, 1.0], [2.0, 1.0]], dtype=F64)])
    (found,) = layer(*params)
    with pytest.warns(cvxfold.ConvergenceWarning, match="degenerate"):
        found.sum().backward()
    assert layer.report is not None
    assert layer.report.backward is not None
    assert [str(verdict) for verdict in layer.report.backward.verdict] == ["degenerate", "converged"]


def test_a_report_comes_to_the_host_in_one_copy_a_pass(device: PretendDevice) -> None:
    layer, params = box(), put([torch.zeros(3, 3, dtype=F64), torch.ones(3, dtype=F64)])
    with cvxfold.Monitor(layer) as monitor:
        (x,) = layer(*params)
        x.sum().backward()
        device.begin()
        assert layer.report is not None
        table, figures = str(layer.report), layer.report.to_dict()
    assert device.waited <= 2, device.waits
    assert "3 solved" in table
    assert figures["verdict/converged"] == monitor.to_dict()["verdict/converged"] == 3.0


def test_one_instance_and_other_dtypes_stay_on_the_device(device: PretendDevice) -> None:
    (x,) = box()(*(value.float() for value in put([C[0], H[0]])))
    assert x.shape == (3,)
    assert x.dtype == torch.float32
    torch.testing.assert_close(got([x])[0], X[0].float())


@pytest.mark.parametrize("engine", ["auto", "tensors"])
def test_tensors_on_several_devices_are_an_error_that_names_them(engine: str, device: PretendDevice) -> None:
    layer = box(engine=engine)
    for given in ((device.put(C), H), (C, device.put(H))):
        with pytest.raises(ValueError, match="Inconsistent devices") as error:
            layer(*given)
        assert "parameter 0" in str(error.value)
        assert "parameter 1" in str(error.value)
        assert "cpu" in str(error.value)
        assert str(DEVICE) in str(error.value)


def test_a_layer_serves_both_places(device: PretendDevice) -> None:
    layer = box()
    for there in (False, True, False, True):
        (x,) = layer(*put([C, H])) if there else layer(C, H)
        torch.testing.assert_close(got([x])[0] if there else x, X, rtol=1e-9, atol=1e-9)


def test_a_folded_iteration_stays_on_the_device(device: PretendDevice) -> None:
    """x ← Π(x − ½(x − c)) on 0 ≤ x ≤ 1, whose fixed point is c, or the nearer bound."""

    def update(x: Tensor, c: Tensor) -> Tensor:
        return onto_box(x - 0.5 * (x - c), 0.0, 1.0)

    (c,) = put([torch.tensor([[0.3, -0.4, 2.0], [0.9, 0.1, 0.5]], dtype=F64)])
    solve = cvxfold.fold(update, start=device.put(torch.full((2, 3), 0.5, dtype=F64)), batched=True)
    x = solve(c)
    x.sum().backward()
    found, by_c = got([x, c.grad])
    torch.testing.assert_close(found, device.get(c).clamp(0.0, 1.0), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(by_c, torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=F64))
