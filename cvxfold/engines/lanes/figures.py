"""The kernels' figures of a batch as the records that the rest of the library reads."""

import math

import torch
from torch import Tensor

from cvxfold.engines.lanes.binding import BackwardFigure, ForwardFigure
from cvxfold.engines.outcome import Ended, Residuals
from cvxfold.gradient.screen import FOUND, UNSOLVED, Screen, least_felt
from cvxfold.methods import AdjointSettings, AdjointSolution

SUSPECT = FOUND
"""‖J w‖/‖w‖ after three steps of inverse iteration below which J may be singular. A null vector grows by
1/δ = 1e8 a step, so that beside this no step can have missed it."""

PERHAPS, YES = 1, 2
"""Answers of the kernels: a suspicion, and a certainty."""

INACCURATE = 1e-9
"""Relative residual above which the adjoint is folded again, with all means."""

NEGLIGIBLE = 1e-4
"""What the distance from the solution may do to a gradient, relatively, before it is worth a diagnosis. The
kernels tell it to first order, as a diagnosis does; but a large step is not of first order."""


def ended_of(figures: Tensor) -> Ended:
    """How the instances of a forward pass ended, from its figures ``(B, ·)``."""
    status, iterations, newton_steps = (
        figures[:, column].long()
        for column in (ForwardFigure.STATUS, ForwardFigure.ITERATIONS, ForwardFigure.NEWTON_STEPS)
    )
    residuals = (ForwardFigure.PRIMAL, ForwardFigure.DUAL, ForwardFigure.GAP, ForwardFigure.RELATIVE)
    return Ended(
        status,
        iterations,
        newton_steps,
        Residuals(*(figures[:, column] for column in residuals)),
        figures[:, ForwardFigure.CERTIFICATE],
        torch.zeros(len(figures), dtype=torch.bool, device=figures.device),
    )


def system_of(figures: Tensor, settings: AdjointSettings) -> AdjointSolution:
    """The adjoint systems as reports tell of them, from a backward pass's figures ``(B, ·)``."""
    residual = figures[:, BackwardFigure.RESIDUAL].clone()
    converged = residual <= settings.tol
    return AdjointSolution(
        method="direct",
        w=figures.new_empty(len(figures), 0),
        iterations=figures[:, BackwardFigure.CORRECTIONS].long(),
        residual=residual,
        rate=torch.full_like(residual, math.nan),
        converged=converged,
        history=residual.unsqueeze(0),
        exhausted=torch.zeros_like(converged),
    )


def screen_of(figures: Tensor) -> Screen:
    """What the kernels saw of each instance, from a backward pass's figures ``(B, ·)``."""
    column = {figure: figures[:, figure] for figure in BackwardFigure}
    matters, small = column[BackwardFigure.MATTERS], column[BackwardFigure.SMALLEST] < SUSPECT
    solved = column[BackwardFigure.RESIDUAL] <= UNSOLVED
    unreal = ~solved | ((matters > 0) & small)
    matters, singular = matters > 0, (matters == YES) & small & solved
    kink, gradient = column[BackwardFigure.ON_KINK], column[BackwardFigure.GRADIENT]
    faint = gradient <= least_felt(gradient, unreal)  # whether its kink is felt a diagnosis has to tell
    return Screen(
        margin=column[BackwardFigure.MARGIN],
        on_kink=(kink == PERHAPS) | (faint & (kink == YES)),
        smallest=column[BackwardFigure.SMALLEST],
        offset=column[BackwardFigure.OFFSET],
        adjoint_error=column[BackwardFigure.ERROR],
        strength=column[BackwardFigure.STRENGTH],
        gradient=gradient,
        flat=column[BackwardFigure.FLAT] > 0,
        blind=torch.zeros(len(figures), dtype=torch.bool, device=figures.device),
        unsolved=~(column[BackwardFigure.RESIDUAL] <= INACCURATE),
        suspect=SUSPECT * (matters & ~singular),
        negligible=NEGLIGIBLE,
        kinked=~faint & (kink == YES),
        singular=singular,
    )
