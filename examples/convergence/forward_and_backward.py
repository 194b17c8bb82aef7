"""Unrolling from a cold start: how the solution and how the gradient converge with depth.

The error of the solution after K iterations, ‖x_K − x*‖/‖x*‖, and of the gradient that backpropagation
through them gives, against an exact reference. The gradient lags behind: its error begins to fall when the
iteration has found the active set, at the rate ρ(Φ) that also governs the end of the forward pass. On curved
cones, where Φ itself still changes with u, it falls like K ρ(Φ)ᴷ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from study import (
    COLOURS,
    Case,
    arguments,
    axes,
    case,
    errors,
    evaluate,
    finish,
    make_layer,
    reached_radius,
    table,
)  # fmt: skip
from torch import Tensor

from cvxfold.fold import Unrolled

# Penalties near the best of each family: these are curves of a well-tuned solver. The last one is larger than
# the best, so that the factor K has time to show.
PROBLEMS = {
    "dense_qp20": ("dense QP, 20 variables", 0.3, 200),
    "portfolio": ("Markowitz portfolio, 20 assets", 0.1, 200),
    "mpc": ("model predictive control, 10 steps", 0.5, 400),
    "robust_portfolio": ("robust portfolio (second-order cone)", 3.0, 300),
}
QUICK = ("dense_qp20", "robust_portfolio")
CURVED = ("robust_portfolio",)
DIGITS = (1e-3, 1e-6)
SHOWN = (50, 100, 150, 200, 250)  # depths at which the curved family's errors are set against ρ(Φ)ᴷ


@dataclass(frozen=True)
class Curves:
    """Errors by depth for one family.

    Args:
        depths: K, ``(N,)``.
        forward, backward: relative errors, ``(N, B)``.
        radius: ρ(Φ), ``(B,)``.
    """

    depths: Tensor
    forward: Tensor
    backward: Tensor
    radius: Tensor

    def depth(self, error: Tensor, tol: float) -> Tensor:
        """The depth from which an error ``(N, B)`` stays below ``tol``, ``(B,)``; NaN where it does not."""
        above = error > tol
        first = torch.where(above.any(0), above.shape[0] - above.flip(0).long().argmax(0), 0)
        return torch.cat([self.depths, self.depths.new_full((1,), torch.nan)])[first]

    def median_depth(self, error: Tensor, tol: float) -> float:
        """The median of the same, an instance that does not get there counting as the slowest."""
        return float(self.depth(error, tol).nan_to_num(torch.inf).median())

    def behind(self, tol: float) -> Tensor:
        """The error of the gradient at the depth from which the solution's stays below ``tol``, ``(B,)``."""
        reached = self.depth(self.forward, tol).nan_to_num(float(self.depths[-1]))
        reached = torch.searchsorted(self.depths, reached)
        return self.backward.gather(0, reached.unsqueeze(0)).squeeze(0)

    def slope(self, error: Tensor) -> Tensor:
        """The factor per iteration where an error ``(N, B)`` is between 1e-4 and 1e-10, ``(B,)``."""
        rates = []
        for column in error.unbind(1):
            kept = (column < 1e-4) & (column > 1e-10)
            k, log = self.depths[kept], column[kept].log()
            k = k - k.mean()
            rates.append((k * log).sum() / k.square().sum())
        return torch.stack(rates).exp()

    def over_rate(self, error: Tensor, instance: int, depth: float) -> float:
        """An instance's error over ρ(Φ)ᴷ, at the depth nearest to the given one."""
        at = int((self.depths - depth).abs().argmin())
        return float(error[at, instance] / self.radius[instance] ** self.depths[at])


