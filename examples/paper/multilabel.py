"""Multi-label classification through the entropic top-k layer, on pairs of real handwritten digits.

    minimize −cᵀy + τ Σ yᵢ log yᵢ + (1 − yᵢ) log(1 − yᵢ)    subject to Σy = k,  0 ≤ y ≤ 1

A picture shows k = 2 different digits side by side; a network scores the ten digits, and the layer makes of
the scores c probabilities that add up to k (the limited multi-label projection of Amos, Koltun and Kolter).
Trained on the log-likelihood. The black box in front of the folded steps finds the multiplier ν of Σy = k in
y = σ((c + ν)/τ) by bisection. Step sizes and depths are those of Kotary, Christopher, Dinh and Fioretto.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as PeerLayer
from experiment import Experiment, start
from sklearn.datasets import load_digits
from torch import Tensor, nn

import cvxfold
from cvxfold.fold import GMRES, LFPI, Unrolled, projections
from cvxfold.fold.updates import ProjectedGradient, SQPStep
from cvxfold.studies.allocations import allocations
from cvxfold.torch import CvxpyLayer

DIGITS, LABELS, WEIGHT = 10, 2, 1.0  # k and τ
STEP, DEPTH = 1e-3, 1000
RATE, BATCH = 1e-2, 50

Layer = Callable[[Tensor], Tensor]


def pairs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures ``(N, 128)`` of two different digits, and which they are, ``(N, 10)``."""
    digits: Any = load_digits()
    generator = np.random.default_rng(seed)
    left = generator.integers(len(digits.target), size=4 * count)
    right = generator.integers(len(digits.target), size=4 * count)
    different = np.flatnonzero(digits.target[left] != digits.target[right])[:count]
    left, right = left[different], right[different]
    pictures = np.concatenate([digits.data[left], digits.data[right]], axis=1) / 16
    labels = np.zeros((count, DIGITS))
    for side in (left, right):
        labels[np.arange(count), digits.target[side]] = 1
    return torch.tensor(pictures), torch.tensor(labels)


def objective(y: Tensor, c: Tensor) -> Tensor:
    """What is minimized, for each instance."""
    entropy = (y * y.log() + (1 - y) * (1 - y).log()).sum(-1)
    return WEIGHT * entropy - (c * y).sum(-1)


def black_box(c: Tensor) -> Tensor:
    """y by bisection on ν."""
    low, high = (-c).amin(-1, keepdim=True) - 50, (-c).amax(-1, keepdim=True) + 50
    for _ in range(100):
        middle = (low + high) / 2
        large = torch.sigmoid((c + middle) / WEIGHT).sum(-1, keepdim=True) > LABELS
        low, high = torch.where(large, low, middle), torch.where(large, middle, high)
    return torch.sigmoid((c + (low + high) / 2) / WEIGHT)


def layers(depth: int) -> dict[str, Layer | None]:
    """The ways from scores to probabilities; None is a sigmoid for each label by itself.

    Args:
        depth: of unrolling, and iterations of LFPI.
    """
    y, c = cp.Variable(DIGITS), cp.Parameter(DIGITS)
    entropy = cp.sum(cp.entr(y)) + cp.sum(cp.entr(1 - y))
    total: Any = cp.sum(y) == LABELS
    program = cp.Problem(cp.Maximize(c @ y + WEIGHT * entropy), [total])
    own, peer = CvxpyLayer(program, [c], [y]), PeerLayer(program, [c], [y])
    gradient = ProjectedGradient(objective, lambda z, _: projections.capped_simplex(z, float(LABELS)), STEP)
    newton = SQPStep(
        objective,
        equalities=lambda y, _: y.sum(-1, keepdim=True) - LABELS,
        hessian=lambda y, _: torch.diag_embed(WEIGHT / (y * (1 - y))),
    )
    common: Any = {"batched": True, "on_unconverged": "ignore", "probe": False}
    return {
        "independent": None,
        "cvxpylayers": lambda scores: peer(scores)[0],
        "cvxfold layer": lambda scores: own(scores)[0],
        "unrolled PGD": cvxfold.fold(gradient, black_box, backward=Unrolled(depth), **common),
        "folded PGD, LFPI": cvxfold.fold(
            gradient, black_box, backward=LFPI(), backward_max_iters=depth, **common
        ),
        "folded PGD, GMRES": cvxfold.fold(gradient, black_box, backward=GMRES(), **common),
        "folded SQP, GMRES": cvxfold.fold(newton, black_box, backward=GMRES(), **common),
    }


