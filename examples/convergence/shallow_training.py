"""Training through a shallow unrolled solver learns the wrong thing.

A linear model predicts the returns of 20 assets from 6 features, Markowitz's problem invests, and the regret
of the portfolios is the loss. The same model, data, optimizer and steps; only the gradient differs: unrolled
from a cold start, unrolled from the solution (which truncates the backward pass), or folded. What is shown is
the regret of the exact portfolios at the learned predictions: what the model is worth once it is used.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from study import COLOURS, arguments, axes, finish, table
from torch import Tensor

from cvxfold.fold import Unrolled
from cvxfold.torch import CvxpyLayer

ASSETS, FACTORS, FEATURES = 20, 5, 6
RISK = 0.02
PENALTY = 0.1
METHODS: dict[str, Any] = {
    "folded": "auto",
    "cold, K = 2": Unrolled(2, start="cold"),
    "cold, K = 5": Unrolled(5, start="cold"),
    "cold, K = 20": Unrolled(20, start="cold"),
    "cold, K = 100": Unrolled(100, start="cold"),
    "from the solution, K = 2": Unrolled(2),
    "from the solution, K = 5": Unrolled(5),
    "from the solution, K = 20": Unrolled(20),
    "from the solution, K = 100": Unrolled(100),
}
QUICK = ("folded", "cold, K = 2", "cold, K = 5", "from the solution, K = 2", "from the solution, K = 100")


@dataclass(frozen=True)
class Task:
    """Features ``(N, f)``, returns ``(N, n)``, what knowing them is worth ``(N,)``, and the first weights."""

    layer: Callable[..., CvxpyLayer]
    utility: Callable[[Tensor, Tensor], Tensor]
    features: Tensor
    returns: Tensor
    best: Tensor
    first: Tensor

    def regret(self, portfolios: Tensor) -> Tensor:
        """What the portfolios ``(N, n)`` miss, on average."""
        return (self.best - self.utility(portfolios, self.returns)).mean()


@dataclass(frozen=True)
class Course:
    """One training.

    Args:
        exact: regret of the exact portfolios by step.
        seen: the loss that the training saw.
        cosine: between its first gradient and the exact one.
        error: of its first gradient, relative.
    """

    exact: list[float]
    seen: list[float]
    cosine: float
    error: float


def make_task(seed: int, samples: int) -> Task:
    """Draw a task: returns that depend on the features, and noise."""
    rng = np.random.default_rng(7)
    F = 0.3 * rng.standard_normal((ASSETS, FACTORS))
    w, mu = cp.Variable(ASSETS), cp.Parameter(ASSETS)
    risk = cp.sum_squares(F.T @ w) + RISK * cp.sum_squares(w)
    problem = cp.Problem(cp.Minimize(-mu @ w + risk), [cp.sum(w) == 1, w >= 0])  # pyright: ignore[reportArgumentType]
    root = torch.from_numpy(F)

    def utility(w: Tensor, mu: Tensor) -> Tensor:
        return (mu * w).sum(-1) - (w @ root).square().sum(-1) - RISK * w.square().sum(-1)

    def layer(**options: Any) -> CvxpyLayer:
        return CvxpyLayer(problem, [mu], [w], penalty=PENALTY, on_unconverged="ignore", **options)

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    features, truth = normal(samples, FEATURES), normal(FEATURES, ASSETS)
    returns = 0.1 * torch.tanh(features @ truth) + 0.03 * normal(samples, ASSETS)
    best = utility(layer()(returns)[0], returns)
    return Task(layer, utility, features, returns, best, 0.01 * normal(FEATURES, ASSETS))


def train(task: Task, method: Any, steps: int) -> Course:
    """Adam on the whole of the data, with one method's gradients."""
    layer, exact = task.layer(backward=method), task.layer()
    weights = task.first.clone().requires_grad_()
    first, right = gradient(task, layer, weights)[1], gradient(task, exact, weights)[1]
    cosine, error = _cosine(first, right), float((first - right).norm() / right.norm())
    optimizer = torch.optim.Adam([weights], lr=0.05)
    values, seen = [], []
    for _ in range(steps):
        with torch.no_grad():
            values.append(float(task.regret(exact(task.features @ weights)[0])))
        loss, weights.grad = gradient(task, layer, weights)
        seen.append(loss)
        optimizer.step()
    with torch.no_grad():
        values.append(float(task.regret(exact(task.features @ weights)[0])))
    return Course(values, seen, cosine, error)


def gradient(task: Task, layer: CvxpyLayer, weights: Tensor) -> tuple[float, Tensor]:
    """The loss as the layer sees it, and its gradient."""
    loss = task.regret(layer(task.features @ weights)[0])
    return loss.item(), torch.autograd.grad(loss, weights)[0]


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def main(argv: Sequence[str] | None = None) -> dict[str, list[Course]]:
    """Train, print, draw."""
    args = arguments("shallow_training", __doc__, argv)
    names, seeds, samples, steps = (QUICK, 1, 32, 40) if args.quick else (tuple(METHODS), 3, 32, 100)
    found: dict[str, list[Course]] = {name: [] for name in names}
    for seed in range(seeds):
        task = make_task(seed, samples)
        for name in names:
            found[name].append(train(task, METHODS[name], steps))
    rows = []
    for name, courses in found.items():
        end = [c.exact[-1] for c in courses]
        rows.append([
            name, f"{statistics.mean(c.exact[0] for c in courses):.4f}", f"{statistics.mean(end):.4f}",
            f"{min(end):.4f} to {max(end):.4f}", f"{statistics.mean(c.seen[-1] for c in courses):.4f}",
            f"{statistics.mean(c.cosine for c in courses):.2f}",
            f"{statistics.mean(c.error for c in courses):.0e}",
        ])  # fmt: skip
    table(
        f"regret after {steps} steps, {seeds} seeds",
        ["gradient", "before", "after", "range", "loss as trained", "first cosine", "first error"],
        rows,
    )
    draw(found, args.output)
    return found


def draw(found: dict[str, list[Course]], output: Path) -> None:
    """Cold starts on the left, starts from the solution on the right, the mean over seeds."""
    figure, grid = axes(1, 2, 3.9, sharey=True)
    shades = ["#6d1a26", "#d1495b", "#e2a23b", "#3b6fb6"]
    for ax, prefix, title in (
        (grid[0, 0], "cold", "unrolled from a cold start"),
        (grid[0, 1], "from the solution", "unrolled from the solution"),
    ):
        for name, courses in found.items():
            if not name.startswith((prefix, "folded")):
                continue
            depth = name.split("K = ")[-1]
            colour = COLOURS["folded"] if name == "folded" else shades[["2", "5", "20", "100"].index(depth)]
            mean = np.mean([c.exact for c in courses], axis=0)
            dashed = "--" if name == "folded" else "-"
            label = name if name == "folded" else f"K = {depth}"
            ax.semilogy(mean, dashed, color=colour, label=label, zorder=3 if name == "folded" else 2)
        ax.set(title=title, xlabel="training step")
        ax.legend(loc="upper left", ncols=2, fontsize=8)
    grid[0, 0].set_ylabel("regret of the exact portfolios")
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(low, 2.2 * high)
    finish(figure, output)


if __name__ == "__main__":
    main()
