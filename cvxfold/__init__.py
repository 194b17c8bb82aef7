"""cvxfold: differentiable convex optimization layers by folded optimization.

``cvxfold.torch.CvxpyLayer`` is a drop-in replacement for ``cvxpylayers.torch.CvxpyLayer``;
``cvxfold.FoldedSolver`` is a solver for cvxpylayers' own layers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvxfold.errors import (
        ConvergenceError,
        ConvergenceWarning,
        InfeasibleError,
        ParameterTypeError,
        SolverError,
        UnboundedError,
    )
    from cvxfold.forward.solution import Status
    from cvxfold.solver import FoldedSolver

__version__ = "0.1.0"

__all__ = [
    "ConvergenceError",
    "ConvergenceWarning",
    "FoldedSolver",
    "InfeasibleError",
    "ParameterTypeError",
    "SolverError",
    "Status",
    "UnboundedError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for at its first use: ``cvxfold --help`` needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"Status": "cvxfold.forward.solution", "FoldedSolver": "cvxfold.solver"}
    return getattr(import_module(homes.get(name, "cvxfold.errors")), name)
