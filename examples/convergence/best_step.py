"""The step that is best for the solution is not the one that is best for the gradient.

Sweeps the relaxation α, and the penalty ρ, of the splitting iteration: iterations from a cold start until
the solution is within a tolerance, and steps of LFPI until the residual of the adjoint is. Folding gives the
backward pass a step γ of its own: LFPI(step=γ) under the forward pass's best α makes up the difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from study import COLOURS, Case, arguments, axes, case, evaluate, finish, linearized, make_layer, table
from torch import Tensor

from cvxfold.fold import LFPI

TOL = 1e-3
MOST = 5000
PENALTY = 0.5  # while α is swept
RELAXATION = 1.6  # while ρ is swept
FAMILIES = {
    "linear_program": "linear program",
    "least_absolute": "least absolute deviations (LP)",
    "total_variation": "total variation",
    "dense_qp20": "dense QP",
    "portfolio": "portfolio",
    "mpc": "MPC",
    "robust_portfolio": "robust portfolio (SOC)",
    "nearest_correlation": "nearest correlation (SDP)",
}
QUICK = ("least_absolute", "portfolio")


@dataclass(frozen=True)
class Sweep:
    """Iterations by step: the tested values ``(N,)``, and forward and backward iterations ``(N, B)``."""

    values: Tensor
    forward: Tensor
    backward: Tensor

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """Where each instance's forward and backward pass is fastest, as indices, ``(B,)``.

        Of values that differ by less than 5 percent for the forward pass the backward pass has its choice.
        """
        good = self.forward <= 1.05 * self.forward.amin(0)
        return torch.where(good, self.backward, torch.inf).argmin(0), self.backward.argmin(0)

    @property
    def paid(self) -> Tensor:
        """The backward pass's steps at the forward pass's best value over those at its own, ``(B,)``."""
        at_forward = self.backward.gather(0, self.best[0].unsqueeze(0)).squeeze(0)
        return at_forward / self.backward.amin(0)


@dataclass(frozen=True)
class Remedy:
    """The backward pass's own step, on the instance where the relaxation matters most.

    Args:
        relaxation: α, the best for its forward pass.
        step: γ, the best for its backward pass then.
        common, own: steps of LFPI with γ = 1 and with that γ.
    """

    relaxation: float
    step: float
    common: float
    own: float


Sweeps = dict[tuple[str, str], Sweep]


def sweep(truth: Case, which: str, values: Tensor) -> Sweep:
    """Iterations of both passes for each value of α or ρ."""
    pairs = []
    for value in values.tolist():
        options = {"penalty": PENALTY, "relaxation": RELAXATION} | {
            "relaxation" if which == "α" else "penalty": value
        }
        layer = make_layer(truth, backward=LFPI(), **_lfpi(options))
        pairs.append((forward_iterations(layer, truth), backward_iterations(layer, truth)))
    forward, backward = zip(*pairs, strict=True)
    return Sweep(values, torch.stack(forward), torch.stack(backward))


def remedy(truth: Case, swept: Sweep, instance: int) -> Remedy:
    """Sweep γ under the forward pass's best α."""
    relaxation = float(swept.values[swept.best[0][instance]])
    options = _lfpi({"penalty": PENALTY, "relaxation": relaxation})
    found = {
        step: float(
            backward_iterations(make_layer(truth, backward=LFPI(step=step), **options), truth)[instance]
        )
        for step in [1.0, *(swept.values / relaxation).tolist()]
    }
    step = min(found, key=lambda one: found[one])
    return Remedy(relaxation, step, found[1.0], found[step])


def _lfpi(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "backward_tol": TOL, "backward_max_iters": MOST, "on_unconverged": "ignore"}


def forward_iterations(layer: Any, truth: Case) -> Tensor:
    """Applications of F from zero until ‖x_K − x*‖/‖x*‖ stays within the tolerance, ``(B,)``."""
    phi = linearized(layer, truth.params)
    x = phi.x
    u, needed = torch.zeros_like(phi.u), torch.zeros(len(phi.u), dtype=torch.float64)
    for k in range(MOST):
        error = (phi.moved(u - phi.u).x - x).norm(dim=-1) / x.norm(dim=-1)
        needed = torch.where(error > TOL, k + 1.0, needed)
        if bool((error < 1e-3 * TOL).all()):
            break
        u = phi.image(u)
    return needed


def backward_iterations(layer: Any, truth: Case) -> Tensor:
    """Steps of LFPI until the relative residual of the adjoint is within the tolerance, ``(B,)``."""
    evaluate(layer, truth)
    met = layer.report.backward.history <= TOL
    return torch.where(met.any(0), met.long().argmax(0), MOST).double()


