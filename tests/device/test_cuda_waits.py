"""On a real GPU: nothing waits inside of the iterations, and a pass waits seldom, by PyTorch's own count."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from cvxfold.engines.tensors.linearization import SplittingLinearization
from cvxfold.engines.tensors.newton import _Steps
from cvxfold.engines.tensors.splitting import Splitting
from problems.cases import case, errors
from problems.layers import layer_of

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

NAMES = ["portfolio", "portfolio_mu", "dense_qp20", "total_variation", "mpc", "robust_portfolio"]
INNER = [  # what is done at every step
    (Splitting, "run"),
    (_Steps, "_judge"),
    (SplittingLinearization, "vjp"),
    (SplittingLinearization, "pull"),
    (SplittingLinearization, "push"),
]
LIMIT = 10


@contextmanager
def an_error_to_wait() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **named: Any) -> Any:
        with an_error_to_wait():
            return function(*args, **named)

    return run


def on_gpu(values: list[Tensor]) -> list[Tensor]:
    return [value.cuda().requires_grad_() for value in values]


def loss_of(outputs: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([output.square().sum() for output in outputs]).sum()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_inside_of_the_iterations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = case(name)
    layer = layer_of(truth.family)
    loss_of(layer(*on_gpu(truth.params))).backward()  # brings indices to the device
    for owner, method in INNER:
        monkeypatch.setattr(owner, method, guarded(getattr(owner, method)))
    outputs = layer(*on_gpu(truth.params))
    loss_of(outputs).backward()
    assert errors([output.cpu() for output in outputs], truth.values).max() < 1e-7


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_waits_seldom_on_a_gpu(name: str) -> None:
    truth = case(name)
    layer = layer_of(truth.family)
    loss_of(layer(*on_gpu(truth.params))).backward()
    params = on_gpu([value.flip(0) for value in truth.params])
    torch.cuda.synchronize()
    outputs, forward = counted(lambda: layer(*params))
    loss = loss_of(outputs)
    _, backward = counted(loss.backward)
    assert forward <= LIMIT
    assert backward <= LIMIT


def counted(work: Callable[[], Any]) -> tuple[Any, int]:
    """What the work returns, and how often the host waited for it."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            found = work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return found, sum("synchronizing CUDA operation" in str(one.message) for one in said)
