"""One quadratic program, seven updates: how fast each converges forward, and how fast its gradient folds.

The fixed points are the same and so are the gradients; Φ, and with it every rate, is the update's own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from experiment import Experiment, start
from torch import Tensor

import cvxfold
from cvxfold.fold import projections
from cvxfold.fold.updates import (
    ADMM,
    Accelerated,
    DualProximalGradient,
    ProjectedGradient,
    ProximalGradient,
    SQPStep,
)

N, CONDITION, SEED = 30, 50.0, 0


def objective(x: Tensor, P: Tensor, q: Tensor) -> Tensor:
    """½xᵀPx + qᵀx, for each instance."""
    return 0.5 * (x * (P @ x.unsqueeze(-1)).squeeze(-1)).sum(-1) + (q * x).sum(-1)


def simplex(z: Tensor, *_: Any) -> Tensor:
    """The set: a simplex."""
    return projections.simplex(z)


def program(P: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same for ADMM, as l ≤ Ax ≤ u."""
    n = q.shape[-1]
    A = torch.cat([torch.ones(1, n), torch.eye(n)]).double()
    low = torch.cat([torch.ones(1), torch.zeros(n)]).double()
    return P, q, A, low, torch.cat([torch.ones(1), torch.full((n,), torch.inf)]).double()


def data(batch: int) -> tuple[Tensor, Tensor]:
    """P ``(B, n, n)`` with eigenvalues from 1 to the condition number, and q ``(B, n)``."""
    generator = torch.Generator().manual_seed(SEED)
    basis, _ = torch.linalg.qr(torch.randn(batch, N, N, dtype=torch.float64, generator=generator))
    P = (
        basis
        @ torch.diag(torch.logspace(0, torch.log10(torch.tensor(CONDITION)).item(), N).double())
        @ basis.mT
    )
    return P, 5 * torch.randn(batch, N, dtype=torch.float64, generator=generator)


def updates() -> dict[str, tuple[Any, Callable[[Tensor, Tensor], Any], Callable[..., Tensor]]]:
    """Each update, where it starts, and the solution of its fixed point."""
    dual = DualProximalGradient(
        lambda z, P, q: torch.linalg.solve(P, (z - q).unsqueeze(-1)).squeeze(-1),
        lambda P, q: torch.eye(N, dtype=torch.float64),
        lambda z, s, P, q: projections.simplex(z),
        step=1.0,
    )
    root = CONDITION**0.5
    proximal = ProximalGradient(objective, lambda z, s, *_: projections.simplex(z), 1 / CONDITION)
    sqp = SQPStep(
        objective, lambda x, *_: x.sum(-1, keepdim=True) - 1, lambda x, *_: -x, lambda x, P, q: P, step=0.5
    )
    admm = ADMM(program, penalty=root)

    def zeros(P: Tensor, q: Tensor) -> Tensor:
        return torch.zeros_like(q)

    def pair(P: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(q), torch.zeros_like(q)

    def own(x: Tensor, *_: Tensor) -> Tensor:
        return x

    return {
        "projected gradient, 1/L": (ProjectedGradient(objective, simplex, 1 / CONDITION), zeros, own),
        "projected gradient, 2/(L + μ)": (
            ProjectedGradient(objective, simplex, 2 / (CONDITION + 1)),
            zeros,
            own,
        ),
        "accelerated, 1/L": (Accelerated(proximal, (root - 1) / (root + 1)), pair, lambda s, P, q: s[0]),
        "dual proximal gradient": (dual, zeros, dual.primal),
        "FDPG": (Accelerated(dual, (root - 1) / (root + 1)), pair, lambda s, P, q: dual.primal(s[0], P, q)),
        "ADMM": (admm, lambda P, q: q.new_zeros(len(q), N + 1), admm.primal),
        "SQP, α = ½": (sqp, lambda P, q: torch.full_like(q, 1 / N), own),
    }


def measured(name: str, update: Any, begin: Any, primal: Any, batch: int) -> dict[str, Any]:
    """Rates and iterations of one update."""
    P, q = data(batch)
    q.requires_grad_()
    found: dict[str, Any] = {"update": name}

    def solve(**options: Any) -> tuple[Tensor, Any]:
        folded = cvxfold.fold(update, start=begin, batched=True, on_unconverged="ignore", **options)
        return primal(folded(P, q), P, q), folded

    x, folded = solve(acceleration=0, tol=1e-10)
    found["forward"] = int(folded.report.forward.iterations.median())
    folded = solve(tol=1e-10)[1]
    found["accelerated"] = int(folded.report.forward.iterations.median())
    x_bar = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    gradients = {}
    for method in ("lfpi", "gmres", "auto"):
        x, folded = solve(backward=method, backward_tol=1e-8, tol=1e-12)
        (gradients[method],) = torch.autograd.grad((x_bar * x).sum(), q)
        found[method] = int(folded.report.backward.iterations.median())
    analysis = cvxfold.analyze(folded, P, q.detach())
    found["ρ(Φ)"] = float(analysis.spectral_radius.median())
    found["gradient"] = gradients["auto"]
    return found


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure all updates; returns a row for each."""
    given = start("which_update", __doc__, argv)
    batch = 2 if given.quick else 16
    rows = []
    with Experiment(given, "updates", len(updates())) as run:
        for name, (update, begin, primal) in updates().items():
            rows.append(measured(name, update, begin, primal, batch))
            run.advance(name)
        reference = rows[0]["gradient"]
        for row in rows:
            row["differs by"] = float((row.pop("gradient") - reference).norm() / reference.norm())
        run.save({"rows": rows, "condition": CONDITION, "variables": N, "instances": batch})
        axis = run.figure(1, "Iterations for a gradient to 1e-8", "median over the batch")[0]
        places = torch.arange(len(rows)).numpy()
        for shift, method in ((-0.2, "lfpi"), (0.2, "gmres")):
            axis.barh(places + shift, [row[method] for row in rows], 0.35, label=method)
        axis.set_yticks(places, [row["update"] for row in rows])
        axis.set_xscale("log")
        axis.legend()
    run.table(rows)
    return rows


if __name__ == "__main__":
    main()
