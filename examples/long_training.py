"""Train for a long time through a linear program that is degenerate at almost every step.

A linear model predicts the travel costs of a grid's edges, rounded to whole numbers, and how much flow to
send; the layer routes the flow at least cost; the loss is the distance to the routes that the true costs
lead to. Whole costs tie: shortest paths are not unique, every vertex is degenerate, and more flow than the
edges carry is infeasible. Such instances come out as NaN, which the loss leaves out; ``proximal`` makes the
gradients of the others informative, and the monitor counts every one of them.

Run with ``python examples/long_training.py --steps 10000``.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

from cvxfold import Monitor
from cvxfold.torch import CvxpyLayer

SIDE, FEATURES, BATCH = 3, 4, 16
F64 = torch.float64


def grid() -> np.ndarray:
    """The incidence matrix (nodes, edges) of a grid whose edges lead right and down."""
    node = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    right = np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()], 1)
    down = np.stack([node[:-1].ravel(), node[1:].ravel()], 1)
    edges = np.concatenate([right, down])
    incidence = np.zeros((SIDE * SIDE, len(edges)))
    for edge, (tail, head) in enumerate(edges):
        incidence[tail, edge], incidence[head, edge] = 1, -1
    return incidence


def routing(proximal: float) -> CvxpyLayer:
    """costsᵀx over flows of a given amount from corner to corner; each edge carries at most one unit."""
    incidence = grid()
    nodes, edges = incidence.shape
    x, costs, amount = cp.Variable(edges), cp.Parameter(edges), cp.Parameter()
    ends = np.zeros(nodes)
    ends[0], ends[-1] = 1, -1
    constraints = [incidence @ x == amount * ends, x >= 0, x <= 1]
    return CvxpyLayer(
        cp.Problem(cp.Minimize(costs @ x), constraints),
        [costs, amount],
        [x],
        on_unsolvable="nan",
        on_unconverged="ignore",
        proximal=proximal,
    )


def whole(values: Tensor) -> Tensor:
    """Rounded, with the gradient of the identity."""
    return values + (values.round() - values).detach()


class Model(torch.nn.Module):
    """Features to whole costs of at least 1, and to an amount of flow that is sometimes too large."""

    def __init__(self, edges: int) -> None:
        super().__init__()
        self.costs = torch.nn.Linear(FEATURES, edges, dtype=F64)
        self.amount = torch.nn.Linear(FEATURES, 1, dtype=F64)
        with torch.no_grad():
            self.costs.weight.zero_()
            self.costs.bias.fill_(3.0)
            self.amount.weight.fill_(0.3)
            self.amount.bias.fill_(1.0)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Costs ``(B, edges)`` and amounts ``(B,)``."""
        noise = 0.2 * torch.randn(len(features), dtype=F64).square()
        return whole(self.costs(features)).clamp_min(1), self.amount(features).squeeze(-1) + noise


@dataclass
class Record:
    """What a training came to.

    Args:
        losses: mean over the instances with a solution, by step.
        cost_gradients: norm of the gradient on the part of the model that predicts costs, by step.
        finite: whether every parameter and gradient was, at every step.
        monitor: what became of the instances.
    """

    monitor: Monitor
    losses: list[float] = field(default_factory=list)
    cost_gradients: list[float] = field(default_factory=list)
    finite: bool = True

    def mean(self, first: int, last: int) -> float:
        """The mean loss of some steps."""
        return float(np.mean(self.losses[first:last]))


def train(
    steps: int, proximal: float, after: Callable[[int, Record], None] = lambda step, record: None
) -> Record:
    """Train from scratch, the same way each time.

    Args:
        steps: of Adam, on 16 new instances each.
        proximal: of the layer.
        after: called after each step.
    """
    torch.manual_seed(0)
    layer = routing(proximal)
    edges = grid().shape[1]
    truth = torch.randn(FEATURES, edges, dtype=F64)
    model, record = Model(edges), Record(Monitor(layer))
    teacher = routing(0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(1, steps + 1):
        features = torch.randn(BATCH, FEATURES, dtype=F64)
        with torch.no_grad():
            (best,) = teacher(3 + features @ truth, torch.ones(BATCH, dtype=F64))
        (flow,) = layer(*model(features))
        solved = ~flow.isnan().any(1)
        loss = (flow - best).square().nansum() / solved.sum().clamp_min(1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.losses.append(loss.item())
        record.finite &= all(
            bool(p.isfinite().all()) and p.grad is not None and bool(p.grad.isfinite().all())
            for p in model.parameters()
        )
        assert model.costs.weight.grad is not None
        record.cost_gradients.append(float(model.costs.weight.grad.norm()))
        after(step, record)
    record.monitor.close()
    return record


def resident() -> float:
    """Resident memory of this process in MiB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Train, and print the loss and the memory on the way."""
    parser = argparse.ArgumentParser(description="Train through a degenerate linear program.")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--proximal", type=float, default=1.0)
    given = parser.parse_args()
    every, started = max(1, given.steps // 10), time.perf_counter()
    torch.set_num_threads(1)

    def show(step: int, record: Record) -> None:
        if step % every == 0 or step == 1_000:
            print(
                f"step {step:>6,}  loss {record.mean(max(0, step - every), step):.4f}  "
                f"resident {resident():.1f} MiB  {time.perf_counter() - started:.0f} s",
                flush=True,
            )

    record = train(given.steps, given.proximal, show)
    print(f"\nall parameters and gradients finite: {record.finite}")
    print(f"instances: {given.steps * BATCH:,}, verdicts: {sum(record.monitor.verdicts.values()):,}")
    print(record.monitor)


if __name__ == "__main__":
    main()
