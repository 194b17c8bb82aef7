"""A small layer, a model around it, and what PyTorch's other processes are asked to do with them."""

from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from cvxfold.torch import CvxpyLayer


def make_layer(**options: Any) -> CvxpyLayer:
    """‖Ax − b‖² + 0.1‖x‖₁ with x ≥ −0.3, from A ``(6, 4)`` and b ``(6,)``."""
    x, A, b = cp.Variable(4), cp.Parameter((6, 4)), cp.Parameter(6)
    cost = cp.sum_squares(A @ x - b) + 0.1 * cp.norm1(x)
    return CvxpyLayer(cp.Problem(cp.Minimize(cost), [x >= -0.3]), [A, b], [x], **options)


def data(seed: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, 6, 4, dtype=torch.float64, generator=generator)
    b = torch.randn(batch, 6, dtype=torch.float64, generator=generator)
    return A.requires_grad_(), b.requires_grad_()


class Model(torch.nn.Module):
    """A linear map to b, and the layer with a fixed A."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 6, dtype=torch.float64)
        self.layer = make_layer()
        self.register_buffer("A", data(0)[0][0].detach())

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(self.A, self.linear(features).tanh())[0]


class Solutions(torch.utils.data.Dataset[Tensor]):
    """A data set that solves for what it returns."""

    def __init__(self, layer: CvxpyLayer) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        A, b = data(index, batch=1)
        return self.layer(A[0].detach(), b[0].detach())[0]


def train_one_half(rank: int, port: int, found: str, features: Tensor, state: dict[str, Tensor]) -> None:
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    torch.set_num_threads(1)
    store = TCPStore("localhost", port, is_master=False)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = Model()
    model.load_state_dict(state)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    half = features[rank::2]
    parallel(half).square().sum(1).mean().backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], found)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
