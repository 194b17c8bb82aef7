"""The analysis of a folded iteration: the same questions, answered by evaluations and products alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.display.progress import Progress
from cvxfold.fold import Folded
from cvxfold.fold.examine import Place, examined
from cvxfold.fold.tape import UpdateLinearization, UpdateTape
from cvxfold.methods import AdjointSettings, Auto, solve_adjoint
from cvxfold.methods.by_name import ByProducts
from cvxfold.methods.history import estimate_rate
from cvxfold.report.records import BackwardRecord
from cvxfold.studies.analysis.forecast import as_tensor, forecasts, leading, radii_of, spectra_of
from cvxfold.studies.analysis.measures import backward_history, rate_of
from cvxfold.studies.analysis.result import Analysis
from cvxfold.studies.analysis.spectrum import arnoldi
from cvxfold.studies.losses import LossFunction, RandomLinearLoss

_LOSSES = 5  # random ones, where none is given
_OFF = 1e-2  # where the forward rate is measured from, relative to x, if nobody says where to start


def analyze_folded(
    folded: Folded,
    params: Sequence[Any],
    loss: LossFunction | None,
    tol: float,
    seed: int,
    advance: Progress,
) -> Analysis:
    """Analyze the backward pass of a folded iteration; see :func:`cvxfold.analyze`.

    A loss is a function of the leaves of x. Costs are not measured, and neither are the margin to kinks
    (whether there is one is told by the verdict) and the forward tolerance that the gradient needs.
    """
    advance("solving", 0, 3)
    tape = folded.tape(*params)
    layout = tape.layout
    losses = [loss] if loss is not None else [RandomLinearLoss(seed + number) for number in range(_LOSSES)]
    bars = [_gradient_of(one, tape) for one in losses]
    with torch.no_grad():
        advance("spectrum", 1, 3)
        phi = UpdateLinearization(tape)
        krylovs = [arnoldi(phi, bar) for bar in bars]
        spectra = spectra_of(krylovs)
        advance("rates", 2, 3)
        method = Auto() if tape.is_small else ByProducts()
        settings = AdjointSettings()
        system = solve_adjoint(method, phi, bars[0], settings)
        diagnosis = examined(Place(folded.update, tuple(params), tape), bars[0], system, probe=True)
        solved = torch.ones(layout.batch, dtype=torch.bool, device=layout.device)
        record = BackwardRecord.of(system, diagnosis, solved, settings.tol)
        history = backward_history(phi, bars[0])
        nan = torch.full_like(system.residual, math.nan)
        return Analysis(
            rows=layout.size,
            variables=layout.size,
            device=str(layout.device),
            tol=tol,
            loss="random" if loss is None else "given",
            penalty=nan,
            relaxation=1.0,
            spectral_radius=as_tensor(radii_of(spectra), nan),
            eigenvalues=leading(spectra, nan),
            exact=torch.tensor([krylov.complete for krylov in krylovs[0]], device="cpu"),
            forward_rate=rate_of(_step(folded, tape, params), _begin(folded, tape, params), tape.u),
            backward_rate=estimate_rate(history[1:]),
            backward_history=history,
            margin=nan.clone(),
            smallest_singular_value=_smallest(tape),
            forward_error=diagnosis.forward_error,
            verdict=record.verdict,
            flat=record.flat,
            forward_tol=nan.clone(),
            forecasts=forecasts(krylovs, spectra, system, tol),
        )


def _step(folded: Folded, tape: UpdateTape, params: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    return lambda u: tape.layout.image(folded.update, u, params)


def _begin(folded: Folded, tape: UpdateTape, params: Sequence[Any]) -> Tensor:
    """Where the iteration begins, or else a point beside the fixed point."""
    begin = folded.start_of(tape.layout, params)
    return tape.u + _OFF * (1 + tape.u.abs()) if begin is None else begin


def _smallest(tape: UpdateTape) -> Tensor:
    """The smallest singular value of I − Φ, where Φ is at hand as a matrix."""
    batch, m = tape.u.shape
    if not tape.is_small or not m:
        return tape.u.new_full((batch,), math.nan)
    eye = torch.eye(m, dtype=tape.u.dtype, device=tape.u.device)
    return torch.linalg.svdvals(eye - tape.matrix).amin(-1)


def _gradient_of(loss: LossFunction, tape: UpdateTape) -> Tensor:
    """x̄ of a loss at the fixed point, ``(B, m)``."""
    leaves = [leaf.detach().requires_grad_() for leaf in tape.x]
    value = loss(*leaves)
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss: expected a scalar tensor that depends on the outputs, got {got}")
    bars = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    if not all(bool(bar.isfinite().all()) for bar in bars):
        raise ValueError("loss: expected finite gradients on the outputs, got NaN or infinity")
    return tape.layout.packed(bars)
