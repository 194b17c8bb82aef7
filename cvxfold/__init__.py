"""cvxfold: differentiable convex optimization layers by folded optimization.

``cvxfold.torch.CvxpyLayer`` is a drop-in replacement for ``cvxpylayers.torch.CvxpyLayer``;
``cvxfold.FoldedSolver`` is a solver for cvxpylayers' own layers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvxfold.analysis import Analysis, analyze
    from cvxfold.comparison import Comparison, compare
    from cvxfold.errors import (
        ConvergenceError,
        ConvergenceWarning,
        DegenerateError,
        InfeasibleError,
        OutOfMemoryError,
        ParameterTypeError,
        SolverError,
        UnboundedError,
    )
    from cvxfold.forward.solution import Status
    from cvxfold.monitor.summary import Monitor
    from cvxfold.monitor.verdict import Verdict
    from cvxfold.solver import FoldedSolver

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "Comparison",
    "ConvergenceError",
    "ConvergenceWarning",
    "DegenerateError",
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
]


def __getattr__(name: str) -> Any:
    """Import what is asked for at its first use: ``cvxfold --help`` needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {
        "Status": "cvxfold.forward.solution",
        "FoldedSolver": "cvxfold.solver",
        "Monitor": "cvxfold.monitor.summary",
        "Verdict": "cvxfold.monitor.verdict",
        "Analysis": "cvxfold.analysis",
        "analyze": "cvxfold.analysis",
        "Comparison": "cvxfold.comparison",
        "compare": "cvxfold.comparison",
    }
    return getattr(import_module(homes.get(name, "cvxfold.errors")), name)
