"""The step that is best for the solution is not the one that is best for the gradient.

Sweeps the relaxation α, and the penalty ρ, of the splitting iteration: iterations from a cold start until the
solution is within a tolerance, and steps of LFPI until the residual of the adjoint is. Folding gives the backward
pass a step γ of its own: LFPI(step=γ) under the forward pass's best α makes up the difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from study import COLOURS, Case, arguments, axes, case, evaluate, finish, make_layer, optimum, table
from torch import Tensor

from cvxfold.fold import LFPI

TOL = 1e-3
MOST = 1500
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
QUICK = ("linear_program", "portfolio")
SHOWN = (("linear_program", "α"), ("portfolio", "ρ"))


@dataclass(frozen=True)
class Sweep:
    """Iterations by step: the tested values ``(N,)``, and forward and backward iterations ``(N, B)``."""

    values: Tensor
    forward: Tensor
    backward: Tensor

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """Where each instance's forward and backward pass is fastest, as indices, ``(B,)``."""
        return self.forward.argmin(0), self.backward.argmin(0)

    @property
    def paid(self) -> Tensor:
        """How many times more steps the backward pass takes at the forward pass's best than at its own, ``(B,)``."""
        at_forward = self.backward.gather(0, self.best[0].unsqueeze(0)).squeeze(0)
        return at_forward / self.backward.amin(0)


def sweep(truth: Case, which: str, values: Tensor) -> Sweep:
    """Iterations of both passes for each value of α or ρ."""
    pairs = []
    for value in values.tolist():
        options = {"penalty": PENALTY, "relaxation": RELAXATION} | {"relaxation" if which == "α" else "penalty": value}
        layer = make_layer(truth, backward=LFPI(), **_lfpi(options))
        pairs.append((forward_iterations(layer, truth), backward_iterations(layer, truth)))
    forward, backward = zip(*pairs, strict=True)
    return Sweep(values, torch.stack(forward), torch.stack(backward))


def own_step(truth: Case, relaxation: float, steps: Tensor) -> Tensor:
    """Backward iterations by γ, with the forward pass's α, ``(N, B)``."""
    options = _lfpi({"penalty": PENALTY, "relaxation": relaxation})
    return torch.stack([
        backward_iterations(make_layer(truth, backward=LFPI(step=step), **options), truth) for step in steps.tolist()
    ])  # fmt: skip


def _lfpi(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "backward_tol": TOL, "backward_max_iters": MOST, "on_unconverged": "ignore"}


def forward_iterations(layer: Any, truth: Case) -> Tensor:
    """Applications of F from zero until ‖x_K − x*‖/‖x*‖ stays within the tolerance, ``(B,)``."""
    at = optimum(layer, truth.params)
    splitting = at.splitting
    x = splitting.evaluate(at.u).x
    u, needed = torch.zeros_like(at.u), torch.zeros(len(at.u), dtype=torch.float64)
    for k in range(MOST):
        point = splitting.evaluate(u)
        error = (point.x - x).norm(dim=-1) / x.norm(dim=-1)
        needed = torch.where(error > TOL, k + 1.0, needed)
        if bool((error < 1e-3 * TOL).all()):
            break
        u = u + splitting.alpha * point.g
    return needed


def backward_iterations(layer: Any, truth: Case) -> Tensor:
    """Steps of LFPI until the relative residual of the adjoint is within the tolerance, ``(B,)``."""
    evaluate(layer, truth)
    met = layer.report.backward.history <= TOL
    return torch.where(met.any(0), met.long().argmax(0), MOST).double()


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, str], Sweep]:
    """Compute, print, draw."""
    args = arguments("best_step", __doc__, argv)
    names, batch, points = (QUICK, 4, 9) if args.quick else (tuple(FAMILIES), 16, 20)
    grids = {
        "α": torch.linspace(0.1, 1.95, points, dtype=torch.float64),
        "ρ": torch.logspace(-2, 1, points, dtype=torch.float64),
    }
    # An LP has P = 0: then ρ only scales the multipliers, and Φ is the same for all of them.
    kinds = {name: ("α",) if name in ("linear_program", "least_absolute") else ("α", "ρ") for name in names}
    found = {(n, kind): sweep(case(n, batch), kind, grids[kind]) for n in names for kind in kinds[n]}
    rows = []
    for (name, kind), s in found.items():
        forward, backward = s.best
        rows.append([
            FAMILIES[name], kind, f"{float(s.values[forward].median()):.2f}", f"{float(s.values[backward].median()):.2f}",
            f"{float(s.paid.median()):.2f}", f"{float(s.paid.amax()):.2f}",
        ])  # fmt: skip
    table(
        f"best step to {TOL:.0e}, {batch} instances: for the solution, for the gradient, and what is paid",
        ["problem", "step", "solution", "gradient", "times more steps", "worst"],
        rows,
    )
    shown = found[SHOWN[0]]
    alpha = float(shown.values[shown.forward.median(0).values.new_tensor(0).long()]) if False else best_of(shown.values, shown.forward)
    steps = grids["α"] / alpha
    remedy = own_step(case(SHOWN[0][0], batch), alpha, steps)
    at_one = backward_iterations(make_layer(case(SHOWN[0][0], batch), backward=LFPI(), **_lfpi({"penalty": PENALTY, "relaxation": alpha})), case(SHOWN[0][0], batch))
    print(alpha, float(at_one.mean()), float(remedy.mean(1).amin()), best_of(steps, remedy))
    return found


def best_of(values: Tensor, iterations: Tensor) -> float:
    """The value with the fewest iterations on average over the batch."""
    return float(values[iterations.mean(1).argmin()])


if __name__ == "__main__":
    main()
