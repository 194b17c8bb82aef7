"""The plot of an analysis."""

from typing import Any

import numpy as np

from cvxfold.studies.analysis.result import Analysis
from cvxfold.studies.plotting import new_figure

_CURVES = 8
_DEEPEST = 1e-13


def draw(analysis: Analysis, path: Any = None) -> Any:
    """Residual of LFPI (the error that unrolling leaves) against iterations, and the predicted slope.

    Args:
        analysis: what to draw.
        path: where to save it, if anywhere.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib is missing; the message says how to get it.
    """
    figure = new_figure(figsize=(7.5, 4.5))
    axes = figure.subplots()
    history = analysis.backward_history.cpu().numpy()
    order = np.argsort(-analysis.spectral_radius.cpu().numpy())
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(_CURVES, len(order))).astype(int))]
    for instance in shown:
        own = history[:, instance]
        own = own[np.isfinite(own)]
        if not len(own):
            continue
        radius = float(analysis.spectral_radius[instance])
        steps = np.arange(len(own))
        (line,) = axes.semilogy(steps, own, linewidth=1.6, label=f"instance {instance}, ρ(Φ) = {radius:.4f}")
        anchor = len(own) // 2
        if radius > 0:
            slope = own[anchor] * radius ** (steps - anchor)
            axes.semilogy(steps, slope, linestyle="--", linewidth=1.0, color=line.get_color())
    axes.axhline(analysis.tol, color="0.5", linewidth=0.8)
    axes.set_ylim(bottom=_DEEPEST)
    axes.set_xlabel("iterations of LFPI, or depth of unrolling from the solution")
    axes.set_ylabel("relative residual of the adjoint system")
    axes.set_title("Backward convergence (solid) and the slope of the spectral radius (dashed)", fontsize=11)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
