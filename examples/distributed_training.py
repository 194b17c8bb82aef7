"""Train in several processes: DistributedDataParallel around a model with a layer inside.

A linear map scores four options from features, the layer turns scores into shares of a budget (the nearest
point of the simplex), and the shares are to be those that an expert chose. Each process has its own layer and
solves its part of every batch; the gradients are averaged. Run with

    torchrun --nproc-per-node 2 examples/distributed_training.py --checkpoint training.pt

or without torchrun, in one process: the same batches, and the same parameters to rounding. With CUDA each
process takes the GPU of its local rank.
"""

import argparse
import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy as cp
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from cvxfold.torch import CvxpyLayer

FEATURES, OPTIONS, SAMPLES = 3, 4, 64
F64 = torch.float64


def shares() -> CvxpyLayer:
    """From scores ``(B, OPTIONS)`` to the nearest shares: nonnegative, of sum 1."""
    x, scores = cp.Variable(OPTIONS), cp.Parameter(OPTIONS)
    cost = 0.5 * cp.sum_squares(x - scores)
    constraints = [x >= 0, cp.sum(x) == 1]
    return CvxpyLayer(cp.Problem(cp.Minimize(cost), constraints), [scores], [x])


class Model(torch.nn.Module):
    """Features to shares."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Linear(FEATURES, OPTIONS, dtype=F64)
        self.layer = shares()

    def forward(self, features: Tensor, samples: Tensor) -> Tensor:
        """Shares ``(B, OPTIONS)``; ``samples`` ``(B,)`` tell warm starts the places in the data."""
        return self.layer(self.scores(features), warm_start=True, samples=samples)[0]


class Choices(Dataset[tuple[int, Tensor, Tensor]]):
    """Features, and the shares that an expert chose; each with its place."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.features = torch.randn(SAMPLES, FEATURES, dtype=F64, generator=generator)
        self.taste = torch.randn(FEATURES, OPTIONS, dtype=F64, generator=generator)
        self.chosen = shares()(self.features @ self.taste)[0]

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, place: int) -> tuple[int, Tensor, Tensor]:
        return place, self.features[place], self.chosen[place]


@dataclass(frozen=True)
class Place:
    """Where a process stands.

    Args:
        rank: of all processes. world: how many there are. device: that this one computes on.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls) -> "Place":
        """Of torchrun's environment, in its process group; without torchrun alone."""
        rank, local, world = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
        )
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        if world > 1:
            dist.init_process_group("nccl" if cuda else "gloo")
        return cls(rank, world, device)

    def parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model, with gradients averaged over the processes."""
        if self.world == 1:
            return model
        return DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)

    def gather(self, item: Any) -> list[Any]:
        """What each process gives, by rank."""
        if self.world == 1:
            return [item]
        items: list[Any] = [None] * self.world
        dist.all_gather_object(items, item)
        return items

    def leave(self) -> None:
        """End the group, when all are done and nothing holds on to it that would end with the interpreter."""
        if self.world > 1:
            gc.collect()
            dist.barrier()
            dist.destroy_process_group()


def train(place: Place, epochs: int, batch: int, checkpoint: Path | None = None) -> Model:
    """Train up to some number of epochs.

    Args:
        place: of this process. epochs: in all, those of the checkpoint included.
        batch: of all processes together. checkpoint: where to go on from, if it exists, and what to write.
    """
    torch.manual_seed(0)
    model, choices = Model().to(place.device), Choices()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    begun = 0
    if checkpoint is not None and checkpoint.exists():
        kept = torch.load(checkpoint, map_location=place.device)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        begun = kept["epochs"]
    parallel = place.parallel(model)
    sampler = DistributedSampler(choices, place.world, place.rank, seed=0)
    loader = DataLoader(choices, batch // place.world, sampler=sampler)
    for epoch in range(begun, epochs):
        sampler.set_epoch(epoch)
        total, instances = 0.0, 0
        for samples, features, chosen in loader:
            found = parallel(features.to(place.device), samples)
            loss = (found - chosen.to(place.device)).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, instances = total + loss.item() * len(samples), instances + len(samples)
        losses = place.gather((total, instances))
        reports = place.gather(model.layer.report.to_dict())  # each process has its own, of its last batch
        if place.rank == 0:
            loss = sum(part for part, _ in losses) / sum(count for _, count in losses)
            worst = max(report["backward/residual_max"] for report in reports)
            print(f"epoch {epoch + 1:>2}  loss {loss:.6f}  worst adjoint residual {worst:.0e}", flush=True)
            if checkpoint is not None:
                kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
                torch.save(kept, checkpoint)
    return model


def main() -> None:
    """Train, and show how many instances each process solved last."""
    parser = argparse.ArgumentParser(description="Train in several processes.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16, help="of all processes together")
    parser.add_argument("--checkpoint", type=Path)
    given = parser.parse_args()
    place = Place.join()
    if given.batch % place.world:
        parser.error(f"--batch: expected a multiple of the {place.world} processes, got {given.batch}")
    model = train(place, given.epochs, given.batch, given.checkpoint)
    # Every process looks at its own part of the data, of different sizes where it does not divide.
    choices = Choices()
    part = slice(place.rank, SAMPLES - 1, place.world)
    with torch.no_grad():
        features = choices.features[part].to(place.device)
        model(features, torch.arange(SAMPLES)[part])
    for rank, statuses in enumerate(place.gather([str(one) for one in model.layer.report.forward.status])):
        if place.rank == 0:
            solved = statuses.count("solved")
            print(f"rank {rank} solved {solved} of its {len(statuses)} instances", flush=True)
    place.leave()


if __name__ == "__main__":
    main()
