"""cvxfold: differentiable convex optimization layers by folded optimization.

``cvxfold.torch.CvxpyLayer`` is a drop-in replacement for ``cvxpylayers.torch.CvxpyLayer``;
``cvxfold.FoldedSolver`` is a solver for cvxpylayers' own layers; ``cvxfold.fold(update, …)`` folds any other
iteration.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvxfold.engines.outcome import Status
    from cvxfold.errors import (
        ConvergenceError,
        ConvergenceWarning,
        DegenerateError,
        FixedPointError,
        FlatGradientWarning,
        InfeasibleError,
        OutOfMemoryError,
        ParameterTypeError,
        SolverError,
        UnboundedError,
    )
    from cvxfold.fold.function import fold
    from cvxfold.gradient.verdict import Verdict
    from cvxfold.report.summary import Monitor
    from cvxfold.studies.analysis import Analysis, analyze
    from cvxfold.studies.comparison import Comparison, compare
    from cvxfold.upstream.plugin import FoldedSolver

__version__ = "0.2.0"

__all__ = [
    "Analysis",
    "Comparison",
    "ConvergenceError",
    "ConvergenceWarning",
    "DegenerateError",
    "FixedPointError",
    "FlatGradientWarning",
    "FoldedSolver",
    "InfeasibleError",
    "Monitor",
    "OutOfMemoryError",
    "ParameterTypeError",
    "SolverError",
    "Status",
    "UnboundedError",
    "Verdict",
    "__version__",
    "analyze",
    "compare",
    "fold",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for at its first use: ``cvxfold --help`` needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {
        "Status": "cvxfold.engines.outcome",
        "FoldedSolver": "cvxfold.upstream.plugin",
        "Monitor": "cvxfold.report.summary",
        "Verdict": "cvxfold.gradient.verdict",
        "Analysis": "cvxfold.studies.analysis",
        "analyze": "cvxfold.studies.analysis",
        "Comparison": "cvxfold.studies.comparison",
        "compare": "cvxfold.studies.comparison",
    }
    if name == "fold":
        return import_module("cvxfold.fold")  # a package that can be called
    return getattr(import_module(homes.get(name, "cvxfold.errors")), name)
