"""Unrolling from the fixed point is the linear fixed-point iteration, step for step.

Backpropagation through K iterations that start at the solution against K steps of w ← Φᵀw + ū: the same
gradient to rounding, for every K, and the same residual at every step, on polyhedral and on curved cones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from study import COLOURS, Case, arguments, axes, case, errors, evaluate, finish, make_layer, table
from torch import Tensor

from cvxfold.fold import LFPI, Unrolled
from cvxfold.torch import CvxpyLayer

PROBLEMS = {
    "dense_qp20": ("dense QP, 20 variables", 0.3, 80),
    "mpc": ("MPC, 10 steps", 0.5, 120),
    "multi_label": ("multi-label projection (exp. cones)", 0.5, 60),
    "nearest_correlation": ("nearest correlation (SDP)", 0.3, 40),
}
QUICK = ("dense_qp20", "nearest_correlation")


@dataclass(frozen=True)
class Pair:
    """Both by depth for one family.

    Args:
        depths: K, ``(N,)``.
        unrolled, lfpi: relative errors of the gradients, ``(N, B)``.
        difference: between the two gradients, relative, ``(N, B)``.
        residuals: the largest difference of the relative residuals over all steps of the deepest run.
    """

    depths: Tensor
    unrolled: Tensor
    lfpi: Tensor
    difference: Tensor
    residuals: float


def pair(truth: Case, penalty: float, deepest: int, points: int) -> Pair:
    """Differentiate both ways at growing depths."""
    depths = torch.linspace(1, deepest, points).round().long().unique()
    unrolled, lfpi, difference, residuals = [], [], [], torch.inf
    for depth in depths.tolist():
        common = {"penalty": penalty, "on_unconverged": "ignore"}
        by_unrolling = make_layer(truth, backward=Unrolled(depth, start="solution"), **common)
        by_folding = make_layer(
            truth, backward=LFPI(), backward_max_iters=depth, backward_tol=1e-300, **common
        )
        (_, first), (_, second) = evaluate(by_unrolling, truth), evaluate(by_folding, truth)
        unrolled.append(errors(first, truth.gradients))
        lfpi.append(errors(second, truth.gradients))
        difference.append(errors(first, second))
        residuals = float((history(by_unrolling) - history(by_folding)).abs().amax())
    return Pair(depths, torch.stack(unrolled), torch.stack(lfpi), torch.stack(difference), residuals)


def history(layer: CvxpyLayer) -> Tensor:
    """The residuals of the last backward pass, ``(K, B)``."""
    assert layer.report is not None
    assert layer.report.backward is not None
    return layer.report.backward.history


def main(argv: Sequence[str] | None = None) -> dict[str, Pair]:
    """Compute, print, draw."""
    args = arguments("unrolled_is_lfpi", __doc__, argv)
    names, batch, points = (QUICK, 4, 10) if args.quick else (tuple(PROBLEMS), 8, 30)
    found = {}
    for name in names:
        _, penalty, deepest = PROBLEMS[name]
        found[name] = pair(case(name, batch), penalty, deepest, points)
    table(
        f"unrolled from the solution against LFPI, {batch} instances, depths 1 to K",
        ["problem", "K", "gradients differ by at most", "residuals by at most"],
        [
            [
                PROBLEMS[name][0],
                str(int(p.depths[-1])),
                f"{float(p.difference.amax()):.0e}",
                f"{p.residuals:.0e}",
            ]
            for name, p in found.items()
        ],
    )
    draw(found, args.output)
    return found


def draw(found: dict[str, Pair], output: Path) -> None:
    """Above, the errors of both; below, how far they are apart."""
    figure, grid = axes(
        2, len(found), 4.2, sharex="col", sharey="row", gridspec_kw={"height_ratios": [1.6, 1]}
    )
    for (top, bottom), (name, p) in zip(grid.T, found.items(), strict=True):
        top.semilogy(p.depths, p.lfpi[:, 0], color=COLOURS["folded"], label="LFPI, K steps")
        top.semilogy(
            p.depths,
            p.unrolled[:, 0],
            "o",
            color=COLOURS["backward"],
            markersize=3.5,
            label="unrolled, K iterations",
        )
        bottom.semilogy(
            p.depths, p.difference.amax(1).clamp_min(1e-17), color=COLOURS["theory"], linewidth=1.2
        )
        title = (
            PROBLEMS[name][0].replace(" (", "\n(").replace(", ", ",\n").replace("predictive ", "predictive\n")
        )
        top.set_title(title, fontsize=10)
        top.set_ylim(1e-8, 1e3)
        bottom.set(ylim=(1e-17, 1e-11), xlabel="K", xlim=(0, p.depths[-1]))
    grid[0, 0].set_ylabel("error of the gradient")
    grid[1, 0].set_ylabel("difference,\nworst instance")
    grid[0, 0].legend(loc="upper right", fontsize=8)
    finish(figure, output)


if __name__ == "__main__":
    main()
