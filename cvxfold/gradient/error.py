"""How large the error of a gradient is that an inexact forward pass causes.

δu = (I − Φ)⁻¹(F(u) − u + e) is, to first order, how far u may be from the solution, e being what rounding
leaves. What it does to the gradient is known to first order
(:func:`cvxfold.gradient.screen.change_by_step`). Where that is not negligible, the gradient at u + δu is
computed as well, and the difference is the estimate. (What the adjoint system's residual causes is told by
:func:`cvxfold.gradient.screen.change_by_remainder`.)
"""

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.gradient.adjoint import Adjoint, Bars, bars_of, fold, on_moving
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import NEGLIGIBLE, SAFETY, gradient_floor, ratio
from cvxfold.methods import AdjointSettings, Auto

_SOLVED = 1e-11  # the residual of an adjoint system that is solved


def forward_error(
    phi: ProgramLinearization,
    du: Tensor,
    share: Tensor,
    bars: Bars,
    adjoint: Adjoint,
    settings: AdjointSettings,
) -> Tensor:
    """The relative error of the gradient that u's distance δu from the solution causes, ``(B,)``.

    Args:
        phi: the iteration at u.
        du: δu, ``(B, k)``.
        share: what is known to first order, ``(B,)``.
        bars: the loss gradients x̄ ``(B, n)`` and ȳ ``(B, m)``.
        adjoint: of them.
        settings: of the adjoint systems that are to be solved.
    """
    error = share.clone()
    rows = places(~(error <= NEGLIGIBLE))
    if len(rows):
        part, here = phi.take(rows), adjoint.take(rows)
        of_part = bars_of(bars, rows)
        if not bool((here.residual <= _SOLVED).all()):
            # What the method left unsolved is not the forward pass's fault.
            here = fold(part, *of_part, Auto(least_norm=False), settings)
        error[rows] = error_of_step(part, du[rows], of_part, here, settings)
    return error


def error_of_step(
    phi: ProgramLinearization,
    du: Tensor,
    bars: Bars,
    here: Adjoint,
    settings: AdjointSettings | None = None,
) -> Tensor:
    """The relative change of the gradient on what parameters reach where u moves by ``du``, ``(B,)``.

    Args:
        phi, here: the iteration at u, and the adjoint there.
        du: the step, ``(B, k)``.
        bars: the loss gradients of the adjoint.
        settings: of the adjoint system at u + ``du``.
    """
    moved = phi.moved(du)
    there = fold(moved, *bars, Auto(least_norm=False), settings or AdjointSettings())
    before, after = on_moving(phi, here.p, here.v), on_moving(moved, there.p, there.v)
    size, change = torch.maximum(before.norm(dim=-1), after.norm(dim=-1)), (after - before).norm(dim=-1)
    size = torch.where(size > SAFETY * change, size, torch.maximum(size, gradient_floor(phi, *bars)))
    return ratio(change, size)
