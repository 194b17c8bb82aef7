"""The pretend device itself: it refuses what a GPU refuses, and counts what a GPU waits for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from problems.pretend_device import DEVICE, MixedDevicesError, PretendDevice


def assigned(x: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    x[mask] = values
    return x


WAITS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: float(x.sum()),
    "a decision": lambda x: bool((x > 0).any()),
    "positions": lambda x: (x > 0).nonzero(),
    "a selection by a mask": lambda x: x[x > 0],
    "an assignment of many numbers by a mask": lambda x: assigned(x, x > 0, x.flatten().clone()),
    "a list": lambda x: x.tolist(),
    "a copy to the host": lambda x: x.cpu(),
    "a copy from the host": lambda x: torch.ones(3).to(x.device),
    "numbers of the host": lambda x: x.new_tensor([1.0, 2.0]),
    "an array of the host": lambda x: torch.as_tensor(torch.ones(3).numpy(), device=x.device),
    "a comparison": lambda x: torch.equal(x, x),
    "what differs": lambda x: torch.unique(x),
    "a checked factorization": lambda x: torch.linalg.cholesky(x),
    "a checked inverse": lambda x: torch.linalg.inv(x),
    "eigenvalues": lambda x: torch.linalg.eigh(x),
    "repetitions by a tensor": lambda x: x[0].repeat_interleave((x[0] > 0).long()),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: x @ x + 1.0,
    "a choice": lambda x: torch.where(x > 0, x, 0.0),
    "a number by a mask": lambda x: assigned(x, x > 0, torch.tensor(0.0)),
    "positions that are known": lambda x: x.index_select(0, torch.arange(2, device=x.device)),
    "an unchecked factorization": lambda x: torch.linalg.cholesky_ex(x),
    "a copy that nobody waits for": lambda x: x.to("cpu", non_blocking=True),
    "new tensors": lambda x: torch.full((3,), 2.0, device=x.device),
    "a scalar of the host": lambda x: x * torch.tensor(2.0),
}


def definite() -> Tensor:
    return torch.eye(3, dtype=torch.float64) + 0.1


@pytest.mark.parametrize("what", WAITS)
def test_a_wait_is_counted(what: str) -> None:
    with PretendDevice() as device:
        WAITS[what](device.put(definite()))
    assert device.waited == 1, device.waits


@pytest.mark.parametrize("what", FREE)
def test_what_nobody_waits_for_is_not(what: str) -> None:
    with PretendDevice() as device:
        FREE[what](device.put(definite()))
    assert device.waited == 0, device.waits
    assert device.launches > 0


def test_tensors_of_host_and_device_do_not_mix() -> None:
    with PretendDevice() as device:
        there = device.put(torch.ones(3))
        with pytest.raises(MixedDevicesError, match="add mixes devices"):
            _ = there + torch.ones(3)
        with pytest.raises(MixedDevicesError, match="which is not seen"):
            _ = there + torch.tensor([1.0, 2.0, 3.0], device=DEVICE)
        with pytest.raises(TypeError, match="on the device"):
            there.numpy()


def test_views_are_no_launches() -> None:
    with PretendDevice() as device:
        x = device.put(torch.ones(3, 4))
        x.mT.unsqueeze(0).expand(2, 4, 3)[:, 1:].unbind(0)
        assert device.launches == 0
        assert x.exp().device == DEVICE
        assert device.launches == 1


def test_automatic_differentiation_goes_through() -> None:
    at = torch.tensor([0.3, -1.2, 2.0])
    with PretendDevice() as device:
        x = device.put(at, requires_grad=True)
        (x.clamp_min(0.0) ** 3).sum().backward()
        assert x.grad is not None
        assert x.grad.device == DEVICE
    torch.testing.assert_close(device.get(x.grad), 3 * at.clamp_min(0.0) ** 2)
