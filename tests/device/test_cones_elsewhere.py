"""Cones on a device that is not the CPU: every operation of each, without a tensor of the host."""

import pytest
import torch
from torch import Tensor

from cvxfold.cones import ConeDims, ProductCone
from cvxfold.cones.autodiff import project
from problems.pretend_device import PretendDevice

KINDS = {
    "zero": ConeDims(zero=2),
    "nonnegative": ConeDims(nonnegative=3),
    "second-order": ConeDims(second_order=(3, 3, 4)),
    "semidefinite": ConeDims(semidefinite=(2, 3)),
    "exponential": ConeDims(exponential=2),
    "power": ConeDims(power=(0.3, 0.5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_stays_on_the_device(kind: str) -> None:
    """And is the same as here, where it is proved (``tests/cones``)."""
    cone, generator = ProductCone(KINDS[kind]), torch.Generator().manual_seed(0)
    u, v, w = torch.randn(3, 8, cone.dim, dtype=torch.float64, generator=generator)

    def everything(u: Tensor, v: Tensor, w: Tensor) -> list[Tensor]:
        D = cone.derivative(u)
        return [
            cone.project(u),
            cone.interior(u),
            cone.margin(u),
            D.apply(lambda d: 1 - 2 * d, v),
            D.take(torch.arange(2, device=u.device)).apply(lambda d: d, w[:2]),
            cone.second_derivative(u, v, w),
            cone.blocks(u.device),
        ]

    with PretendDevice() as device:
        there = [device.get(one) for one in everything(*(device.put(one) for one in (u, v, w)))]
        at = device.put(u, requires_grad=True)
        (by_u,) = torch.autograd.grad(project(cone, at), at, device.put(w))
    for found, here in zip(there, everything(u, v, w), strict=True):
        torch.testing.assert_close(found, here, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        device.get(by_u), cone.derivative(u).apply(lambda d: d, w), rtol=1e-12, atol=1e-12
    )