def main(argv: Sequence[str] | None = None) -> tuple[Sweeps, Remedy]:
    """Compute, print, draw."""
    args = arguments("best_step", __doc__, argv)
    names, batch, points = (QUICK, 4, 9) if args.quick else (tuple(FAMILIES), 16, 20)
    grids = {
        "α": torch.linspace(0.2, 1.95, points, dtype=torch.float64),
        "ρ": torch.logspace(-2, 1, points, dtype=torch.float64),
    }
    # An LP has P = 0: then ρ only scales the multipliers, and Φ is the same for all of them.
    kinds = {name: ("α",) if name in ("linear_program", "least_absolute") else ("α", "ρ") for name in names}
    found = {(n, kind): sweep(case(n, batch), kind, grids[kind]) for n in names for kind in kinds[n]}
    rows = []
    for (name, kind), s in found.items():
        forward, backward = s.best
        rows.append([
            FAMILIES[name], kind, f"{float(s.values[forward].median()):.2f}",
            f"{float(s.values[backward].median()):.2f}", f"{float(s.paid.median()):.2f}",
            f"{float(s.paid.amax()):.2f}",
        ])  # fmt: skip
    table(
        f"best step to {TOL:.0e}, {batch} instances: for the solution, for the gradient, and what is paid",
        ["problem", "step", "solution", "gradient", "times more steps", "worst"],
        rows,
    )
    worst = {kind: pronounced(found, kind) for kind in ("α", "ρ")}
    (name, instance), swept = worst["α"], found[worst["α"][0], "α"]
    own = remedy(case(name, batch), swept, instance)
    print(
        f"{FAMILIES[name]}, most pronounced: α = {own.relaxation:.2f}, the best for the solution, "
        f"takes {own.common:.0f} steps of LFPI; with a step of its own, γ = {own.step:.2f}, {own.own:.0f}"
    )
    draw(found, worst, own, args.output)
    return found, own


def pronounced(found: Sweeps, kind: str) -> tuple[str, int]:
    """The family and the instance where the two bests are furthest apart."""
    name = max((n for n, k in found if k == kind), key=lambda n: float(found[n, kind].paid.amax()))
    return name, int(found[name, kind].paid.argmax())


def draw(found: Sweeps, worst: dict[str, tuple[str, int]], own: Remedy, output: Path) -> None:
    """The most pronounced instance of either sweep, and how much is paid over all instances."""
    figure, grid = axes(1, 3, 3.6)
    for ax, kind in zip(grid[0], ("α", "ρ"), strict=False):
        name, instance = worst[kind]
        s = found[name, kind]
        for label, iterations, best, colour in (
            ("solution", s.forward, s.best[0], COLOURS["forward"]),
            ("gradient (LFPI)", s.backward, s.best[1], COLOURS["backward"]),
        ):
            y, i = iterations[:, instance], int(best[instance])
            y = torch.where(y < MOST, y, torch.nan)
            ax.semilogy(s.values, y, color=colour, label=label)
            ax.semilogy(s.values[i], y[i], "o", color=colour)
        ax.axvline(
            float(s.values[s.best[0][instance]]), color=COLOURS["forward"], linewidth=0.9, linestyle=":"
        )
        ax.set_title(f"{FAMILIES[name].split(' (')[0]},\ninstance {instance}", fontsize=10)
    left, middle, right = grid[0]
    left.semilogy(
        own.relaxation, own.own, "D", color=COLOURS["folded"], label=f"gradient, own γ = {own.step:.2f}"
    )
    left.set(xlabel="relaxation α", ylabel=f"iterations to {TOL:.0e}")
    middle.set(xlabel="penalty ρ", xscale="log")
    left.set_ylim(top=left.get_ylim()[1] * 4)
    left.legend(loc="upper left", fontsize=8)
    for kind, colour in (("α", COLOURS["accent"]), ("ρ", COLOURS["other"])):
        paid = torch.cat([s.paid for (_, k), s in found.items() if k == kind]).sort().values
        share = torch.linspace(0, 100, len(paid))
        right.plot(share, paid, color=colour, label=f"{kind} (median {float(paid.median()):.2f})")
    right.set_title("all problems", fontsize=10)
    right.set(xlabel="percent of instances", ylabel="times more steps of LFPI", yscale="log")
    right.set_yticks([1, 2, 4], ["1", "2", "4"])
    right.minorticks_off()
    right.legend(loc="upper left", fontsize=8)
    finish(figure, output)


if __name__ == "__main__":
    main()