@dataclass
class Training:
    """How a contestant trained: share of test pictures with both digits right, by epoch, and what it cost."""

    accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bytes: float = float("nan")
    gradient_error: float = float("nan")


def loss_of(layer: Layer | None, scores: Tensor, labels: Tensor) -> Tensor:
    """The negative log-likelihood."""
    y = torch.sigmoid(scores) if layer is None else layer(scores).clamp(1e-12, 1 - 1e-12)
    return -(labels * y.log() + (1 - labels) * (1 - y).log()).sum(-1).mean()


def gradient_of(layer: Layer, scores: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """The loss gradient on scores, and the peak of bytes."""
    scores = scores.detach().requires_grad_()
    with allocations(torch.device("cpu")) as ledger:
        (found,) = torch.autograd.grad(loss_of(layer, scores, labels), scores)
        return found, ledger.peak


def exact_gradient(scores: Tensor, labels: Tensor) -> Tensor:
    """The same in closed form: dy = D(dc − 1 (1ᵀD dc)/(1ᵀD 1)) with D = diag(y(1 − y))/τ."""
    y = black_box(scores)
    bar = -(labels / y - (1 - labels) / (1 - y)) / len(scores)
    D = y * (1 - y) / WEIGHT
    return D * (bar - (D * bar).sum(-1, keepdim=True) / D.sum(-1, keepdim=True))


def train(
    layer: Layer | None, data: tuple[Tensor, Tensor], epochs: int, seed: int, told: Callable[[], None]
) -> Training:
    """Train a network on the first four fifths; the rest is the test."""
    pictures, labels = data
    cut = int(0.8 * len(pictures))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(pictures.shape[1], 64), nn.ReLU(), nn.Linear(64, DIGITS)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    training = Training()
    for _ in range(epochs):
        began = time.perf_counter()
        for first in range(0, cut, BATCH):
            rows = slice(first, min(first + BATCH, cut))
            optimizer.zero_grad()
            loss_of(layer, model(pictures[rows]), labels[rows]).backward()
            optimizer.step()
            told()
        training.seconds.append(time.perf_counter() - began)
        with torch.no_grad():
            top = model(pictures[cut:]).topk(LABELS).indices
            right = labels[cut:].gather(1, top).sum(-1) == LABELS
        training.accuracy.append(float(right.double().mean()))
    if layer is not None:
        with torch.no_grad():
            scores = model(pictures[:BATCH])
        found, training.bytes = gradient_of(layer, scores, labels[:BATCH])
        exact = exact_gradient(scores, labels[:BATCH])
        training.gradient_error = float((found - exact).norm() / exact.norm())
    return training


def main(argv: Sequence[str] | None = None) -> dict[str, Training]:
    """Train all contestants."""
    given = start("multilabel", __doc__, argv)
    count, epochs, depth = (250, 6, 50) if given.quick else (1250, 10, DEPTH)
    data = pairs(count, given.seed)
    contestants = layers(depth)
    steps = epochs * -(-int(0.8 * count) // BATCH)
    found: dict[str, Training] = {}
    warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)  # what is not exact is told in the figures
    with Experiment(given, "multilabel", steps * len(contestants)) as run:
        for name, layer in contestants.items():
            found[name] = train(layer, data, epochs, given.seed, lambda name=name: run.advance(name))
        run.save({"trainings": {name: vars(one) for name, one in found.items()}})
        left, right = run.figure(2, "Both digits right, of pictures not seen before", "epoch")
        for name, one in found.items():
            left.plot(range(1, epochs + 1), one.accuracy, label=name)
        left.legend()
        right.bar(list(found), [float(np.median(one.seconds)) for one in found.values()])
        right.set_yscale("log")
        right.set_ylabel("seconds an epoch")
        right.tick_params(axis="x", labelrotation=20)
    run.table([
        {
            "contestant": name,
            "accuracy": one.accuracy[-1],
            "s/epoch": float(np.median(one.seconds)),
            "MB": one.bytes / 1e6,
            "gradient error": one.gradient_error,
        }
        for name, one in found.items()
    ])  # fmt: skip
    return found


if __name__ == "__main__":
    main()
