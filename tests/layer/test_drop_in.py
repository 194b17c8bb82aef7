"""What layers of cvxpylayers are given, and take, beyond the ordinary."""

import pickle
import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

from cvxfold.torch import CvxpyLayer
from problems.cases import said
from problems.families import minimize

F64 = torch.float64


def soft_threshold(**options: Any) -> CvxpyLayer:
    """½‖x − b‖² + s‖x‖₁: x shrinks by s, to 0 at most."""
    x, b, s = cp.Variable(2), cp.Parameter(2, name="b"), cp.Parameter(nonneg=True, name="s")
    return CvxpyLayer(minimize(0.5 * cp.sum_squares(x - b) + s * cp.norm1(x)), [b, s], [x], **options)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_are_numbers(dtype: torch.dtype) -> None:
    layer = soft_threshold()
    b = torch.tensor([[1, 0], [0, 1]]).to(dtype)
    (found,) = layer(b, torch.tensor(0.25))
    torch.testing.assert_close(found, 0.75 * torch.eye(2), rtol=0, atol=1e-7)
    assert found.dtype == torch.float32
    (found,) = layer(b, torch.tensor(0))
    torch.testing.assert_close(found, torch.eye(2), rtol=0, atol=1e-7)
    (found,) = layer(b, torch.tensor(0.25, dtype=F64))
    assert found.dtype == F64


def test_integers_of_any_size() -> None:
    """2²⁴ + 1 is no float32."""
    big = 2**24 + 1
    s = torch.tensor(0.0, dtype=F64)
    assert soft_threshold()(torch.tensor([big, 1]), s)[0].tolist() == pytest.approx([big, 1], rel=1e-12)


def test_the_gradient_beside_integers() -> None:
    s = torch.tensor(0.5, requires_grad=True)
    (found,) = soft_threshold()(torch.tensor([3, -4]), s)
    found.sum().backward()
    assert float(found.detach().sum()) == pytest.approx(-1.0)
    assert s.grad is not None
    assert float(s.grad) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.usefixtures("engine")
def test_arrays_and_numbers() -> None:
    layer, b = soft_threshold(), np.array([3.0, -0.5])
    for found, dtype in (
        (layer(b, 1.0), F64),
        (layer(b.astype(np.float32), 1), torch.float32),
        (layer(torch.as_tensor(b, dtype=torch.float32), np.float64(1.0)), torch.float32),
        (layer(torch.as_tensor(b), np.ones(())), F64),
        (layer(np.array([3, 0]), True), torch.float32),
    ):
        torch.testing.assert_close(found[0], torch.tensor([2.0, 0.0], dtype=dtype), rtol=0, atol=1e-6)


def test_lists_are_refused_with_a_hint() -> None:
    with pytest.raises(TypeError, match=r"torch\.as_tensor") as error:
        soft_threshold()([1.0, 2.0], 1.0)  # type: ignore[arg-type]
    said(error, "b", "list")


# solver_args


SCS_NAMES = ("scale", "adaptive_scale", "alpha", "rho_x", "normalize", "gpu", "acceleration_interval")
OTHERS = ("mode", "n_jobs_forward", "n_jobs_backward", "derivative_kwargs")


