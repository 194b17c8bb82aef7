"""The slope of the backward pass is the spectral radius of Φ.

The rate fitted to the residuals of LFPI, against ρ(Φ), on random instances of many problem families under
several penalties: two independent numbers, one seen from outside, one computed from the linearization.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from study import (
    COLOURS,
    arguments,
    axes,
    case,
    evaluate,
    finish,
    linearized,
    make_layer,
    reached_radius,
    spectral_radius,
    table,
)
from torch import Tensor

FAMILIES = {
    "dense_qp20": "dense QP",
    "portfolio": "portfolio",
    "mpc": "MPC",
    "total_variation": "total variation",
    "robust_portfolio": "robust portfolio (SOC)",
    "nearest_correlation": "nearest correlation (SDP)",
    "multi_label": "multi-label (exponential)",
}
QUICK = ("dense_qp20", "portfolio", "robust_portfolio")
PENALTIES = (0.1, 1.0, 10.0)
SLOWEST = 0.995  # beyond it the history would be longer than is worth waiting for


@dataclass(frozen=True)
class Rates:
    """By instance and penalty, ``(N,)``: ρ(Φ) where the loss reaches, of all Φ, and the fitted rate."""

    radius: Tensor
    dense: Tensor
    fitted: Tensor

    @property
    def deviation(self) -> Tensor:
        """|fitted/ρ − 1|."""
        return (self.fitted / self.radius - 1).abs()

    @property
    def iterations(self) -> Tensor:
        """|log ρ / log fitted − 1|: how far off a forecast of the iterations would be."""
        return (self.radius.log() / self.fitted.log() - 1).abs()


def rates(name: str, batch: int) -> Rates:
    """Fit and compute for one family."""
    truth = case(name, batch)
    parts = []
    for penalty in PENALTIES:
        layer = make_layer(
            truth, backward="lfpi", backward_tol=1e-13, backward_max_iters=8000,
            penalty=penalty, on_unconverged="ignore",
        )  # fmt: skip
        evaluate(layer, truth)
        radius = reached_radius(layer, truth)
        assert layer.report is not None
        assert layer.report.backward is not None
        dense = spectral_radius(linearized(layer, truth.params))
        part = torch.stack([radius, dense, layer.report.backward.rate])
        parts.append(part[:, radius < SLOWEST])
    return Rates(*torch.cat(parts, dim=1))


def main(argv: Sequence[str] | None = None) -> dict[str, Rates]:
    """Compute, print, draw."""
    args = arguments("slope_is_spectral_radius", __doc__, argv)
    names, batch = (QUICK, 4) if args.quick else (tuple(FAMILIES), 16)
    found = {name: rates(name, batch) for name in names}
    everything = Rates(
        *(torch.cat([getattr(r, k) for r in found.values()]) for k in ("radius", "dense", "fitted"))
    )
    rows = [(FAMILIES[name], r) for name, r in found.items()] + [("all", everything)]
    table(
        "the fitted rate against ρ(Φ)",
        ["problem", "points", "ρ(Φ) from", "to", "rate off by at most", "iterations, median", "at most"],
        [
            [
                label, str(len(r.radius)), f"{float(r.radius.amin()):.3f}", f"{float(r.radius.amax()):.3f}",
                f"{float(r.deviation.amax()):.2%}", f"{float(r.iterations.median()):.2%}",
                f"{float(r.iterations.amax()):.1%}",
            ]
            for label, r in rows
        ],
    )  # fmt: skip
    unreached = int((everything.dense > 1.01 * everything.radius).sum())
    print(f"{unreached} of {len(everything.dense)} Φ have larger eigenvalues that the loss does not reach")
    draw(found, args.output)
    return found


def draw(found: dict[str, Rates], output: Path) -> None:
    """The rates themselves, and their distance from one, where the slow ones are."""
    figure, grid = axes(1, 2, 3.8)
    left, right = grid[0]
    colours = [*COLOURS.values(), "#7f7f7f", "#17a2b8"]
    colours.remove(COLOURS["theory"])
    for (name, r), colour in zip(found.items(), colours, strict=False):
        style = {"color": colour, "markersize": 4, "markeredgewidth": 0}
        left.plot(r.radius, r.fitted, "o", label=FAMILIES[name], **style)
        right.loglog(1 - r.radius, 1 - r.fitted, "o", **style)
    for ax, ends in ((left, (0.55, 1.0)), (right, (4e-3, 0.5))):
        ax.plot(ends, ends, color=COLOURS["theory"], linewidth=1, zorder=0)
        ax.set(xlim=ends, ylim=ends)
    left.set(title="rate", xlabel="spectral radius ρ(Φ)", ylabel="fitted to the residuals")
    right.set(title="distance from one", xlabel="1 − ρ(Φ)", ylabel="1 − fitted")
    left.legend(loc="upper left", fontsize=8, handletextpad=0.1)
    finish(figure, output)


if __name__ == "__main__":
    main()
