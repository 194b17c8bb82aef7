"""Multi-label classification through the entropic top-k layer, on pairs of real handwritten digits.

    minimize −cᵀy + τ Σ yᵢ log yᵢ + (1 − yᵢ) log(1 − yᵢ)    subject to Σy = k,  0 ≤ y ≤ 1

A picture shows k = 2 different digits side by side; a network scores the ten digits, and the layer makes of
the scores c probabilities that add up to k (the limited multi-label projection of Amos, Koltun and Kolter).
Trained on the log-likelihood. The black box in front of the folded steps finds the multiplier ν of Σy = k in
y = σ((c + ν)/τ) by bisection. Step sizes and depths are those of Kotary, Christopher, Dinh and Fioretto.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as PeerLayer
from experiment import Course, Experiment, Plan, gradient, start, trained
from sklearn.datasets import load_digits
from torch import Tensor, nn

import cvxfold
from cvxfold.fold import GMRES, LFPI, Unrolled, projections
from cvxfold.fold.updates import ProjectedGradient, SQPStep
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


def loss_of(layer: Layer | None, scores: Tensor, labels: Tensor) -> Tensor:
    """The negative log-likelihood."""
    y = torch.sigmoid(scores) if layer is None else layer(scores).clamp(1e-12, 1 - 1e-12)
    return -(labels * y.log() + (1 - labels) * (1 - y).log()).sum(-1).mean()


def exact_gradient(scores: Tensor, labels: Tensor) -> Tensor:
    """The same in closed form: dy = D(dc − 1 (1ᵀD dc)/(1ᵀD 1)) with D = diag(y(1 − y))/τ."""
    y = black_box(scores)
    bar = -(labels / y - (1 - labels) / (1 - y)) / len(scores)
    D = y * (1 - y) / WEIGHT
    return D * (bar - (D * bar).sum(-1, keepdim=True) / D.sum(-1, keepdim=True))


def train(
    layer: Layer | None, data: tuple[Tensor, Tensor], plan: Plan, seed: int, told: Callable[[], None]
) -> tuple[Course, float]:
    """Train a network on the first samples; the rest is the test. The score is of both digits right.

    Returns:
        The course, its gradient error that of the trained network; and that of the untrained one.
    """
    pictures, labels = data
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(pictures.shape[1], 64), nn.ReLU(), nn.Linear(64, DIGITS)).double()

    def loss(rows: slice) -> Tensor:
        return loss_of(layer, model(pictures[rows]), labels[rows])

    @torch.no_grad()
    def share() -> float:
        top = model(pictures[plan.samples :]).topk(LABELS).indices
        return float((labels[plan.samples :].gather(1, top).sum(-1) == LABELS).double().mean())

    first, _ = _measured(layer, model(pictures[:BATCH]), labels[:BATCH])
    course = trained(loss, torch.optim.Adam(model.parameters(), lr=RATE), share, plan, told)
    course.gradient_error, course.bytes = _measured(layer, model(pictures[:BATCH]), labels[:BATCH])
    return course, first


def _measured(layer: Layer | None, scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """The error of a loss gradient at these scores, and its bytes; NaN without a layer."""
    if layer is None:
        return float("nan"), float("nan")
    found, held = gradient(lambda scores: loss_of(layer, scores, labels), scores)
    exact = exact_gradient(scores.detach(), labels)
    return float((found - exact).norm() / exact.norm()), held


def main(argv: Sequence[str] | None = None) -> dict[str, Course]:
    """Train all contestants."""
    given = start("multilabel", __doc__, argv)
    count, epochs, depth = (250, 3, 50) if given.quick else (1250, 10, DEPTH)
    data = pairs(count, given.seed)
    contestants, plan = given.among(layers(depth)), Plan(int(0.8 * count), BATCH, epochs)
    found: dict[str, Course] = {}
    first: dict[str, float] = {}
    warnings.simplefilter("ignore", cvxfold.ConvergenceWarning)  # what is not exact is told in the figures
    with Experiment(given, "multilabel", plan.steps * len(contestants)) as run:
        for name, layer in contestants.items():
            found[name], first[name] = train(
                layer, data, plan, given.seed, lambda name=name: run.advance(name)
            )
            run.keep(found, {"gradient error at first": first})
        title = "Both digits right, of pictures not seen before"
        run.compare(found, "accuracy", title, {"gradient error at first": first})
    return found


if __name__ == "__main__":
    main()
