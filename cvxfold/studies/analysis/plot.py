"""The plot of an analysis."""

from typing import Any

import numpy as np
from torch import Tensor

from cvxfold.display.figures import COLOURS, guide, new_figure, saved, tidy

_CURVES = 8
_DEEPEST = 1e-13


def draw(history: Tensor, radius: Tensor, tol: float, path: Any = None) -> Any:
    """Residual of LFPI (the error that unrolling leaves) against iterations, and the predicted slope.

    Args:
        history: of the residuals of LFPI, ``(K, B)``.
        radius: ρ(Φ), ``(B,)``.
        tol: the accuracy that is wanted.
        path: where to save it, if anywhere.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    figure = new_figure(figsize=(7.5, 4.5))
    axes = figure.subplots()
    residuals, radii = history.cpu().numpy(), radius.cpu().numpy()
    order = np.argsort(-radii)
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(_CURVES, len(order))).astype(int))]
    for colour, instance in zip(COLOURS, shown, strict=False):
        own = residuals[:, instance]
        own = own[np.isfinite(own)]
        if not len(own):
            continue
        contraction = float(radii[instance])
        steps = np.arange(len(own))
        name = f"instance {instance}, ρ(Φ) = {contraction:.4f}"
        axes.semilogy(steps, own, linewidth=1.6, color=colour, label=name)
        anchor = len(own) // 2
        if contraction > 0:
            slope = own[anchor] * contraction ** (steps - anchor)
            axes.semilogy(steps, slope, linestyle="--", linewidth=1.0, color=colour)
    guide(axes, tol, "tol")
    axes.set_ylim(bottom=_DEEPEST)
    axes.set_xlabel("iterations of LFPI, or depth of unrolling from the solution")
    axes.set_ylabel("relative residual of the adjoint system")
    axes.set_title("Backward convergence (solid) and the slope of the spectral radius (dashed)", fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    tidy(axes)
    return saved(figure, path)