@pytest.mark.parametrize("name", [*SCS_NAMES, *OTHERS])
def test_what_diffcp_takes_is_accepted_with_a_word(name: str) -> None:
    with pytest.warns(UserWarning, match=f"solver_args: {name}: no meaning"):
        layer = soft_threshold(solver_args={name: 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            layer(torch.ones(2), torch.tensor(0.5), solver_args={name: 1})


def test_another_gradient_is_named() -> None:
    layer = soft_threshold()
    arguments = {"mode": "lpgd", "derivative_kwargs": {"tau": 0.1}}
    with pytest.warns(UserWarning, match=r"mode='lpgd'.*differs"):
        layer(torch.ones(2), torch.tensor(0.5), solver_args=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.ones(2), torch.tensor(0.5), solver_args=arguments)


# matrices that are symmetric but for noise


def control(kind: type, matrix: str = "PSD") -> Any:
    """min ½‖u − a‖² + tr(P U) with U ⪰ I and u ≤ U's diagonal: P is data of the objective alone."""
    u, U = cp.Variable(2), cp.Variable((2, 2), PSD=True)
    P, a = cp.Parameter((2, 2), name="P", **{matrix: True}), cp.Parameter(2)
    problem = minimize(0.5 * cp.sum_squares(u - a) + cp.trace(P @ U), U >> np.eye(2), u <= cp.diag(U))
    exactly: dict[str, Any] = {"solver_args": {"eps": 1e-10, "mode": "dense"}}
    options = exactly if kind is UpstreamLayer else {}
    return kind(problem, [P, a], [u, U], **options)


def noisy(size: float) -> torch.Tensor:
    P = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=F64)
    P[1, 0] += size
    return P


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("matrix", ["PSD", "symmetric"])
def test_noise_is_read_as_cvxpylayers_reads_it(matrix: str) -> None:
    a = torch.tensor([4.0, 3.0], dtype=F64)
    answers = []
    for kind in (CvxpyLayer, UpstreamLayer):
        P = noisy(1e-3).requires_grad_()
        if kind is CvxpyLayer:
            with pytest.warns(UserWarning, match=r"\(P\): declared symmetric.*upper triangle"):
                outputs = control(kind, matrix)(P, a)
        else:
            outputs = control(kind, matrix)(P, a)
        loss = outputs[0] @ torch.tensor([1.0, -2.0], dtype=F64) + outputs[1].square().sum()
        answers.append([*outputs, *torch.autograd.grad(loss, P)])
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    assert float(answers[0][2][1, 0]) == 0.0


def test_noise_is_said_once_and_rounding_never() -> None:
    layer, a = control(CvxpyLayer), torch.ones(2, dtype=F64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(noisy(1e-8), a)
        assert not caught
        for _ in range(3):
            layer(noisy(1e-3), a)
    assert len(caught) == 1


def test_what_is_far_from_symmetric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(P\).*symmetric"):
        control(CvxpyLayer)(noisy(0.1), torch.ones(2, dtype=F64))


def test_the_triangle_that_is_read_must_be_semidefinite() -> None:
    """The mean with the lower triangle would be."""
    P = torch.tensor([[1.0, 1.004], [0.996, 1.0]], dtype=F64)
    with pytest.raises(ValueError, match="semidefinite"):
        control(CvxpyLayer)(P, torch.ones(2, dtype=F64))


# code that reads layers


def pair() -> tuple[CvxpyLayer, UpstreamLayer]:
    x, b, s = cp.Variable(2), cp.Parameter(2, name="b"), cp.Parameter(nonneg=True, name="s")
    problem = minimize(0.5 * cp.sum_squares(x - b) + s * cp.norm1(x), x >= 0)
    return CvxpyLayer(problem, [b, s], [x]), UpstreamLayer(problem, [b, s], [x])


def test_the_long_import_path() -> None:
    from cvxfold.torch.cvxpylayer import CvxpyLayer as Long

    assert Long is CvxpyLayer


class Model(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.linear, self.layer = torch.nn.Linear(3, 2), layer

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(self.linear(features), torch.tensor(0.1))[0]


def test_a_state_of_cvxpylayers_is_loaded_strictly() -> None:
    ours, theirs = (Model(layer) for layer in pair())
    state = theirs.state_dict()
    assert "layer.A" in state
    ours.load_state_dict(state, strict=True)
    assert "layer.A" in state
    features = torch.randn(4, 3)
    torch.testing.assert_close(ours(features), theirs(features).float(), rtol=0, atol=1e-3)
    state["layer.other"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"layer\.other"):
        ours.load_state_dict(state, strict=True)


def test_attributes_are_those_of_cvxpylayers() -> None:
    ours, theirs = pair()
    assert ours.P is theirs.P is None
    for mine, upstream in ((ours.q, theirs.q), (ours.A, theirs.A)):
        assert isinstance(mine, torch.Tensor)
        assert isinstance(upstream, torch.Tensor)
        torch.testing.assert_close(mine.to_dense(), upstream.to_dense(), rtol=0, atol=0)
    assert ours.ctx.parameters == theirs.ctx.parameters
    assert ours.ctx.cone_dims.nonneg == theirs.ctx.cone_dims.nonneg  # type: ignore[attr-defined]
    assert ours.ctx.problem is theirs.ctx.problem
    copied = pickle.loads(pickle.dumps(ours))
    torch.testing.assert_close(copied(torch.ones(2), torch.ones(()))[0], torch.zeros(2), rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="no longer has its problem"):
        _ = copied.ctx