def curves(truth: Case, penalty: float, deepest: int, points: int) -> Curves:
    """Solve and differentiate at growing depths."""
    depths = torch.linspace(1, deepest, points).round().long().unique()
    forward, backward = [], []
    for depth in depths.tolist():
        unrolled = Unrolled(depth, start="cold")
        layer = make_layer(truth, backward=unrolled, penalty=penalty, on_unconverged="ignore")
        values, gradients = evaluate(layer, truth)
        forward.append(errors(values, truth.values))
        backward.append(errors(gradients, truth.gradients))
    folded = make_layer(truth, penalty=penalty)
    radius = reached_radius(folded, truth)
    return Curves(depths.double(), torch.stack(forward), torch.stack(backward), radius)


def main(argv: Sequence[str] | None = None) -> dict[str, Curves]:
    """Compute, print, draw."""
    args = arguments("forward_and_backward", __doc__, argv)
    names, batch, points = (QUICK, 4, 25) if args.quick else (tuple(PROBLEMS), 16, 60)
    found = {}
    for name in names:
        _, penalty, deepest = PROBLEMS[name]
        found[name] = curves(case(name, batch), penalty, deepest, points)
    rows = []
    for name, c in found.items():
        lags = [
            f"{c.median_depth(c.forward, tol):.0f} / {c.median_depth(c.backward, tol):.0f}" for tol in DIGITS
        ]
        rows.append([
            PROBLEMS[name][0], *lags, f"{float(c.behind(1e-3).median()):.0e}",
            f"{float(c.radius.median()):.3f}",
            f"{float(c.slope(c.forward).median()):.3f} / {float(c.slope(c.backward).median()):.3f}",
        ])  # fmt: skip
    table(
        f"solution / gradient, median of {batch} instances",
        ["problem", "depth to 1e-3", "to 1e-6", "gradient where x has 1e-3", "ρ(Φ)", "slopes"],
        rows,
    )
    for name in CURVED:
        c = found[name]
        slowest = int(c.radius.argmax())
        depths = [depth for depth in SHOWN if depth <= float(c.depths[-1])]
        table(
            f"{PROBLEMS[name][0]}, the slowest instance, ρ(Φ) = {float(c.radius[slowest]):.3f}",
            ["error / ρ(Φ)ᴷ at K =", *map(str, depths)],
            [
                [what, *(f"{c.over_rate(error, slowest, depth):.2g}" for depth in depths)]
                for what, error in (("solution", c.forward), ("gradient", c.backward))
            ],
        )
    draw(found, args.output)
    return found


def draw(found: dict[str, Curves], output: Path) -> None:
    """One panel a problem: the instance whose ρ(Φ) is the median one."""
    figure, grid = axes((len(found) + 1) // 2, 2, 3.1 * ((len(found) + 1) // 2))
    for ax, (name, c) in zip(grid.flat, found.items(), strict=False):
        one = int((c.radius - c.radius.median()).abs().argmin())
        start = float(c.depth(c.backward, 1e-2)[one])
        k = c.depths[c.depths >= start]
        line = 10 * 1e-2 * c.radius[one] ** (k - start)
        ax.semilogy(c.depths, c.forward[:, one], color=COLOURS["forward"], label="solution")
        ax.semilogy(c.depths, c.backward[:, one], color=COLOURS["backward"], label="gradient")
        ax.semilogy(k, line, color=COLOURS["theory"], linestyle="--", linewidth=1.2, label="ρ(Φ)ᴷ")
        if name in CURVED:
            line = line * k / start
            ax.semilogy(k, line, color=COLOURS["theory"], linestyle=":", linewidth=1.4, label="K ρ(Φ)ᴷ")
            ax.legend(loc="upper right")
        end = min(1.15 * float(c.depth(c.backward, 1e-12)[one]), float(c.depths[-1]))
        ax.set(
            title=PROBLEMS[name][0], xlabel="iterations unrolled, K", ylim=(1e-13, 30), xlim=(0, end),
        )  # fmt: skip
        ax.text(0.04, 0.06, f"ρ(Φ) = {float(c.radius[one]):.3f}", transform=ax.transAxes)
    for row in grid:
        row[0].set_ylabel("relative error")
    grid[0, 0].legend(loc="upper right")
    finish(figure, output)


if __name__ == "__main__":
    main()
